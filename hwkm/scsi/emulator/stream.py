"""Files on an emulated tape, as a tape driver of an operating system writes and reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.scsi.commands import read_block, rewind, write_block, write_filemarks
from hwkm.scsi.transport import MAX_ALLOCATION, CheckConditionError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from hwkm.scsi.transport import Command, Transport

ATTENTIONS = 8
"""How many unit attentions in a row are passed over, as an operating system does."""

BLANK_CHECK = 0x08


def write_file(transport: Transport, data: BinaryIO, block_bytes: int) -> int:
    """Write all of ``data`` in blocks, then a filemark; return the number of blocks.

    :raises DeviceError: if the drive refuses a block.
    """
    count = 0
    while block := data.read(block_bytes):
        patient(transport, write_block(block))
        count += 1
    patient(transport, write_filemarks(1))
    return count


def read_file(transport: Transport) -> Iterator[bytes]:
    """Yield the blocks up to the next filemark, which is passed, or up to the end of data.

    :raises DeviceError: if the drive refuses a block.
    """
    while True:
        try:
            yield patient(transport, read_block(MAX_ALLOCATION))
        except CheckConditionError as error:
            sense = error.sense
            if sense.filemark or sense.key == BLANK_CHECK:
                return
            if not sense.ili:
                raise
            yield error.data


def to_the_beginning(transport: Transport) -> None:
    """Rewind the tape.

    :raises DeviceError: if no cartridge is ready.
    """
    patient(transport, rewind())


def patient(transport: Transport, command: Command) -> bytes:
    """Run ``command``, again after each unit attention.

    :raises DeviceError: as the transport does.
    """
    for _ in range(ATTENTIONS):
        try:
            return transport.execute(command)
        except CheckConditionError as error:
            if not error.sense.is_unit_attention:
                raise
    return transport.execute(command)
