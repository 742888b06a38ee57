"""The SCSI commands that hwkm sends: one function each, named as the standards name them.

SPC-5: TEST UNIT READY, REQUEST SENSE, INQUIRY, MODE SENSE(10), LOG SENSE, READ and WRITE ATTRIBUTE,
SECURITY PROTOCOL IN and OUT. SSC-5: the others.
"""

from __future__ import annotations

from enum import IntEnum, unique
from typing import TYPE_CHECKING

from hwkm.scsi.transport import Command

if TYPE_CHECKING:
    from hwkm.keys import SecretBytes

MOVING_SECONDS = 1200.0
"""For commands that may move the whole tape."""

INQUIRY_BYTES = 252
"""Old devices know one byte of ALLOCATION LENGTH only."""

SECURITY_BYTES = 8192
ATTRIBUTE_BYTES = 32768
LOG_BYTES = 16384
MODE_BYTES = 1024
SENSE_BYTES = 252

POSITION_BYTES = 20
"""Length of READ POSITION's short form, which can't be cut."""

MAX_24_BIT = 0xFF_FFFF
"""The longest block, and the largest count, of a six-byte CDB."""

MAX_32_BIT = 0xFFFF_FFFF
CUMULATIVE_VALUES = 0x40
"""PAGE CONTROL of LOG SENSE, 01b: the values counted up to now."""

WRITE_THROUGH = 0x01
"""WTC of WRITE ATTRIBUTE: done when it is in the cartridge's chip."""


@unique
class OpCode(IntEnum):
    """Operation codes (SPC-5, SSC-5)."""

    TEST_UNIT_READY = 0x00
    REWIND = 0x01
    REQUEST_SENSE = 0x03
    READ_6 = 0x08
    WRITE_6 = 0x0A
    WRITE_FILEMARKS_6 = 0x10
    SPACE_6 = 0x11
    INQUIRY = 0x12
    RESERVE_6 = 0x16
    RELEASE_6 = 0x17
    ERASE_6 = 0x19
    LOAD_UNLOAD = 0x1B
    LOCATE_10 = 0x2B
    READ_POSITION = 0x34
    LOG_SENSE = 0x4D
    MODE_SENSE_10 = 0x5A
    PERSISTENT_RESERVE_IN = 0x5E
    PERSISTENT_RESERVE_OUT = 0x5F
    READ_ATTRIBUTE = 0x8C
    WRITE_ATTRIBUTE = 0x8D
    LOCATE_16 = 0x92
    SECURITY_PROTOCOL_IN = 0xA2
    SECURITY_PROTOCOL_OUT = 0xB5


@unique
class SpaceCode(IntEnum):
    """What SPACE(6) counts (SSC-5)."""

    BLOCKS = 0
    FILEMARKS = 1
    SEQUENTIAL_FILEMARKS = 2
    END_OF_DATA = 3


@unique
class AttributeAction(IntEnum):
    """What READ ATTRIBUTE returns (SPC-5): values, or ids only."""

    VALUES = 0x00
    LIST = 0x01
    VOLUME_LIST = 0x02
    PARTITION_LIST = 0x03
    SUPPORTED = 0x05


def test_unit_ready() -> Command:
    """Return TEST UNIT READY: succeeds when a medium is loaded and can be used."""
    return Command("TEST UNIT READY", bytes(6))


def request_sense() -> Command:
    """Return REQUEST SENSE: sense data as data-in, of fixed format."""
    cdb = bytes((OpCode.REQUEST_SENSE, 0, 0, 0, SENSE_BYTES, 0))
    return Command("REQUEST SENSE", cdb, allocation=SENSE_BYTES)


def inquiry(vpd: int | None = None) -> Command:
    """Return INQUIRY for the standard data, or for the vital product data page ``vpd``."""
    name = "INQUIRY" if vpd is None else f"INQUIRY, page {vpd:02X}h"
    head = bytes((OpCode.INQUIRY, vpd is not None, vpd or 0))
    cdb = head + INQUIRY_BYTES.to_bytes(2) + bytes(1)
    return Command(name, cdb, allocation=INQUIRY_BYTES)


def security_protocol_in(protocol: int, page: int, allocation: int = SECURITY_BYTES) -> Command:
    """Return SECURITY PROTOCOL IN for ``page`` of ``protocol`` (20h: tape data encryption)."""
    name = f"SECURITY PROTOCOL IN {protocol:02X}h/{page:04X}h"
    cdb = _security_cdb(OpCode.SECURITY_PROTOCOL_IN, protocol, page, allocation)
    return Command(name, cdb, allocation=allocation)


def security_protocol_out(protocol: int, page: int, data: SecretBytes) -> Command:
    """Return SECURITY PROTOCOL OUT that sends ``data``, page header and all."""
    name = f"SECURITY PROTOCOL OUT {protocol:02X}h/{page:04X}h"
    cdb = _security_cdb(OpCode.SECURITY_PROTOCOL_OUT, protocol, page, len(data))
    return Command(name, cdb, data_out=data)


def _security_cdb(code: OpCode, protocol: int, page: int, length: int) -> bytes:
    # INC_512 stays 0: Quantum's and Oracle's drives know nothing else.
    return bytes((code, protocol)) + page.to_bytes(2) + bytes(2) + length.to_bytes(4) + bytes(2)


def read_attribute(
    first: int = 0, action: int = AttributeAction.VALUES, partition: int = 0
) -> Command:
    """Return READ ATTRIBUTE: what the cartridge's chip holds, from attribute ``first`` on."""
    head = bytes((OpCode.READ_ATTRIBUTE, action, 0, 0, 0, 0, 0, partition))
    cdb = head + first.to_bytes(2) + ATTRIBUTE_BYTES.to_bytes(4) + bytes(2)
    return Command("READ ATTRIBUTE", cdb, allocation=ATTRIBUTE_BYTES)


def write_attribute(data: bytes) -> Command:
    """Return WRITE ATTRIBUTE through to the chip; ``data`` is what ``pack_attributes`` makes."""
    head = bytes((OpCode.WRITE_ATTRIBUTE, WRITE_THROUGH)) + bytes(8)
    cdb = head + len(data).to_bytes(4) + bytes(2)
    return Command("WRITE ATTRIBUTE", cdb, data_out=data)


def log_sense(page: int, subpage: int = 0) -> Command:
    """Return LOG SENSE for the cumulative values of a log page."""
    head = bytes((OpCode.LOG_SENSE, 0, CUMULATIVE_VALUES | page, subpage, 0, 0, 0))
    cdb = head + LOG_BYTES.to_bytes(2) + bytes(1)
    return Command(f"LOG SENSE, page {page:02X}h", cdb, allocation=LOG_BYTES)


def mode_sense(page: int, subpage: int = 0) -> Command:
    """Return MODE SENSE(10) for the current values of a mode page, with block descriptors."""
    head = bytes((OpCode.MODE_SENSE_10, 0, page, subpage, 0, 0, 0))
    cdb = head + MODE_BYTES.to_bytes(2) + bytes(1)
    return Command(f"MODE SENSE, page {page:02X}h[{subpage:02X}h]", cdb, allocation=MODE_BYTES)


def read_position() -> Command:
    """Return READ POSITION, short form: its length is fixed, and the CDB must not give one."""
    cdb = bytes((OpCode.READ_POSITION,)) + bytes(9)
    return Command("READ POSITION", cdb, allocation=POSITION_BYTES)


def locate(block: int) -> Command:
    """Return LOCATE to a logical object of the current partition; 16 bytes only if it must be.

    :raises ValueError: if ``block`` does not fit 64 bits.
    """
    if not 0 <= block < 1 << 64:
        raise ValueError("a logical object number has 64 bits")
    if block <= MAX_32_BIT:
        cdb = bytes((OpCode.LOCATE_10, 0, 0)) + block.to_bytes(4) + bytes(3)
    else:
        cdb = bytes((OpCode.LOCATE_16, 0, 0, 0)) + block.to_bytes(8) + bytes(4)
    return Command("LOCATE", cdb, seconds=MOVING_SECONDS)


def space(code: int, count: int) -> Command:
    """Return SPACE(6) over ``count`` blocks or filemarks, backwards if it is negative.

    :raises ValueError: if ``count`` does not fit 24 bits with a sign.
    """
    if not -(1 << 23) <= count < 1 << 23:
        raise ValueError("SPACE(6) counts in 24 bits")
    cdb = bytes((OpCode.SPACE_6, code)) + count.to_bytes(3, signed=True) + bytes(1)
    return Command("SPACE", cdb, seconds=MOVING_SECONDS)


def rewind() -> Command:
    """Return REWIND, which ends when the tape is at its beginning."""
    return Command("REWIND", bytes((OpCode.REWIND,)) + bytes(5), seconds=MOVING_SECONDS)


def load_unload(load: bool) -> Command:
    """Return LOAD UNLOAD: makes the cartridge in the drive ready, or gives it out."""
    cdb = bytes((OpCode.LOAD_UNLOAD, 0, 0, 0, load, 0))
    return Command("LOAD" if load else "UNLOAD", cdb, seconds=MOVING_SECONDS)


def read_block(length: int) -> Command:
    """Return READ(6) of one block of up to ``length`` bytes.

    A block of another length ends in CHECK CONDITION with ILI, the data there all the same.

    :raises ValueError: if ``length`` is more than a transport takes.
    """
    cdb = bytes((OpCode.READ_6, 0)) + length.to_bytes(3) + bytes(1)
    return Command("READ", cdb, allocation=length, seconds=MOVING_SECONDS)


def write_block(data: bytes) -> Command:
    """Return WRITE(6) of ``data`` as one block.

    :raises ValueError: if it is longer than 16 MiB - 1.
    """
    if len(data) > MAX_24_BIT:
        raise ValueError("WRITE(6) takes blocks of up to 16 MiB - 1")
    cdb = bytes((OpCode.WRITE_6, 0)) + len(data).to_bytes(3) + bytes(1)
    return Command("WRITE", cdb, data_out=data, seconds=MOVING_SECONDS)


def write_filemarks(count: int, immediate: bool = False) -> Command:
    """Return WRITE FILEMARKS(6); ``count`` 0 flushes the drive's buffer.

    :raises ValueError: if ``count`` does not fit 24 bits.
    """
    if not 0 <= count <= MAX_24_BIT:
        raise ValueError("WRITE FILEMARKS(6) counts in 24 bits")
    cdb = bytes((OpCode.WRITE_FILEMARKS_6, immediate)) + count.to_bytes(3) + bytes(1)
    return Command("WRITE FILEMARKS", cdb, seconds=MOVING_SECONDS)
