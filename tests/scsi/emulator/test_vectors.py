"""Byte strings that hwkm's own encoder did not make: other programs' pages, captured replies.

Sources: hand-assembled pages out of SSC-4's layouts, stenc's unit tests and its captured status
page, Bareos's and stenc's pages as sent, Quantum's and Oracle's manuals, captures of an HPE LTO-9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.scsi.emulator.host import Host, code

if TYPE_CHECKING:
    from collections.abc import Callable

U_KAD_ONLY = bytes.fromhex("""
00 10 00 45 40 00 02 03 01 00 00 00 00 00 00 00
00 00 00 20 00 01 02 03 04 05 06 07 08 09 0A 0B
0C 0D 0E 0F 10 11 12 13 14 15 16 17 18 19 1A 1B
1C 1D 1E 1F 00 00 00 11 48 57 4B 4D 3A 30 31 32
33 34 35 36 37 38 39 41 42""")
U_KAD_ONLY_CDB = "B5 20 00 10 00 00 00 00 00 49 00 00"

BOTH_KADS = bytes.fromhex("""
00 10 00 55 40 04 02 02 01 00 00 00 00 00 00 00
00 00 00 20 00 01 02 03 04 05 06 07 08 09 0A 0B
0C 0D 0E 0F 10 11 12 13 14 15 16 17 18 19 1A 1B
1C 1D 1E 1F 00 00 00 11 48 57 4B 4D 3A 30 31 32
33 34 35 36 37 38 39 41 42 01 00 00 0C 48 57 4B
4D 30 30 30 30 30 30 30 31""")
BOTH_KADS_CDB = "B5 20 00 10 00 00 00 00 00 59 00 00"

READ_ONLY = bytes.fromhex("00 10 00 30 40 04 00 03 01 00 00 00 00 00 00 00 00 00 00 20") + bytes(
    range(32)
)
CLEAR = bytes.fromhex("00 10 00 10 40 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00")
CLEAR_CDB = "B5 20 00 10 00 00 00 00 00 14 00 00"
STENC_CLEAR = bytes.fromhex("00 10 00 10 40 40 00 00 01 00 00 00 00 00 00 00 00 00 00 00")
BAREOS_CLEAR = bytes.fromhex("00 10 00 30 40 00 00 00 01 00" + "00" * 8 + "00 20") + bytes(32)
PUBLIC = bytes.fromhex("00 10 00 10 00 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00")

STENC_KEY_NAME = bytes.fromhex("""
00 10 00 40 40 40 02 02 01 00 02 00 00 00 00 00
00 00 00 20 00 11 22 33 44 55 66 77 88 99 AA BB
CC DD EE FF 00 11 22 33 44 55 66 77 88 99 AA BB
CC DD EE FF 00 00 00 0C 48 65 6C 6C 6F 20 77 6F
72 6C 64 21""")
STENC_1_INDEX_0 = bytes.fromhex("00 10 00 30 40 00 02 02 00 00" + "00" * 8 + "00 20") + bytes(32)

# stenc's test page gives 3C as its length, which is four less than what follows.
HP_LTO_6_CAPABILITIES = bytes.fromhex(
    "00 10 00 40 09"
    + "00" * 15
    + """
01 00 00 14 8A 8C 00 20 00 3C 00 20 ED 00 00 00 00 00 00 00 00 01 00 14
02 00 00 14 8A 8F 00 20 00 3C 00 20 D9 00 00 00 00 00 00 00 00 01 00 10"""
)
T10000_DESCRIPTOR = bytes.fromhex(
    "01 00 00 14 BA 10 00 1E 00 00 00 20 43 00 00 00 00 00 00 00 80 01 00 10"
)
IBM_3592_DESCRIPTOR = bytes.fromhex(
    "01 00 00 14 BA 10 00 00 00 0C 00 20 0F 00 00 00 00 00 00 00 00 01 00 14"
)
EMPTY_DESCRIPTOR = bytes.fromhex(
    "01 00 00 14 3A 10 00 20 00 0C 00 20 01 00 00 00 00 00 00 00 00 01 00 14"
)
STATUS_NOTHING = bytes.fromhex("00 20 00 14 00 00 00 00 00 00 00 00 10") + bytes(11)
STATUS_HELLO = bytes.fromhex(
    "00 20 00 24 42 02 02 01 00 00 00 01 18 00 00 00 00 00 00 00 00 00 00 00"
    "00 01 00 0C 48 65 6C 6C 6F 20 77 6F 72 6C 64 21"
)
NEXT_HELLO = bytes.fromhex("00 21 00 1C 00 00 00 00 00 00 00 01 05 01 00 00 00 01 00 0C") + (
    b"Hello world!"
)
NEXT_CLEAR = bytes.fromhex("00 21 00 0C 00 00 00 00 00 00 00 00 03 00 00 00")


def test_capabilities_of_an_hp_lto_6(make: Callable[..., Host]) -> None:
    assert make("hp-lto-6").spin(0x0010) == HP_LTO_6_CAPABILITIES


@pytest.mark.parametrize(
    ("profile", "loaded"), [("t10000", T10000_DESCRIPTOR), ("ibm-3592", IBM_3592_DESCRIPTOR)]
)
def test_descriptors_depend_on_the_cartridge(
    make: Callable[..., Host], profile: str, loaded: bytes
) -> None:
    host = make(profile)
    assert host.spin(0x0010)[20:] == loaded
    host.drive.eject()
    assert host.spin(0x0010)[20:] == EMPTY_DESCRIPTOR


@pytest.mark.parametrize(
    ("profile", "head"), [("t10000", 0x01), ("ibm-3592", 0x00), ("hp-lto-4", 0x09)]
)
def test_head_of_the_capabilities(make: Callable[..., Host], profile: str, head: int) -> None:
    assert make(profile).spin(0x0010)[:20] == bytes((0, 0x10, 0, 0x28, head)) + bytes(15)


def test_lists_of_pages(make: Callable[..., Host]) -> None:
    plain = make("t10000")
    seven = "00 00 00 0E 00 00 00 01 00 10 00 11 00 12 00 20 00 21"
    assert plain.spin(0x0000) == bytes.fromhex(seven)
    assert plain.spin(0x0001) == bytes.fromhex("00 01 00 02 00 10")
    assert plain.spin(0x0000, protocol=0) == bytes.fromhex("00 00 00 00 00 00 00 02 00 20")
    assert plain.spin(0x0001, protocol=0) == bytes(4)
    assert plain.spin(0x0011) == bytes.fromhex("00 11 00 01 00")
    assert plain.spin(0x0012) == bytes.fromhex("00 12 00 0C 01 07 00 07 00 00 00 00 00 00 00 00")


def test_status_when_nothing_is_set(host: Host) -> None:
    assert host.status() == STATUS_NOTHING


def test_u_kad_only(host: Host) -> None:
    host.good(U_KAD_ONLY_CDB, U_KAD_ONLY)
    assert host.status()[4:12] == bytes.fromhex("42 02 03 01 00 00 00 01")
    assert host.status()[24:] == bytes.fromhex("00 01 00 11") + b"HWKM:0123456789AB"


def test_with_ckod_and_the_format_of_ascii_names(make: Callable[..., Host]) -> None:
    host = make("hpe-lto-9")
    data = bytearray(U_KAD_ONLY)
    data[5], data[10] = 0x04, 0x02
    host.good(U_KAD_ONLY_CDB, bytes(data))
    assert host.status()[13] == 0x02


def test_both_kads(host: Host) -> None:
    host.good(BOTH_KADS_CDB, BOTH_KADS)
    kads = bytes.fromhex("00 01 00 11") + b"HWKM:0123456789AB" + bytes.fromhex("01 02 00 0C")
    assert host.status()[24:] == kads + b"HWKM00000001"
    assert host.write(b"hello").status == 0
    host.rewind()
    block = host.next_block()
    assert block[12:14] == b"\x05\x01"
    kads = bytes.fromhex("00 01 00 11") + b"HWKM:0123456789AB" + bytes.fromhex("01 03 00 0C")
    assert block[16:] == kads + b"HWKM00000001"


def test_a_key_for_reading_only(host: Host) -> None:
    assert code(host.set(READ_ONLY)) == "good"
    assert host.status()[5:8] == bytes.fromhex("00 03 01")


@pytest.mark.parametrize("data", [CLEAR, STENC_CLEAR, BAREOS_CLEAR])
def test_every_programs_way_to_clear(host: Host, data: bytes) -> None:
    host.good(U_KAD_ONLY_CDB, U_KAD_ONLY)
    assert code(host.set(data)) == "good"
    status = host.status()
    assert status[5:8] == bytes(3)
    assert status[8:12] == bytes.fromhex("00 00 00 02")
    assert status[24:] == b""
    assert not host.drive.state()["shared"]["key"]


def test_release_to_public_leaves_the_shared_key(host: Host) -> None:
    host.good(U_KAD_ONLY_CDB, U_KAD_ONLY)
    host.good(CLEAR_CDB, PUBLIC)
    assert host.status()[4:7] == bytes.fromhex("02 02 03")


def test_stencs_page_and_its_captured_status(make: Callable[..., Host]) -> None:
    host = make("hp-lto-6")
    assert host.write(b"plain").status == 0
    assert code(host.set(STENC_KEY_NAME)) == "good"
    assert host.write(b"hello").status == 0
    # CEEMS 01b, RDMD and the KAD format are this drive's; the capture's drive shows none of them.
    hidden = bytes.fromhex("FF" * 12 + "F8 00" + "FF" * 26)
    seen = bytes(a & b for a, b in zip(host.status(), hidden, strict=True))
    assert seen == bytes(a & b for a, b in zip(STATUS_HELLO, hidden, strict=True))
    host.rewind()
    assert host.next_block() == NEXT_CLEAR
    host.good("11 00 00 00 01 00")
    # RDMDS and the KAD format, as above
    assert host.next_block()[:14] + bytes(2) + host.next_block()[16:] == NEXT_HELLO
    assert code(host.set(CLEAR)) == "good"
    assert host.next_block()[12] == 0x06


def test_stenc_1_and_the_index_it_takes(make: Callable[..., Host]) -> None:
    # The captured sense: illegal request, 26/00, bit 7 of byte 8 of the parameter list.
    assert make("hp-lto-4").set(STENC_1_INDEX_0).sense == bytes.fromhex(
        "70 00 05 00 00 00 00 0A 00 00 00 00 26 00 00 8F 00 08"
    )
    assert code(make("quantum-lto-4").set(STENC_1_INDEX_0)) == "good"


@pytest.mark.parametrize("cdb", ["A2 20 00 10 00 00 00 00 20 00 00 00", "A2" + "00" * 11])
def test_a_drive_without_encryption(make: Callable[..., Host], cdb: str) -> None:
    host = make("ibm-lto-3")
    assert host.refusal(cdb)[0] == "5/20/00"
    assert code(host.set(CLEAR)) == "5/20/00"


def test_a_library_managed_drive(make: Callable[..., Host]) -> None:
    host = make("library-managed")
    assert host.spin(0x0010)[4] == 0x0A
    assert host.status()[12] == 0x30
    assert code(host.set(U_KAD_ONLY)) == "5/74/21"
    assert code(host.set(CLEAR)) == "5/74/21"


def test_random_numbers_differ(host: Host) -> None:
    cdb = "A2 20 00 30 00 00 00 00 00 24 00 00"
    one, two = host.good(cdb), host.good(cdb)
    assert one[:4] == two[:4] == bytes.fromhex("00 30 00 20")
    assert len(one) == 36
    assert one != two


def test_who_an_hpe_lto_9_is(make: Callable[..., Host]) -> None:
    host = make("hpe-lto-9")
    inquiry = bytes.fromhex("01 80 06 12 41 01 10 02") + b"HPE     Ultrium 9-SCSI  S2S1"
    assert host.good("12 00 00 00 FC 00")[:36] == inquiry
    serial = bytes.fromhex("01 80 00 0A 38 30 33 31 42 44 43 37 44 42")
    assert host.good("12 01 80 00 FC 00") == serial
    named = bytes.fromhex("02 01 00 22") + b"HPE     Ultrium 9-SCSI  8031BDC7DB"
    named += bytes.fromhex("01 03 00 08 50 01 43 80 31 BD C7 DB")
    assert host.good("12 01 83 00 FC 00")[4:] == named


def test_log_pages_as_captured(make: Callable[..., Host]) -> None:
    host = make("hpe-lto-9", "Z20001L9")
    status = host.good("4D 00 51 00 00 00 00 20 00 00")
    captured = "00 00 43 04 31 17 00 00 00 01 43 02 01 F4 00 02 43 08" + "00" * 8 + "00 03 43 0C"
    assert status[4:].ljust(42, b"\0") == bytes.fromhex(captured) + bytes(12)
    volume = host.good("4D 00 57 00 00 00 00 20 00 00")
    assert bytes.fromhex("00 42 41 20") + b"Z20001L9".ljust(32) in volume
    none = "02 00 43 0A 09 00 00 00 FF FF FF FF FF FF 02 01 43 0A 09 00 00 00 FF FF FF FF FF FF"
    assert volume.endswith(bytes.fromhex(none))
    alerts = host.good("4D 00 6E 00 00 00 00 20 00 00")
    assert alerts[:14] == bytes.fromhex("2E 00 01 40 00 01 C0 01 00 00 02 C0 01 00")
    bits = host.good("4D 00 52 00 00 00 00 20 00 00")
    assert bits == bytes.fromhex("12 00 00 0C 00 00 43 08") + bytes(8)


def test_mode_page_as_captured(make: Callable[..., Host]) -> None:
    reply = make("hpe-lto-9").good("5A 00 10 00 00 00 00 02 00 00")
    assert reply[8] == 0x60
    assert reply[16:] == bytes.fromhex("90 0E 00 00 00 00 01 2C 40 00 10 00 00 00 01 90")
