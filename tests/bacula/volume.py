"""An independent reader of Bacula's disk volumes: what the label says, and what a key opens.

A volume is a row of blocks. Each has a header in clear, big-endian: options, length, block number,
"BB03", session id, session time, checksum. The first block is the label and is never encrypted.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import XTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEADER = struct.Struct(">III4sIIQ")
RECORD_HEADER_BYTES = 12  # file index, stream, length
BLOCK_ENCRYPTED = 4


class Block(NamedTuple):
    """One block: its header's numbers and what follows the header."""

    options: int
    number: int
    session_id: int
    session_time: int
    payload: bytes

    def opened(self, key: bytes) -> bytes:
        """Return the payload in clear, if ``key`` is the right one; otherwise noise."""
        if not self.options & BLOCK_ENCRYPTED:
            return self.payload
        tweak = struct.pack(">IIII", self.number, self.session_id, self.session_time, 0)
        decryptor = Cipher(AES(key), XTS(tweak)).decryptor()
        return decryptor.update(self.payload) + decryptor.finalize()


def stored(volume: Path) -> Iterator[bytes]:
    """Return a volume's blocks in their order, just as they lie there."""
    data, at = volume.read_bytes(), 0
    while at < len(data):
        _, length, _, magic, *_ = HEADER.unpack_from(data, at)
        assert magic == b"BB03", f"no block at {at} of {volume}"
        yield data[at : at + length]
        at += length


def blocks(volume: Path) -> Iterator[Block]:
    """Return a volume's blocks in their order."""
    for block in stored(volume):
        options, _, number, _, session_id, when, _ = HEADER.unpack_from(block)
        yield Block(options, number, session_id, when, block[HEADER.size :])


def opened(volume: Path, key: bytes) -> bytes:
    """Return all that ``key`` lets one read of a volume."""
    return b"".join(block.opened(key) for block in blocks(volume))


@dataclass(frozen=True, slots=True)
class Label:
    """What the key manager put into a volume's label, and where it stands."""

    volume: str
    host: str
    wrapped_key: bytes
    master_id: bytes


def label(volume: Path) -> Label:
    """Read a volume's label."""
    return Fields(next(blocks(volume)).payload[RECORD_HEADER_BYTES:]).label()


class Fields:
    """Takes the label's fields off a row of bytes, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._rest = data

    def label(self) -> Label:
        """Take a whole label."""
        self.text()  # what kind of label
        self.skip(4 + 4 * 8)  # its version, four times
        volume, _previous, _pool, _type, _media, host = (self.text() for _ in range(6))
        for _ in range(4):  # program, version, date, aligned volume
            self.text()
        self.skip(8 + 3 * 4)
        return Label(volume, host, self.sized(), self.sized())

    def skip(self, count: int) -> None:
        """Take so many bytes and forget them."""
        self._rest = self._rest[count:]

    def text(self) -> str:
        """Take a text that ends with a zero byte."""
        text, _, self._rest = self._rest.partition(b"\0")
        return text.decode()

    def sized(self) -> bytes:
        """Take bytes behind their number."""
        size = int.from_bytes(self._rest[:4], "big")
        found, self._rest = self._rest[4 : 4 + size], self._rest[4 + size :]
        assert len(found) == size, "the label ends early"
        return found
