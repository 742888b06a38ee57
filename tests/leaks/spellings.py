"""How bytes can be written down, and finding them again in any of these ways."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CHUNK = 16
"""A secret is looked for piece by piece, so that half a key is found too."""


def search(data: bytes, secrets: Mapping[str, bytes]) -> set[tuple[str, str]]:
    """Return the names of the secrets that are in ``data``, and how they are spelled there."""
    return {
        (name, spelling)
        for name, secret in secrets.items()
        for spelling, needle in needles(secret)
        if needle in data
    }


@cache
def needles(secret: bytes) -> tuple[tuple[str, bytes], ...]:
    """Return every spelling of every piece of a secret."""
    assert len(secret) >= CHUNK, "too short to tell from chance"
    pieces = [secret[at : at + CHUNK] for at in range(0, len(secret) - CHUNK + 1, CHUNK)]
    found: dict[bytes, str] = {}
    for piece in pieces:
        for name, needle in _spellings(piece):
            found.setdefault(needle, name)  # a text that two spellings share is told by the first
    found[str(int.from_bytes(secret, "big")).encode()] = "number, big-endian"
    found[str(int.from_bytes(secret, "little")).encode()] = "number, little-endian"
    return tuple((name, needle) for needle, name in found.items())


def _spellings(piece: bytes) -> Iterator[tuple[str, bytes]]:
    yield "raw", piece
    yield "UTF-8", piece.decode("latin-1").encode()
    yield "JSON", json.dumps(piece.decode("latin-1"))[1:-1].encode()
    yield "repr", repr(piece)[2:-1].encode()
    yield "octal escapes", "".join(f"\\{byte:03o}" for byte in piece).encode()
    for separator in (", ", ",", " "):
        yield f"list with {separator!r}", separator.join(map(str, piece)).encode()
    for text in (piece.hex(), piece.hex().upper()):
        yield "hex", text.encode()
        pairs = [text[at : at + 2] for at in range(0, len(text), 2)]
        for separator in (":", " ", "-", "\\x", ", 0x", "%"):
            yield f"hex with {separator!r}", separator.join(pairs).encode()
    percent = quote_from_bytes(piece, safe="")
    yield "percent", percent.encode()
    yield from _base64(piece)
    yield from _base32(piece)


def _base64(piece: bytes) -> Iterator[tuple[str, bytes]]:
    for shift in range(3):
        text = _inner(base64.b64encode(bytes(shift) + piece), shift, len(piece), 6)
        yield "base64", text
        yield "base64url", text.translate(bytes.maketrans(b"+/", b"-_"))


def _base32(piece: bytes) -> Iterator[tuple[str, bytes]]:
    for shift in range(5):
        text = _inner(base64.b32encode(bytes(shift) + piece), shift, len(piece), 5)
        yield "base32", text
        yield "base32, small", text.lower()


def _inner(text: bytes, shift: int, length: int, bits: int) -> bytes:
    """Return the characters that depend on the piece alone, wherever in a text it begins."""
    first = (shift * 8 + bits - 1) // bits
    return text[first : (shift + length) * 8 // bits]
