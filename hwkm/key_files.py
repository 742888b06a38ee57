"""Files in which other programs keep the keys of their tapes: read, so that a volume gets its key.

Each holds one AES-256 key, and some the name that the program writes beside every block that is
encrypted with it: the name by which a tape asks for its key.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TYPE_CHECKING

from hwkm.errors import ConfigError, ParseError
from hwkm.keys import Cipher, VolumeKey

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_FILE_BYTES = 4096
MAX_NAME_BYTES = 255
"""More than any drive takes for a key's name; LTO takes 32 bytes (U-KAD) and 12 to 60 (A-KAD)."""

KEY_BYTES = Cipher.AES_256_GCM.key_bytes
BAREOS_SENT_BYTES = 31
"""Bareos copies its passphrase of 32 characters as a string that ends within 32 bytes: the last
character never reaches the drive, a NUL does."""
LTFS_KEY_CHARACTERS = 44
LTFS_ASCII_BYTES, LTFS_BINARY_BYTES = 3, 9
"""A key identifier of LTFS is 12 bytes: three characters, then nine bytes written in hex."""

_HEX = re.compile(rb"[0-9A-Fa-f]+")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{43}=")
"""Thirty-two bytes have no other form in base64, so that what matches also decodes to them."""
_PRINTABLE = re.compile(rb"[\x20-\x7e]+")
_LTFS_NAME = re.compile(rb"[\x20-\x7e]{3}[0-9A-Fa-f]{18}")


@unique
class KeyFileKind(StrEnum):
    """Whose file it is, or how a bare key is written."""

    STENC = "stenc"
    LTFS = "ltfs"
    BAREOS = "bareos"
    RAW = "raw"
    HEX = "hex"
    BASE64 = "base64"


@dataclass(frozen=True, slots=True)
class ImportedKey:
    """A key for AES-256-GCM, and the name that stands beside its blocks; empty if none does.

    stenc writes its description as U-KAD, LTFS its key identifier as A-KAD, Bareos nothing.
    """

    key: VolumeKey
    key_name: bytes
    kind: KeyFileKind


def parse_key_file(data: bytes, kind: KeyFileKind | None = None) -> ImportedKey:
    """Read the one key in ``data``; without ``kind``, what it looks like beyond doubt.

    :raises ParseError: if it is no such file; the text names the line and never repeats it.
    :raises ConfigError: if there is no ``kind``, and the file could be of several or of none.
    """
    if len(data) > MAX_FILE_BYTES:
        raise ParseError(f"a key file has at most {MAX_FILE_BYTES:,} bytes")
    found = kind or detect(data)
    key, name = _READERS[found](data)
    if len(name) > MAX_NAME_BYTES:
        raise ParseError(f"line 2: the key's name is longer than {MAX_NAME_BYTES} bytes")
    return ImportedKey(VolumeKey(Cipher.AES_256_GCM, key), name, found)


def detect(data: bytes) -> KeyFileKind:
    """Return what kind of file ``data`` is.

    Thirty-two printable bytes can be a passphrase of Bareos or a key: they are not guessed at.

    :raises ConfigError: if that can't be told.
    """
    lines = data.split()
    first = lines[0] if lines else b""
    if first.startswith((b"DK=", b"DKi=")):
        return KeyFileKind.LTFS
    if _HEX.fullmatch(first) and _is_key(_padded(first)):
        return KeyFileKind.HEX if len(lines) == 1 else KeyFileKind.STENC
    if len(lines) == 1 and _BASE64.fullmatch(first):
        return KeyFileKind.BASE64
    if len(data) == KEY_BYTES and not _PRINTABLE.fullmatch(data):
        return KeyFileKind.RAW
    names = ", ".join(KeyFileKind)
    raise ConfigError(
        "what kind of key file this is can't be told from its content",
        hint=f"Say it with --format: one of {names}",
    )


def _stenc(data: bytes) -> tuple[bytes, bytes]:
    """Read two lines: the key in hex, and a description that stenc pads with blanks if need be."""
    lines = [line.rstrip() for line in data.split(b"\n")]
    if any(lines[2:]):
        raise ParseError("line 3: a key file of stenc ends after the description in line 2")
    return _hex_key(lines[0]), lines[1] if len(lines) > 1 else b""


def _ltfs(data: bytes) -> tuple[bytes, bytes]:
    """Read a line ``DK=`` with the key in base64, and a line ``DKi=`` with its identifier."""
    numbered = enumerate((line.strip() for line in data.split(b"\n")), start=1)
    lines = [(number, line) for number, line in numbered if line]
    if len(lines) > 2:
        raise ParseError(
            f"line {lines[2][0]}: the file holds more than one key",
            hint="Put the DK line of this volume, and the DKi line behind it, into their own file",
        )
    if len(lines) < 2:
        raise ParseError("a key file of LTFS has a line DK= and then a line DKi=")
    (key_line, key), (name_line, name) = lines
    return _ltfs_key(key_line, key), _ltfs_name(name_line, name)


def _ltfs_key(number: int, line: bytes) -> bytes:
    value = line.removeprefix(b"DK=")
    if value == line or not _BASE64.fullmatch(value):
        raise ParseError(f"line {number}: not DK= and {LTFS_KEY_CHARACTERS} characters of base64")
    return base64.b64decode(value)


def _ltfs_name(number: int, line: bytes) -> bytes:
    value = line.removeprefix(b"DKi=")
    if value == line or not _LTFS_NAME.fullmatch(value):
        raise ParseError(
            f"line {number}: not DKi=, {LTFS_ASCII_BYTES} characters and {LTFS_BINARY_BYTES} bytes "
            "in hex"
        )
    return value[:LTFS_ASCII_BYTES] + bytes.fromhex(value[LTFS_ASCII_BYTES:].decode())


def _bareos(data: bytes) -> tuple[bytes, bytes]:
    """Read a passphrase; what Bareos gives the drive is its first 31 characters and a NUL."""
    text = data.rstrip(b"\r\n")
    if len(text) not in (BAREOS_SENT_BYTES, KEY_BYTES) or not _PRINTABLE.fullmatch(text):
        raise ParseError(
            f"line 1: a passphrase of Bareos has {KEY_BYTES} printable characters",
            hint="One that is wrapped or in base64 must be unwrapped before: bscrypto -k shows it",
        )
    return text[:BAREOS_SENT_BYTES] + b"\0", b""


def _raw(data: bytes) -> tuple[bytes, bytes]:
    if len(data) != KEY_BYTES:
        raise ParseError(f"the file has {len(data):,} bytes, a raw key has {KEY_BYTES}")
    return data, b""


def _hex(data: bytes) -> tuple[bytes, bytes]:
    return _hex_key(b"".join(data.split())), b""


def _base64(data: bytes) -> tuple[bytes, bytes]:
    value = b"".join(data.split())
    if not _BASE64.fullmatch(value):
        raise ParseError(f"line 1: not the base64 of a key of {KEY_BYTES} bytes")
    return base64.b64decode(value), b""


def _hex_key(text: bytes) -> bytes:
    if not _HEX.fullmatch(text) or not _is_key(_padded(text)):
        raise ParseError(f"line 1: not a key of {KEY_BYTES} bytes in hex")
    return bytes.fromhex(_padded(text).decode())


def _padded(digits: bytes) -> bytes:
    # stenc takes an odd number of digits, and then means a zero before the first.
    return b"0" + digits if len(digits) % 2 else digits


def _is_key(digits: bytes) -> bool:
    return len(digits) == 2 * KEY_BYTES


_READERS: dict[KeyFileKind, Callable[[bytes], tuple[bytes, bytes]]] = {
    KeyFileKind.STENC: _stenc,
    KeyFileKind.LTFS: _ltfs,
    KeyFileKind.BAREOS: _bareos,
    KeyFileKind.RAW: _raw,
    KeyFileKind.HEX: _hex,
    KeyFileKind.BASE64: _base64,
}
