"""The cartridge's chip: attributes read and written."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.errors import ParseError
from hwkm.scsi.attributes import (
    Attribute,
    AttributeFormat,
    AttributeId,
    pack_attributes,
    parse_attribute_list,
    parse_attributes,
    position,
)

# As mhvtl gives them: a barcode filled up with spaces and a NUL, a serial filled up with NULs.
SERIAL = bytes.fromhex("0401 81 0020") + b"HWK006L5_1795490944".ljust(32, b"\0")
BARCODE = bytes.fromhex("0806 01 0020") + b"HWK006L5".ljust(31) + b"\0"
MAKER = bytes.fromhex("0400 81 0008") + b"linuxVTL"
VALUES = bytes.fromhex("00000057") + MAKER + SERIAL + BARCODE
LIST = bytes.fromhex("00000008 0400 0401 0806 1623")

attributes = st.lists(
    st.builds(
        Attribute,
        id=st.integers(0, 0xFFFF),
        value=st.binary(max_size=40),
        format=st.integers(0, 3),
        read_only=st.booleans(),
    ),
    max_size=6,
)


def test_values() -> None:
    maker, serial, barcode = parse_attributes(VALUES)
    assert maker == Attribute(0x0400, b"linuxVTL", AttributeFormat.ASCII, read_only=True)
    assert serial.id == AttributeId.MEDIUM_SERIAL_NUMBER
    assert serial.text == "HWK006L5_1795490944"
    assert serial.read_only
    assert barcode.id == AttributeId.BARCODE
    assert barcode.text == "HWK006L5"
    assert len(barcode.value) == 32
    assert not barcode.read_only


def test_number() -> None:
    data = bytes.fromhex("0000000d 0224 80 0008 0000000000000a07")
    (first,) = parse_attributes(data)
    assert first.number == 0x0A07
    assert position(first.value) == 0x0A07


@pytest.mark.parametrize("none", ["", "ff" * 6, "ff" * 5 + "fe", "ff" * 8, "0000ffffffffffff"])
def test_no_position(none: str) -> None:
    assert position(bytes.fromhex(none)) is None


def test_position_zero_is_one() -> None:
    assert position(bytes(6)) == 0


def test_list() -> None:
    assert parse_attribute_list(LIST) == (0x0400, 0x0401, 0x0806, 0x1623)
    assert parse_attribute_list(bytes(4)) == ()
    assert parse_attribute_list(LIST[:-1]) == (0x0400, 0x0401, 0x0806)


def test_an_attribute_cut_off_is_left_out() -> None:
    assert len(parse_attributes(VALUES[:-1])) == 2
    assert len(parse_attributes(b"\xff\xff\xff\xff" + VALUES[4:])) == 3
    assert len(parse_attributes(bytes.fromhex("00000012") + VALUES[4:])) == 1


@pytest.mark.parametrize("data", [b"", b"\0\0\0"])
def test_no_length(data: bytes) -> None:
    with pytest.raises(ParseError):
        parse_attributes(data)
    with pytest.raises(ParseError):
        parse_attribute_list(data)


def test_pack() -> None:
    packed = pack_attributes([Attribute(0x0803, b"label", AttributeFormat.TEXT)])
    assert packed == bytes.fromhex("0000000a 0803 02 0005") + b"label"
    assert pack_attributes([Attribute(0x0803, b"")]) == bytes.fromhex("00000005 0803 00 0000")


def test_pack_out_of_range() -> None:
    with pytest.raises(ValueError, match="two bytes"):
        pack_attributes([Attribute(0x10000, b"")])
    with pytest.raises(ValueError, match="two bytes"):
        pack_attributes([Attribute(0x0803, bytes(0x10000))])


@given(attributes)
def test_round_trip(written: list[Attribute]) -> None:
    assert parse_attributes(pack_attributes(written)) == tuple(written)


@given(st.binary(max_size=200))
def test_hostile_bytes(data: bytes) -> None:
    for parse in (parse_attributes, parse_attribute_list):
        with suppress(ParseError):
            parse(data)
    found = parse_attributes(len(data).to_bytes(4) + data)
    assert sum(5 + len(one.value) for one in found) <= len(data)
