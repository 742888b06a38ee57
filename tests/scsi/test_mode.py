"""MODE SENSE and READ POSITION."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.errors import ParseError
from hwkm.scsi.mode_pages import (
    KeyManager,
    ModeData,
    encryption_required,
    key_manager_3592,
    key_manager_lto,
)
from hwkm.scsi.read_position import Position

# An HPE LTO-9 drive: medium type 98h, density 60h; the page is captured, the rest of the head is
# laid out around it.
CONFIGURATION = bytes.fromhex("90 0E 00 00 00 00 01 2C 40 00 10 00 00 00 01 90")
BLOCK = bytes.fromhex("60 00000000 000000")
EXTENSION = bytes.fromhex("50 01 001C 02 00 0000 01") + bytes(23)
NO_VCELBRE = bytes.fromhex("50 01 001C 02 00 0000 00") + bytes(23)
APPLICATION_LTO = bytes.fromhex("70 20 0005 00 03 01 01 00")


def mode(*pages: bytes, device: int = 0x10, block: bytes = BLOCK) -> bytes:
    body = block + b"".join(pages)
    return (len(body) + 6).to_bytes(2) + bytes((0x98, device, 0, 0)) + len(block).to_bytes(2) + body


def page_3592(method: int) -> bytes:
    return bytes((0x25, 30)) + bytes(25) + bytes((method,)) + bytes(4)


def test_head() -> None:
    found = ModeData.parse(mode(CONFIGURATION))
    assert found == ModeData(0x98, write_protected=False, density=0x60, pages=CONFIGURATION)
    assert found.page(0x10) == CONFIGURATION
    assert found.page(0x10, 0x01) == b""


def test_write_protected() -> None:
    assert ModeData.parse(mode(CONFIGURATION, device=0x90)).write_protected


def test_no_block_descriptor() -> None:
    found = ModeData.parse(mode(CONFIGURATION, block=b""))
    assert found.density is None
    assert found.page(0x10) == CONFIGURATION


def test_pages_after_each_other() -> None:
    found = ModeData.parse(mode(CONFIGURATION, EXTENSION, APPLICATION_LTO))
    assert found.page(0x10, 0x01) == EXTENSION
    assert found.page(0x30, 0x20) == APPLICATION_LTO
    assert found.page(0x30) == b""


def test_what_the_drive_cuts_off() -> None:
    whole = mode(EXTENSION)
    assert ModeData.parse(whole[:20]).page(0x10, 0x01) == EXTENSION[:4]
    assert encryption_required(ModeData.parse(whole[:20])) is None
    with pytest.raises(ParseError, match="7 bytes"):
        ModeData.parse(whole[:7])


def test_encryption_required() -> None:
    assert encryption_required(ModeData.parse(mode(EXTENSION))) is True
    assert encryption_required(ModeData.parse(mode(NO_VCELBRE))) is False
    assert encryption_required(ModeData.parse(mode(CONFIGURATION))) is None


@pytest.mark.parametrize(
    ("method", "manager"),
    [
        (0x00, KeyManager.NONE),
        (0x10, KeyManager.SYSTEM),
        (0x1F, KeyManager.CONTROLLER),
        (0x50, KeyManager.APPLICATION),
        (0x60, KeyManager.LIBRARY),
        (0x70, KeyManager.INTERNAL),
        (0xFF, KeyManager.CUSTOM),
        (0x51, KeyManager.UNKNOWN),
    ],
)
def test_3592(method: int, manager: KeyManager) -> None:
    data = mode(page_3592(method))
    assert data[43] == method
    assert key_manager_3592(ModeData.parse(data)) is manager


@pytest.mark.parametrize(
    ("method", "manager"),
    [
        (0, KeyManager.NONE),
        (1, KeyManager.LIBRARY),
        (2, KeyManager.SYSTEM),
        (3, KeyManager.APPLICATION),
        (4, KeyManager.CUSTOM),
        (5, KeyManager.UNKNOWN),
    ],
)
def test_lto(method: int, manager: KeyManager) -> None:
    page = APPLICATION_LTO[:5] + bytes((method,)) + APPLICATION_LTO[6:]
    assert key_manager_lto(ModeData.parse(mode(page))) is manager


def test_no_method_page() -> None:
    data = ModeData.parse(mode(CONFIGURATION))
    assert key_manager_lto(data) is KeyManager.UNKNOWN
    assert key_manager_3592(data) is KeyManager.UNKNOWN


@given(st.binary(max_size=100), st.integers(0, 63), st.integers(0, 255))
def test_hostile_mode_data(data: bytes, code: int, subpage: int) -> None:
    with suppress(ParseError):
        found = ModeData.parse(data)
        assert len(found.page(code, subpage)) <= len(found.pages) <= len(data)
        encryption_required(found)
        key_manager_lto(found)
        key_manager_3592(found)


def test_position_at_the_beginning() -> None:
    assert Position.parse(b"\x80" + bytes(19)) == Position(0, bop=True, eop=False, unknown=False)


def test_position_in_the_middle() -> None:
    data = bytes.fromhex("30 01 0000 00012345 00012345 00 000000 00000000")
    assert Position.parse(data) == Position(
        0x12345, bop=False, eop=False, unknown=False, partition=1
    )


@pytest.mark.parametrize("flags", [0x04, 0x02, 0x06])
def test_position_unknown(flags: int) -> None:
    assert Position.parse(bytes((flags,)) + bytes(19)).unknown


def test_position_at_the_end() -> None:
    assert Position.parse(b"\x40" + bytes(19)).eop


@given(st.binary(max_size=40))
def test_hostile_position(data: bytes) -> None:
    if len(data) < 20:
        with pytest.raises(ParseError):
            Position.parse(data)
    else:
        assert Position.parse(data).block == int.from_bytes(data[4:8])
