"""Reads what a key manager answers as Bacula 15 does; written from Bacula's behaviour alone.

The rules are those of docs/bacula-protocol.md. Nothing here comes from hwkm's own code, so that
writer and reader can't share a mistake.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

KEY_BYTES = {"AES_128_XTS": 32, "AES_256_XTS": 64, "NULL": 16}
MAX_WRAPPED_BYTES = 2048
MAX_MASTER_ID_BYTES = 80
DROPPED_BYTES = 4096
"""Longer than this, and Bacula takes a field as if it had not been given."""

_LINE_ENDS = re.compile(rb"\r\n|\r|\n")
_NAME = re.compile(rb"[A-Za-z0-9_]+")
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


class RefusedError(Exception):
    """Bacula takes no key out of this answer; the text is what it says."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What Bacula takes out of an answer. An empty field keeps the volume's former value."""

    cipher: str
    key: bytes
    wrapped: bytes
    master_id: bytes


def read_reply(output: bytes) -> Reply:
    """Return what Bacula would take out of ``output``, standard output and error in one.

    :raises RefusedError: if it would take nothing.
    """
    fields = _fields(output)
    if "cipher" not in fields:
        raise RefusedError("cipher is missing")
    cipher = fields["cipher"].decode("utf-8", "replace").upper()
    if cipher not in KEY_BYTES:
        raise RefusedError(f'unknown cipher: "{fields["cipher"]!r}"')
    if "cipher_key" not in fields:
        raise RefusedError("key is missing")
    key = decode(fields["cipher_key"])
    if len(key) != KEY_BYTES[cipher]:
        raise RefusedError(f'Wrong cipher key size for "{cipher}"')
    wrapped = _limited(fields, "enc_cipher_key", MAX_WRAPPED_BYTES)
    return Reply(cipher, key, wrapped, _limited(fields, "master_keyid", MAX_MASTER_ID_BYTES))


def _fields(output: bytes) -> dict[str, bytes]:
    fields: dict[str, bytes] = {}
    for ended in _LINE_ENDS.split(output):
        line = ended.partition(b"\0")[0].lstrip(b" ")
        if not line:
            continue
        name = _NAME.match(line)
        if name is None:
            break  # without a word: the rest is never looked at
        value = _value(line[name.end() :])
        if name[0] == b"error":
            raise RefusedError(f'got error message: "{value.decode("utf-8", "replace")}"')
        fields[name[0].decode()] = value
    return fields


def _value(rest: bytes) -> bytes:
    if rest[:1] not in (b":", b"=", b" ", b"\t"):
        raise RefusedError("line format mismatch")
    rest = rest.lstrip(b" \t")
    if rest[:1] not in (b":", b"="):
        raise RefusedError("wrong separator")
    return rest[1:].lstrip(b" \t")


def _limited(fields: dict[str, bytes], name: str, limit: int) -> bytes:
    value = decode(fields.get(name, b""))
    if limit < len(value) <= DROPPED_BYTES:
        raise RefusedError(f"{name} is too large")
    return value if len(value) <= limit else b""


def decode(text: bytes) -> bytes:
    """Decode base64: blanks don't count, padding may be missing, nothing else is forgiven."""
    text = re.sub(rb"[ \t]", b"", text).rstrip(b"=")
    bits = count = 0
    data = bytearray()
    for character in text:
        place = _BASE64.find(character)
        if place < 0:
            return b""
        bits, count = (bits << 6) | place, count + 6
        if count >= 8:
            count -= 8
            data.append((bits >> count) & 0xFF)
    return bytes(data)
