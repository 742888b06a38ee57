"""The envelope in the cartridge's chip: a tape and the token are enough."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwkm.checks import Status
from hwkm.deliveries import Deliveries, open_drive
from hwkm.drivers import chip
from hwkm.drivers.choose import Choice
from hwkm.errors import NotFoundError
from hwkm.keystore.records import ProofKind
from hwkm.manager import Caller
from hwkm.policy import Delivery
from hwkm.scsi import commands, emulator
from hwkm.scsi.attributes import Attribute, AttributeFormat, AttributeId, pack_attributes
from hwkm.scsi.commands import write_attribute
from tests.keystore import homes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.drivers.bench import Bench
    from tests.keystore.homes import Home

VOLUME = "Vol-0001"


def write(bench: Bench, place: AttributeId, value: bytes) -> None:
    attribute = Attribute(place, value, AttributeFormat.TEXT)
    bench.transport.execute(write_attribute(pack_attributes([attribute])))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(envelope=st.binary(min_size=1, max_size=chip.MAX_BYTES))
def test_what_is_kept_is_read(bench: Bench, envelope: bytes) -> None:
    assert chip.keep(bench.transport, envelope).status is Status.OK
    assert chip.read(bench.transport) == envelope


def test_a_shorter_one_leaves_nothing_of_a_longer_one(bench: Bench) -> None:
    for length in (chip.MAX_BYTES, 200, 10):
        chip.keep(bench.transport, bytes(length))
    assert chip.read(bench.transport) == bytes(10)


@pytest.mark.parametrize("place", list(chip.PLACES))
def test_what_others_keep_there_stays(bench: Bench, place: AttributeId) -> None:
    write(bench, place, b"Monthly, shelf 3")
    check = chip.keep(bench.transport, b"envelope")
    assert check.status is Status.WARN
    assert f"{place:04X}h" in check.detail
    assert chip.read(bench.transport) is None
    assert b"Monthly, shelf 3" in bench.transport.execute(commands.read_attribute())


@pytest.mark.parametrize(
    "value",
    [b"hwkm1/2:abcd", b"hwkm2/1:abcd", b"hwkm1/1:", b"hwkm1/1:~~~~~", b"hwkm1/1: a", b"hwkm0/1:a"],
)
def test_a_piece_that_is_none(bench: Bench, value: bytes) -> None:
    write(bench, AttributeId.USER_MEDIUM_TEXT_LABEL, value)
    assert chip.read(bench.transport) is None


def test_without_a_cartridge_there_is_a_warning(make: Callable[..., Bench]) -> None:
    bench = make(cartridge="")
    assert chip.keep(bench.transport, b"envelope").status is Status.WARN
    assert bench.driver.envelope_on_chip() is None


# With token and keystore


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return homes.initialize(tmp_path_factory.mktemp("chip") / "template")


@pytest.fixture
def home(template: Home, tmp_path: Path) -> Home:
    home = homes.copy(template, tmp_path / "home")
    home.edit('delivery = "software"', 'delivery = "auto"')
    return home


@pytest.fixture
def tape(home: Home, tmp_path: Path) -> Path:
    """A drive with an encrypted tape, and no key."""
    path = tmp_path / "drive"
    emulator.create(path, "hpe-lto-9", cartridge="L90001L9")
    with open_drive(f"emulator:{path}", home.installation().config.runtime_dir) as driver:
        desk = deliveries(home)
        handout = desk.issue(VOLUME, Choice(Delivery.DRIVE, "it was asked for"))
        report = desk.deliver(driver, handout, new=True)
        assert report.checks[-1].detail == "the envelope is in it"
        with closing(emulator.EmulatorTransport(path)) as port:
            port.execute(commands.write_block(b"data" * 256))
            port.execute(commands.rewind())
        desk.clear(driver)
    return path


def deliveries(home: Home) -> Deliveries:
    return Deliveries.of(home.installation(), Caller("tester"))


def bare(home: Home) -> None:
    for file in home.folder.glob("keystore.db*"):
        file.unlink()


def test_tape_and_token_are_enough(home: Home, tape: Path) -> None:
    bare(home)
    with open_drive(f"emulator:{tape}", home.installation().config.runtime_dir) as driver:
        found = deliveries(home).auto(driver)
        assert found is not None
        generation, report = found
        assert (generation.volume, generation.generation) == (VOLUME, 1)
        assert report.encrypted
    with closing(emulator.EmulatorTransport(tape)) as port:
        assert port.execute(commands.read_block(1024)) == b"data" * 256
    with home.keystore().reading() as transaction:
        (record,) = transaction.generations(VOLUME)
        assert [one.kind for one in transaction.proofs(record.key_id)] == [ProofKind.LOAD]


def test_an_envelope_of_another_tape_is_not_used(home: Home, tape: Path) -> None:
    """Whoever swaps chips gets no key into the drive."""
    other = deliveries(home).issue("Vol-0002", Choice(Delivery.DRIVE, "")).envelope.encode()
    with closing(emulator.EmulatorTransport(tape)) as port:
        assert chip.keep(port, other).status is Status.OK
    bare(home)
    with open_drive(f"emulator:{tape}", home.installation().config.runtime_dir) as driver:
        with pytest.raises(NotFoundError, match="not on record, nor in"):
            deliveries(home).auto(driver)
        assert driver.held_names() == ()


def test_a_forged_envelope_is_not_used(home: Home, tape: Path) -> None:
    with closing(emulator.EmulatorTransport(tape)) as port:
        envelope = bytearray(chip.read(port) or b"")
        envelope[-1] ^= 1
        chip.keep(port, bytes(envelope))
    bare(home)
    with open_drive(f"emulator:{tape}", home.installation().config.runtime_dir) as driver:
        with pytest.raises(Exception, match="MAC"):
            deliveries(home).auto(driver)
        assert driver.held_names() == ()
