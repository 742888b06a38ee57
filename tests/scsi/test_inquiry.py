"""INQUIRY data, as real drives gave them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.errors import ParseError
from hwkm.scsi.inquiry import (
    Association,
    CodeSet,
    Designator,
    DesignatorType,
    Inquiry,
    SequentialCapabilities,
    parse_designators,
    text,
    unit_serial,
)

HP_LTO_7 = bytes.fromhex("01 80 06 12 41 01 10 02") + b"HP      Ultrium 7-SCSI  Q387"
HPE_LTO_9 = bytes.fromhex("01 80 06 12 41 01 10 02") + b"HPE     Ultrium 9-SCSI  S2S1" + bytes(34)
SERIAL_PAGE = bytes.fromhex("01 80 00 0A 38 30 33 31 42 44 43 37 44 42")
UNIT_NAME = b"HPE     Ultrium 9-SCSI  8031BDC7DB"
NAMES_PAGE = (
    bytes.fromhex("01 83 00 52  02 01 00 22")
    + UNIT_NAME
    + bytes.fromhex("01 03 00 08 50 01 43 80 31 BD C7 DB  61 94 00 04 00 00 00 01")
    + bytes.fromhex("61 93 00 08 50 01 43 80 31 BD C7 DC  61 A3 00 08 50 01 43 80 31 BD C7 DB")
)


def test_standard_data() -> None:
    assert Inquiry.parse(HP_LTO_7) == Inquiry(1, "HP", "Ultrium 7-SCSI", "Q387")
    drive = Inquiry.parse(HPE_LTO_9)
    assert (drive.vendor, drive.product, drive.revision) == ("HPE", "Ultrium 9-SCSI", "S2S1")
    assert drive.is_tape


def test_a_changer_is_no_tape_drive() -> None:
    assert not Inquiry.parse(b"\x08" + HP_LTO_7[1:]).is_tape
    # Peripheral qualifier 011b: nothing can be connected here, the type stays.
    assert Inquiry.parse(b"\x68" + HP_LTO_7[1:]).device_type == 8


def test_standard_data_cut_off() -> None:
    with pytest.raises(ParseError, match="35 bytes"):
        Inquiry.parse(HP_LTO_7[:35])


def test_serial() -> None:
    assert unit_serial(SERIAL_PAGE) == "8031BDC7DB"
    assert unit_serial(bytes.fromhex("01 80 00 08") + b"  1234  ") == "1234"
    assert unit_serial(bytes.fromhex("01 80 00 00")) == ""


def test_designators() -> None:
    found = parse_designators(NAMES_PAGE)
    assert found[0] == Designator(
        CodeSet.ASCII, DesignatorType.T10_VENDOR_ID, Association.LOGICAL_UNIT, UNIT_NAME
    )
    assert [one.type for one in found] == [1, 3, 4, 3, 3]
    assert [one.association for one in found] == [0, 0, 1, 1, 2]
    assert found[-1].identifier == bytes.fromhex("50014380 31BDC7DB")


def test_designator_cut_off() -> None:
    assert len(parse_designators(NAMES_PAGE[:-1])) == 4
    assert parse_designators(NAMES_PAGE[:20]) == ()
    assert parse_designators(bytes.fromhex("01 83 00 00")) == ()


def test_page_that_announces_too_much() -> None:
    assert len(parse_designators(NAMES_PAGE[:2] + b"\xff\xff" + NAMES_PAGE[4:])) == 5


def test_worm() -> None:
    assert SequentialCapabilities.parse(bytes.fromhex("01 B0 00 02 01 00")).worm
    assert not SequentialCapabilities.parse(bytes.fromhex("01 B0 00 02 02 00")).worm
    with pytest.raises(ParseError):
        SequentialCapabilities.parse(bytes.fromhex("01 B0 00 00"))


def test_another_page() -> None:
    with pytest.raises(ParseError):
        unit_serial(NAMES_PAGE)
    with pytest.raises(ParseError):
        parse_designators(SERIAL_PAGE)
    with pytest.raises(ParseError):
        SequentialCapabilities.parse(SERIAL_PAGE)
    with pytest.raises(ParseError):
        unit_serial(b"")


def test_text_is_printable() -> None:
    assert text(b"HWK006L5" + b" " * 23 + b"\0") == "HWK006L5"
    assert text(b"A\x1b[2J\xff") == "A?[2J?"


@given(st.binary(max_size=120))
def test_hostile_bytes(data: bytes) -> None:
    for parse in (Inquiry.parse, unit_serial, parse_designators, SequentialCapabilities.parse):
        with suppress(ParseError):
            parse(data)


@given(st.binary(max_size=120))
def test_hostile_designators(data: bytes) -> None:
    found = parse_designators(b"\x01\x83" + len(data).to_bytes(2) + data)
    assert sum(4 + len(one.identifier) for one in found) <= len(data)
