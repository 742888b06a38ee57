"""Page 0021h, Next Block Encryption Status: what lies before the head (SSC-5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import TYPE_CHECKING

from hwkm.scsi.pages.base import PageIn, bits, flag, member, open_page
from hwkm.scsi.pages.kad import KadFormat, find_kad, parse_kads

if TYPE_CHECKING:
    from hwkm.scsi.pages.kad import Kad, KadType

LEAST_BYTES = 16
"""Length up to the first KAD."""


@unique
class BlockEncryption(IntEnum):
    """ENCRYPTION STATUS.

    CANNOT_TELL: the drive never can, or not with this medium. NOT_NOW: the block is not in the
    buffer, could not be read, or there is none. NOT_A_BLOCK: a filemark. READABLE: the key in the
    drive decrypts it. UNREADABLE: decryption is off, or this is another key's block.
    """

    CANNOT_TELL = 0
    NOT_NOW = 1
    NOT_A_BLOCK = 2
    CLEAR = 3
    UNKNOWN_ALGORITHM = 4
    READABLE = 5
    UNREADABLE = 6


@unique
class BlockCompression(IntEnum):
    """COMPRESSION STATUS."""

    CANNOT_TELL = 0
    NOT_NOW = 1
    NOT_A_BLOCK = 2
    NOT_COMPRESSED = 3
    COMPRESSED = 4


@dataclass(frozen=True, slots=True)
class NextBlockStatus:
    """The page: the next logical object, and the KADs of the key it was encrypted with.

    ``external`` (EMES): written in mode EXTERNAL. ``raw_read_disabled`` (RDMDS): its ciphertext is
    not given out.
    """

    object_number: int
    compression: BlockCompression | int
    encryption: BlockEncryption | int
    algorithm_index: int
    external: bool
    raw_read_disabled: bool
    kad_format: KadFormat | int
    kads: tuple[Kad, ...] = ()
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> NextBlockStatus:
        """Read the page.

        :raises ParseError: if it is another page, or shorter than 16 bytes.
        """
        page, problems = open_page(data, PageIn.NEXT_BLOCK_STATUS, LEAST_BYTES)
        kads, damage = parse_kads(page[LEAST_BYTES:])
        return cls(
            object_number=int.from_bytes(page[4:12]),
            compression=member(BlockCompression, bits(page[12], 7, 4)),
            encryption=member(BlockEncryption, bits(page[12], 3, 0)),
            algorithm_index=page[13],
            external=flag(page[14], 1),
            raw_read_disabled=flag(page[14], 0),
            kad_format=member(KadFormat, page[15]),
            kads=kads,
            problems=problems + damage,
        )

    def kad(self, kind: KadType) -> bytes | None:
        """Return the KAD of type ``kind`` of the block; None if there is none."""
        return find_kad(self.kads, kind)
