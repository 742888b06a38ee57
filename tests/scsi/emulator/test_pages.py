"""INQUIRY, MAM, log pages, mode pages and the head of SECURITY PROTOCOL IN, on every profile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hwkm.scsi.emulator import KINDS, PROFILES
from tests.scsi.emulator.host import Host, code, page

if TYPE_CHECKING:
    from collections.abc import Callable

READ_VALUES = "8C 00 00 00 00 00 00 00 00 00 00 00 80 00 00 00"


def write_attributes(host: Host, body: bytes, *, counts_itself: bool = False) -> str:
    data = (len(body) + 4 * counts_itself).to_bytes(4) + body
    head = bytes.fromhex("8D 01 00 00 00 00 00 00 00 00")
    return code(host.run(head + len(data).to_bytes(4) + bytes(2), data))


def attributes(host: Host) -> dict[int, tuple[int, bytes]]:
    reply = host.good(READ_VALUES)
    assert int.from_bytes(reply[:4]) == len(reply) - 4
    found, at = {}, 4
    while at < len(reply):
        end = at + 5 + int.from_bytes(reply[at + 3 : at + 5])
        found[int.from_bytes(reply[at : at + 2])] = reply[at + 2], reply[at + 5 : end]
        at = end
    return found


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_says_who_it_is(make: Callable[..., Host], name: str) -> None:
    host, profile = make(name), PROFILES[name]
    inquiry = host.good("12 00 00 00 FC 00")
    assert inquiry[8:36].decode() == (
        profile.vendor.ljust(8) + profile.product.ljust(16) + profile.revision.ljust(4)
    )
    assert len(inquiry) == inquiry[4] + 5
    assert host.good("12 01 00 00 FC 00") == bytes.fromhex("01 00 00 04 00 80 83 B0")
    assert host.good("12 01 80 00 FC 00")[4:].decode().strip() == profile.serial
    named = host.good("12 01 83 00 FC 00")
    assert int.from_bytes(named[2:4]) == len(named) - 4
    assert profile.serial.encode() in named
    assert host.good("12 01 B0 00 FC 00") == bytes.fromhex("01 B0 00 02 01 00")


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_takes_a_cartridge_and_writes(make: Callable[..., Host], name: str) -> None:
    host = make(name)
    assert code(host.write(b"plain")) == "good"
    host.rewind()
    assert host.read().data == b"plain"


@pytest.mark.parametrize("name", [name for name, one in PROFILES.items() if one.encrypts])
def test_every_page_gives_its_length(make: Callable[..., Host], name: str) -> None:
    host = make(name)
    host.write(b"block")
    host.rewind()
    for number in PROFILES[name].pages:
        reply = host.spin(number)
        assert int.from_bytes(reply[:2]) == number
        assert int.from_bytes(reply[2:4]) == len(reply) - 4
    for number in {0x0022, 0x0030, 0x0031, 0x0100} - {*PROFILES[name].pages}:
        cdb = bytes((0xA2, 0x20)) + number.to_bytes(2) + bytes.fromhex("00 00 00 00 20 00 00 00")
        assert host.refusal(cdb) == ("5/24/00", "c00002")


@pytest.mark.parametrize("length", [0, 1, 4, 12, 24])
def test_allocation_length_cuts(host: Host, length: int) -> None:
    whole = host.status()
    cdb = bytes.fromhex("A2 20 00 20 00 00") + length.to_bytes(4) + bytes(2)
    assert host.good(cdb) == whole[:length]


@pytest.mark.parametrize(
    ("cdb", "at"),
    [
        ("A2 21 00 00 00 00 00 00 20 00 00 00", "c00001"),
        ("A2 07 00 00 00 00 00 00 20 00 00 00", "c00001"),
        ("A2 00 00 02 00 00 00 00 20 00 00 00", "c00002"),
        ("A2 20 00 20 80 00 00 00 00 20 00 00", "cf0004"),
        ("12 00 80 00 FC 00", "c00002"),
        ("12 01 B1 00 FC 00", "c00002"),
        ("4D 00 7F 00 00 00 00 20 00 00", "cd0002"),
        ("4D 00 57 01 00 00 00 20 00 00", "c00003"),
        ("5A 00 24 00 00 00 00 20 00 00", "c00002"),
        ("5A 00 10 02 00 00 00 20 00 00", "c00003"),
        ("5A 00 D0 00 00 00 00 20 00 00", "cf0002"),
        ("8C 04" + "00" * 14, "cc0001"),
        ("5E 03 00 00 00 00 00 00 20 00", "cc0001"),
    ],
)
def test_what_there_is_not(host: Host, cdb: str, at: str) -> None:
    assert host.refusal(cdb) == ("5/24/00", at)


def test_attributes_of_a_new_cartridge(host: Host) -> None:
    found = attributes(host)
    serial = host.drive.cartridges()[0].serial
    assert found[0x0401] == (0x81, serial.encode().ljust(32))
    assert found[0x0400] == (0x81, b"HWKM-EMU")
    assert found[0x0806] == (0x01, b"HWK001L8".ljust(32))
    assert found[0x0405] == (0x80, b"\x5e")
    assert found[0x0408] == (0x80, b"\0")
    assert found[0x0224] == found[0x0225] == (0x80, b"\xff" * 8)
    assert found[0x0003] == (0x80, (1).to_bytes(8))


def test_from_the_given_attribute_on(host: Host) -> None:
    cdb = "8C 00 00 00 00 00 00 00 04 02 00 00 80 00 00 00"
    assert host.good(cdb)[4:6] == bytes.fromhex("0405")


def test_lists_of_attributes(host: Host) -> None:
    ids = b"".join(number.to_bytes(2) for number in attributes(host))
    assert host.good("8C 01" + READ_VALUES[5:])[4:] == ids
    assert bytes.fromhex("0803") in host.good("8C 05" + READ_VALUES[5:])[4:]
    assert host.good("8C 03" + READ_VALUES[5:]) == bytes.fromhex("00 02 00 01")


@pytest.mark.parametrize("counts_itself", [False, True])
def test_writing_attributes(host: Host, counts_itself: bool) -> None:
    body = (
        bytes.fromhex("08 00 01 00 08") + b"HWKM    " + bytes.fromhex("08 03 02 00 05") + b"label"
    )
    assert write_attributes(host, body, counts_itself=counts_itself) == "good"
    assert attributes(host)[0x0800] == (0x01, b"HWKM    ")
    host.drive.insert("HWK002L8")
    host.drive.insert("HWK001L8")
    host.drive.forget_attentions()
    assert attributes(host)[0x0803] == (0x02, b"label")
    assert write_attributes(host, bytes.fromhex("08 03 02 00 00")) == "good"
    assert 0x0803 not in attributes(host)


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ("04 01 01 00 01 41", "8f0004"),
        ("15 00 01 00 01 41", "8f0004"),
        ("08 00 02 00 01 41", "8f0006"),
        ("08 00 01 00 09" + "41" * 9, "8f0007"),
        ("08 00 01 00 02 41", "8f0004"),
        ("08 00 01", "8f0004"),
        ("08 05 00 00 01 81 04 01 01 00 01 41", "8f000a"),
    ],
)
def test_attributes_that_cant_be_written(host: Host, body: str, at: str) -> None:
    before = attributes(host)
    raw = bytes.fromhex(body)
    data = len(raw).to_bytes(4) + raw
    cdb = bytes.fromhex("8D 01 00 00 00 00 00 00 00 00") + len(data).to_bytes(4) + bytes(2)
    assert host.refusal(cdb, data) == ("5/26/00", at)
    assert attributes(host) == before


def test_lists_that_lie_about_their_length(host: Host) -> None:
    cdb = "8D 01 00 00 00 00 00 00 00 00 00 00 00 05 00 00"
    assert host.refusal(cdb, bytes(4) + b"x")[0] == "5/26/00"
    assert host.refusal("8D 01 00 00 00 00 00 00 00 00 00 00 00 03 00 00", bytes(3))[0] == "5/1A/00"


def test_the_chip_says_which_barcode(host: Host) -> None:
    body = bytes.fromhex("08 06 01 00 20") + b"OTHER1L8".ljust(32)
    assert write_attributes(host, body) == "good"
    log = host.good("4D 00 57 00 00 00 00 20 00 00")
    assert bytes.fromhex("00 42 41 20") + b"OTHER1L8".ljust(32) in log


def test_device_status_shows_that_there_is_a_key(host: Host) -> None:
    cdb = "4D 00 51 00 00 00 00 20 00 00"
    assert host.good(cdb)[8:12] == bytes.fromhex("31 17 00 00")
    host.set(page())
    assert host.good(cdb)[8:12] == bytes.fromhex("31 17 00 10")
    host.drive.eject()
    assert host.good(cdb)[8:10] == bytes.fromhex("11 00")


def test_list_of_log_pages(host: Host) -> None:
    assert host.good("4D 00 40 00 00 00 00 20 00 00") == bytes.fromhex("00 00 00 05 00 11 12 17 2E")


def test_volume_page_without_a_volume(make: Callable[..., Host]) -> None:
    reply = make(cartridge="").good("4D 00 57 00 00 00 00 20 00 00")
    assert reply == bytes.fromhex("17 00 00 05 00 00 40 01 00")


@pytest.mark.parametrize(
    ("name", "cdb", "data"),
    [
        ("ibm-lto-5", "5A 08 30 20 00 00 00 20 00 00", "70 20 00 05 00 03 01 01 00"),
        ("library-managed", "5A 08 30 20 00 00 00 20 00 00", "70 20 00 05 00 01 01 01 00"),
        ("ibm-3592", "5A 08 25 00 00 00 00 20 00 00", "25 1E" + "00" * 25 + "50" + "00" * 4),
        ("hp-lto-6", "5A 08 10 01 00 00 00 20 00 00", "50 01 00 1C" + "00" * 28),
    ],
)
def test_mode_pages(make: Callable[..., Host], name: str, cdb: str, data: str) -> None:
    reply = make(name).good(cdb)
    assert reply[8:] == bytes.fromhex(data)[: len(reply) - 8]
    assert int.from_bytes(reply[:2]) == len(bytes.fromhex(data)) + 6


def test_where_ibms_method_lies_behind_a_block_descriptor(make: Callable[..., Host]) -> None:
    assert make("ibm-3592").good("5A 00 25 00 00 00 00 00 FF 00")[43] == 0x50


def test_all_mode_pages(host: Host) -> None:
    some = host.good("5A 08 3F 00 00 00 00 00 FF 00")
    every = host.good("5A 08 3F FF 00 00 00 00 FF 00")
    assert (len(some), len(every)) == (8 + 16, 8 + 16 + 32 + 9)
    short = host.good("1A 08 3F 00 FF 00")
    assert (short[0], short[4:]) == (len(short) - 1, some[8:])


def test_kinds_of_cartridges() -> None:
    assert [name for name, kind in KINDS.items() if not kind.encrypts] == ["lto-3"]
