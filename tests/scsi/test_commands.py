"""The CDBs, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.keys import SecretBytes
from hwkm.scsi import commands

if TYPE_CHECKING:
    from hwkm.scsi.transport import Command

KEY = bytes(range(0x40, 0x60))

CDBS = [
    (commands.test_unit_ready(), "00 00 00 00 00 00"),
    (commands.request_sense(), "03 00 00 00 FC 00"),
    (commands.inquiry(), "12 00 00 00 FC 00"),
    (commands.inquiry(0x83), "12 01 83 00 FC 00"),
    (commands.inquiry(0x00), "12 01 00 00 FC 00"),
    (commands.security_protocol_in(0x20, 0x10), "A2 20 00 10 00 00 00 00 20 00 00 00"),
    (commands.security_protocol_in(0x20, 0x20), "A2 20 00 20 00 00 00 00 20 00 00 00"),
    (commands.security_protocol_in(0x20, 0x21), "A2 20 00 21 00 00 00 00 20 00 00 00"),
    (commands.security_protocol_in(0x20, 0x31), "A2 20 00 31 00 00 00 00 20 00 00 00"),
    (commands.security_protocol_in(0x20, 0x30, 36), "A2 20 00 30 00 00 00 00 00 24 00 00"),
    (commands.security_protocol_in(0, 0, 512), "A2 00 00 00 00 00 00 00 02 00 00 00"),
    (
        commands.security_protocol_out(0x20, 0x10, SecretBytes(bytes(0x49))),
        "B5 20 00 10 00 00 00 00 00 49 00 00",
    ),
    (
        commands.security_protocol_out(0x20, 0x10, SecretBytes(bytes(0x148))),
        "B5 20 00 10 00 00 00 00 01 48 00 00",
    ),
    (commands.read_attribute(), "8C 00 00 00 00 00 00 00 00 00 00 00 80 00 00 00"),
    (commands.read_attribute(0x401, 1, 2), "8C 01 00 00 00 00 00 02 04 01 00 00 80 00 00 00"),
    (commands.write_attribute(bytes(0x29)), "8D 01 00 00 00 00 00 00 00 00 00 00 00 29 00 00"),
    (commands.log_sense(0x17), "4D 00 57 00 00 00 00 40 00 00"),
    (commands.mode_sense(0x10, 0x01), "5A 00 10 01 00 00 00 04 00 00"),
    (commands.read_position(), "34 00 00 00 00 00 00 00 00 00"),
    (commands.locate(0), "2B 00 00 00 00 00 00 00 00 00"),
    (commands.locate(0x12345678), "2B 00 00 12 34 56 78 00 00 00"),
    (commands.locate(0xFFFFFFFF), "2B 00 00 FF FF FF FF 00 00 00"),
    (commands.locate(0x100000000), "92 00 00 00 00 00 00 01 00 00 00 00 00 00 00 00"),
    (commands.space(commands.SpaceCode.FILEMARKS, 1), "11 01 00 00 01 00"),
    (commands.space(commands.SpaceCode.BLOCKS, -2), "11 00 FF FF FE 00"),
    (commands.space(commands.SpaceCode.END_OF_DATA, 0), "11 03 00 00 00 00"),
    (commands.rewind(), "01 00 00 00 00 00"),
    (commands.load_unload(load=True), "1B 00 00 00 01 00"),
    (commands.load_unload(load=False), "1B 00 00 00 00 00"),
    (commands.read_block(0x8000), "08 00 00 80 00 00"),
    (commands.write_block(bytes(0x10000)), "0A 00 01 00 00 00"),
    (commands.write_filemarks(2), "10 00 00 00 02 00"),
    (commands.write_filemarks(0, immediate=True), "10 01 00 00 00 00"),
]


@pytest.mark.parametrize(("command", "cdb"), CDBS, ids=[cdb for _, cdb in CDBS])
def test_cdb(command: Command, cdb: str) -> None:
    assert command.cdb == bytes.fromhex(cdb)


@pytest.mark.parametrize("command", [command for command, _ in CDBS])
def test_every_operation_code_is_named(command: Command) -> None:
    code = commands.OpCode(command.cdb[0])
    assert command.name
    assert (code == commands.OpCode.SECURITY_PROTOCOL_OUT) == command.is_secret


def test_what_is_transferred() -> None:
    assert commands.security_protocol_in(0x20, 0x10).allocation == 8192
    assert commands.read_block(77).allocation == 77
    assert commands.write_block(b"block").data_out == b"block"
    assert commands.read_position().allocation == 20


def test_a_key_is_not_shown() -> None:
    command = commands.security_protocol_out(0x20, 0x10, SecretBytes(KEY))
    assert command.exposed() == KEY
    assert repr(KEY)[2:-1] not in repr(command)
    assert KEY.hex() not in repr(command)


def test_time_limits() -> None:
    assert commands.security_protocol_in(0x20, 0x10).seconds == 60
    assert commands.test_unit_ready().seconds == 60
    for moving in (commands.rewind(), commands.locate(1), commands.load_unload(load=True)):
        assert moving.seconds == 1200


@pytest.mark.parametrize("block", [-1, 1 << 64])
def test_locate_out_of_range(block: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        commands.locate(block)


@pytest.mark.parametrize("count", [-(1 << 23) - 1, 1 << 23])
def test_space_out_of_range(count: int) -> None:
    with pytest.raises(ValueError, match="24 bits"):
        commands.space(0, count)


@pytest.mark.parametrize("count", [-1, 1 << 24])
def test_filemarks_out_of_range(count: int) -> None:
    with pytest.raises(ValueError, match="24 bits"):
        commands.write_filemarks(count)


def test_blocks_out_of_range() -> None:
    with pytest.raises(ValueError, match="16 MiB"):
        commands.write_block(bytes(1 << 24))
    with pytest.raises(ValueError, match="out of range"):
        commands.read_block(1 << 16)


@given(st.integers(-(1 << 23), (1 << 23) - 1))
def test_space_counts_with_a_sign(count: int) -> None:
    assert int.from_bytes(commands.space(0, count).cdb[2:5], signed=True) == count


@given(st.integers(0, (1 << 64) - 1))
def test_locate_keeps_the_block(block: int) -> None:
    cdb = commands.locate(block).cdb
    field = cdb[3:7] if cdb[0] == commands.OpCode.LOCATE_10 else cdb[4:12]
    assert int.from_bytes(field) == block
