"""What a drive holds, what a tape asks for, what is on it, and that the key goes out again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from hwkm.checks import Status
from hwkm.errors import DeviceError
from hwkm.scsi.pages.next_block import BlockEncryption
from tests.drivers.bench import (
    BARCODE,
    KEY_ID,
    MODE_CHANGED,
    OTHER_HOSTS_KEY,
    OTHER_ID,
    OTHER_KEY,
    READ,
    VOLUME,
    Attentive,
    Bench,
    Between,
    Sleepy,
    check,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hwkm.drivers.report import ProveReport
    from hwkm.scsi.completion import Completion
    from hwkm.scsi.transport import Command

NAMES = (KEY_ID, VOLUME.encode())


def failed(report: ProveReport) -> list[str]:
    return [one.name for one in report.checks if one.status is Status.FAIL]


# What the drive holds


def test_an_empty_drive(make: Callable[..., Bench]) -> None:
    driver = make(cartridge="").driver
    drive, cartridge = driver.identify()
    assert (drive.vendor, drive.serial) == ("IBM", "10WT0A1B2C")
    assert cartridge is None
    assert driver.ability().reason == "no cartridge is loaded"
    assert driver.held_names() == ()
    with pytest.raises(DeviceError, match="no cartridge"):
        driver.next_key()
    with pytest.raises(DeviceError, match="no cartridge"):
        driver.prove(KEY_ID)
    assert driver.clear().cleared


def test_holding(bench: Bench) -> None:
    assert not bench.driver.holds(KEY_ID).encrypted
    counter = bench.load().counter
    report = bench.driver.holds(KEY_ID)
    assert report.encrypted
    assert report.counter == counter
    assert not bench.driver.guard_changed(counter)
    other = bench.driver.holds(OTHER_ID)
    assert not other.encrypted
    assert other.checks[2].detail == f"'HWKM00000001', 'Vol001' instead of {OTHER_ID.hex()}"


def test_a_key_that_only_reads_is_not_held(bench: Bench) -> None:
    bench.spout("00 10 00 30 40 00 00 03 01 00 00 00 00 00 00 00 00 00 00 20" + "5A" * 32)
    checks = bench.driver.holds(KEY_ID).checks
    assert [one.name for one in checks if one.status is Status.FAIL] == [
        "encryption mode",
        "key id",
    ]


# What the tape asks for


@dataclass(frozen=True)
class Record:
    key_id: bytes


def test_the_next_key(bench: Bench) -> None:
    blank = bench.driver.next_key()
    assert not blank.is_encrypted
    assert blank.names == ()
    bench.load()
    bench.write(b"block")
    bench.rewind()
    bench.driver.clear()
    wanted = bench.driver.next_key()
    assert wanted.is_encrypted
    assert wanted.block is not None
    assert wanted.block.encryption is BlockEncryption.UNREADABLE
    assert wanted.names == NAMES
    assert wanted.text == "'HWKM00000001', 'Vol001'"
    assert wanted.name_of(Record(KEY_ID)) == KEY_ID
    assert wanted.name_of(Record(OTHER_ID)) == KEY_ID
    assert bench.position() == 0


def test_blocks_without_a_name(bench: Bench) -> None:
    bench.spout(OTHER_HOSTS_KEY)
    bench.write(b"block")
    wanted = bench.driver.next_key()
    assert wanted.is_encrypted
    assert wanted.names == ()
    assert wanted.text == "its blocks name none"
    assert wanted.name_of(Record(OTHER_ID)) == OTHER_ID


def test_a_clear_label_before_the_data(bench: Bench) -> None:
    bench.write(b"label")
    bench.filemark()
    bench.load()
    bench.write(b"block")
    bench.rewind()
    bench.driver.clear()
    assert bench.driver.next_key().names == NAMES
    assert bench.position() == 0


def test_a_clear_tape(bench: Bench) -> None:
    bench.write(b"label", b"block")
    assert not bench.driver.next_key().is_encrypted
    assert bench.position() == 2


def test_only_one_key_is_tried(bench: Bench) -> None:
    bench.load(OTHER_KEY, OTHER_ID)
    bench.write(b"block")
    bench.rewind()
    port = Between(bench.path)
    bench.through(port)
    bench.load()
    bench.driver.next_key()
    assert READ not in port.codes


# What is on the tape


@pytest.mark.parametrize("objects", [0, 1, 3])
def test_proof(bench: Bench, objects: int) -> None:
    for _ in range(objects):
        bench.write(b"label")
        bench.filemark()
    counter = bench.load().counter
    bench.write(b"block", b"block")
    bench.locate(1)
    report = bench.driver.prove(KEY_ID, counter)
    assert report.encrypted
    assert report.block == (1 if not objects else 2 * objects)
    assert report.counter == counter
    assert bench.position() == 1


def test_a_drive_that_has_to_read_first(bench: Bench) -> None:
    counter = bench.load().counter
    bench.write(b"block" * 2000, b"block")
    bench.through(Sleepy(bench.path))
    assert bench.driver.prove(KEY_ID, counter).encrypted
    assert bench.position() == 2


def test_nothing_on_the_tape(bench: Bench) -> None:
    bench.load()
    report = bench.driver.prove(KEY_ID)
    assert failed(report) == ["block"]
    assert report.block is None


def test_clear_blocks_under_a_key(bench: Bench) -> None:
    bench.write(b"label")
    bench.load()
    assert failed(bench.driver.prove(KEY_ID)) == ["block"]


def test_another_keys_blocks(bench: Bench) -> None:
    bench.load(OTHER_KEY, OTHER_ID)
    bench.write(b"block")
    bench.rewind()
    bench.load()
    report = bench.driver.prove(KEY_ID)
    assert failed(report) == ["block"]
    assert report.block == 0
    assert failed(bench.driver.prove(OTHER_ID)) == ["key id", "block"]


def test_the_right_key_under_another_name(bench: Bench) -> None:
    bench.load(key_id=OTHER_ID)
    bench.write(b"block")
    bench.load()
    bench.rewind()
    assert failed(bench.driver.prove(KEY_ID)) == ["block's key id"]


def test_events_during_a_proof(bench: Bench) -> None:
    bench.load()
    bench.write(b"block")
    assert bench.through(Attentive(bench.path, MODE_CHANGED)).driver.prove(KEY_ID).encrypted


class Lost(Between):
    """Does not know where the tape stands."""

    def complete(self, command: Command) -> Completion:
        end = super().complete(command)
        if command.cdb[0] == 0x34:
            return type(end)(data=b"\x04" + end.data[1:])
        return end


def test_a_position_that_is_not_known(bench: Bench) -> None:
    bench.load()
    bench.write(b"block")
    port = Lost(bench.path)
    report = bench.through(port).driver.prove(KEY_ID)
    assert not report.encrypted
    assert any("the tape was not moved" in one.detail for one in report.checks)
    assert 0x2B not in port.codes
    bench.rewind()
    assert bench.driver.prove(KEY_ID).encrypted


class Stuck(Between):
    """Can't be moved to a position twice."""

    def __init__(self, path: Path, object_number: int) -> None:
        super().__init__(path)
        self._object = object_number

    def complete(self, command: Command) -> Completion:
        if command.cdb[0] == 0x2B and int.from_bytes(command.cdb[3:7]) == self._object:
            return check((4, 0x15, 0x01))
        return super().complete(command)


def test_a_tape_that_does_not_get_back(bench: Bench) -> None:
    bench.load()
    bench.write(b"block", b"block")
    with pytest.raises(DeviceError, match="stood at object 2 and does not get back") as caught:
        bench.through(Stuck(bench.path, 2)).driver.prove(KEY_ID)
    assert "Rewind" in caught.value.hint


def test_a_tape_that_does_not_get_there(bench: Bench) -> None:
    bench.load()
    bench.write(b"block", b"block")
    with pytest.raises(DeviceError, match=re.escape("4/15/01")):
        bench.through(Stuck(bench.path, 0)).driver.prove(KEY_ID)
    assert bench.position() == 2


# Out again


def test_clear(bench: Bench) -> None:
    counter = bench.load().counter
    report = bench.driver.clear()
    assert report.cleared
    assert not report.encrypted
    assert report.held == NAMES
    assert report.counter == counter + 1
    assert report.cartridge is not None
    assert report.cartridge.barcode == BARCODE
    assert not bench.holds_a_key
    assert bench.driver.clear().held == ()


def test_clear_without_the_cartridge(make: Callable[..., Bench]) -> None:
    bench = make(quirks=("no-ckod",))
    bench.load()
    bench.drive.eject()
    report = bench.driver.clear()
    assert report.held == NAMES
    assert report.cleared
    assert report.cartridge is None
    assert not bench.holds_a_key


@pytest.mark.parametrize("profile", ["ibm-lto-3", "t10000", "library-managed"])
def test_clear_where_no_key_can_be(make: Callable[..., Bench], profile: str) -> None:
    assert make(profile).driver.clear().cleared


def test_another_hosts_key_is_taken_out_too(bench: Bench) -> None:
    bench.load()
    bench.spout(OTHER_HOSTS_KEY, "host-2")
    report = bench.driver.clear()
    assert report.cleared
    assert report.held == ()
    assert not bench.holds_a_key
