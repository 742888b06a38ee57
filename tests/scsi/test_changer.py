"""What a changer says of its drives, in SMC-3's bytes; and bytes that no changer should send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.errors import ParseError
from hwkm.scsi.changer import DriveElement, move_medium, parse_drives, read_drives
from hwkm.scsi.transport import CheckConditionError
from tests.scsi.changers import (
    EMPTY,
    FULL,
    PLAIN_SERIAL,
    T10_SERIAL,
    WITH_SERIALS,
    WITHOUT_SERIALS,
    Changer,
    identifier,
    page,
    report,
    tag,
)

LOADED = DriveElement(0x0100, loaded=True, serial="0013AABBCC", barcode="HWK006L8", source=0x0402)
BARE = DriveElement(0x0101, loaded=False, serial="HU1927XYZ0", barcode="", source=None)


def test_drives() -> None:
    changer = Changer()
    assert read_drives(changer) == (LOADED, BARE)
    (command,) = changer.commands
    # Drives only, with volume tags; CURDATA and DVCID; 65,535 bytes.
    assert command.cdb == bytes.fromhex("b8 14 0000 ffff 03 00ffff 00 00")
    assert (command.name, command.allocation, command.seconds) == (
        "READ ELEMENT STATUS",
        65535,
        300,
    )


def test_an_old_changer_gives_no_serials() -> None:
    changer = Changer(old=True)
    found = read_drives(changer)
    assert [(drive.address, drive.serial, drive.barcode) for drive in found] == [
        (0x0100, "", "HWK006L8"),
        (0x0101, "", ""),
    ]
    assert [command.cdb[6] for command in changer.commands] == [3, 0]


def test_other_refusals_are_raised() -> None:
    class Mute(Changer):
        def complete(self, command: object) -> object:  # type: ignore[override]
            return super()._move(0x0403, 0)

    with pytest.raises(CheckConditionError):
        read_drives(Mute())


def test_moving() -> None:
    changer = Changer()
    move_medium(changer, 0x0402, 0x0100)
    (command,) = changer.commands
    assert command.cdb == bytes.fromhex("a5 00 0000 0402 0100 0000 00 00")
    assert command.seconds == 1200
    with pytest.raises(CheckConditionError):
        move_medium(changer, 0x0403, 0x0100)
    assert changer.moves == [(0x0402, 0x0100)]


@pytest.mark.parametrize(
    ("bytes_", "serial"),
    [
        (identifier(1, T10_SERIAL), "0013AABBCC"),
        (identifier(0, PLAIN_SERIAL), "HU1927XYZ0"),
        (identifier(0, b"  1013000000\0\0"), "1013000000"),
        (identifier(3, bytes.fromhex("50013d6412345678"), code_set=1), ""),  # an NAA number
        (identifier(3, b"text of another kind"), ""),
        (identifier(1, b"IBM     ULT3580-TD8"), ""),
        (identifier(0, b""), ""),
        (b"\x02\x00\x00\xff" + PLAIN_SERIAL, "HU1927XYZ0"),  # longer than it is
        (b"\x02\x00\x00", ""),
        (b"", ""),
    ],
)
def test_serials(bytes_: bytes, serial: str) -> None:
    data = report(page(4, 0x80, 48 + len(bytes_), FULL + tag(b"A") + bytes_))
    assert [drive.serial for drive in parse_drives(data)] == [serial]


def test_both_volume_tags() -> None:
    descriptor = FULL + tag(b"FRONT") + tag(b"BACK") + identifier(0, PLAIN_SERIAL)
    (drive,) = parse_drives(report(page(4, 0xC0, len(descriptor), descriptor)))
    assert (drive.barcode, drive.serial) == ("FRONT", "HU1927XYZ0")


def test_no_volume_tag() -> None:
    descriptor = FULL + identifier(0, PLAIN_SERIAL)
    (drive,) = parse_drives(report(page(4, 0, len(descriptor), descriptor)))
    assert (drive.barcode, drive.serial) == ("", "HU1927XYZ0")


def test_pages_of_other_elements_are_passed_over() -> None:
    slots = page(2, 0, 0, b"lies of no interest")
    data = report(slots, page(4, 0, 12, FULL), slots, page(4, 0, 12, EMPTY))
    assert [drive.address for drive in parse_drives(data)] == [0x0100, 0x0101]


@pytest.mark.parametrize("length", [0, 1, 11, 12, 47])
def test_a_descriptor_without_room(length: int) -> None:
    """A length of 0 would keep pyscsi's decoder busy for ever."""
    with pytest.raises(ParseError, match="too short"):
        parse_drives(report(page(4, 0x80, length, FULL + tag(b"A"))))


@pytest.mark.parametrize("data", [WITH_SERIALS, WITHOUT_SERIALS])
def test_an_answer_cut_short(data: bytes) -> None:
    whole = parse_drives(data)
    for end in range(len(data)):
        assert parse_drives(data[:end]) == whole[: len(parse_drives(data[:end]))]
    assert parse_drives(data[:-1]) == whole[:1]


def test_an_answer_that_promises_more() -> None:
    assert parse_drives(WITH_SERIALS[:5] + b"\xff\xff\xff" + WITH_SERIALS[8:]) == (LOADED, BARE)
    longer = bytearray(WITH_SERIALS)
    longer[13:16] = b"\xff\xff\xff"
    assert parse_drives(bytes(longer)) == (LOADED, BARE)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    try:
        parse_drives(data)
    except ParseError:
        return


@given(
    st.lists(
        st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 100), st.binary()),
        max_size=4,
    )
)
def test_any_pages(pages: list[tuple[int, int, int, bytes]]) -> None:
    data = report(*(page(kind, flags, length, body) for kind, flags, length, body in pages))
    try:
        parse_drives(data)
    except ParseError:
        return
