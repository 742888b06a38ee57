"""READ POSITION: where the tape stands (SSC-5, short form)."""

from __future__ import annotations

from dataclasses import dataclass

from hwkm.errors import ParseError
from hwkm.scsi.commands import POSITION_BYTES

BEGINNING = 0x80
END = 0x40
UNKNOWN = 0x04
TOO_LARGE = 0x02


@dataclass(frozen=True, slots=True)
class Position:
    """Where the next command starts.

    ``block`` counts logical objects of the partition, filemarks included. It means nothing if
    ``unknown``, which also covers numbers that the short form has no room for.
    """

    block: int
    bop: bool
    eop: bool
    unknown: bool
    partition: int = 0

    @classmethod
    def parse(cls, data: bytes) -> Position:
        """Return what the short form says.

        :raises ParseError: if it is shorter than 20 bytes.
        """
        if len(data) < POSITION_BYTES:
            raise ParseError(f"READ POSITION gave {len(data)} bytes instead of {POSITION_BYTES}")
        flags = data[0]
        return cls(
            block=int.from_bytes(data[4:8]),
            bop=bool(flags & BEGINNING),
            eop=bool(flags & END),
            unknown=bool(flags & (UNKNOWN | TOO_LARGE)),
            partition=data[1],
        )
