"""Bytes that are no envelope. But for the one rule that each breaks they are right, MAC and all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import wire
from .cases import CREATED, MALFORMED, Case, foreign, volume, wrap
from .cases_success import MAX_CREATED, longest
from .wire import ARRAY, BYTES, MAP, NEGATIVE, TEXT, UNSIGNED, array, bstr, head, text, uint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Named = tuple[str, str, bytes]

ABOUT = volume("malformed")
OURS = wrap(ABOUT, "malformed", "aes")[0]
STANZA = OURS.encode()
GOOD = wire.seal(ABOUT, [OURS])

FALSE, TRUE, NULL, UNDEFINED, BREAK = b"\xf4", b"\xf5", b"\xf6", b"\xf7", b"\xff"
ONE_AS_HALF = bytes.fromhex("f93c00")
NAN = bytes.fromhex("f97e00")


def cases() -> Iterator[Case]:
    groups: tuple[tuple[str, Iterable[Named]], ...] = (
        ("length", _lengths()),
        ("outer", _outer()),
        ("version", _versions()),
        ("header", _headers()),
        ("volume", _volume_names()),
        ("stanza", _stanzas()),
        ("mac", _macs()),
        ("encoding", _encodings()),
        ("hostile", _hostile()),
    )
    for group, members in groups:
        for name, comment, data in members:
            yield Case(f"malformed-{group}-{name}", comment, MALFORMED, ("aes",), data)


def _with(**parts: Any) -> bytes:
    """Return an envelope with some of its parts exchanged for others."""
    encoded: dict[str, Any] = {"header": ABOUT.encode(), "copies": array(STANZA), **parts}
    return wire.assemble(ABOUT.key, **encoded)


def _header(**items: bytes) -> bytes:
    parts = {
        "key_id": bstr(ABOUT.key_id),
        "volume": text(ABOUT.name),
        "generation": uint(1),
        "cipher": uint(ABOUT.cipher),
        "created": uint(CREATED),
    }
    return _with(header=array(*(parts | items).values()))


def _stanza(**items: bytes) -> bytes:
    parts = {
        "scheme": uint(OURS.scheme),
        "recipient": bstr(OURS.recipient_id),
        "blob": bstr(OURS.blob),
    }
    return _with(copies=array(array(*(parts | items).values())))


def _lengths() -> Iterator[Named]:
    yield "0", "Nothing at all.", b""
    for kept in (1, 6, 7, 8, 20, 45, 70, len(GOOD) - 33, len(GOOD) - 1):
        yield f"truncated-{kept}", f"The first {kept} bytes of an envelope.", GOOD[:kept]
    yield "one-more", "A zero byte follows the envelope.", GOOD + b"\0"
    yield "newline", "A newline follows the envelope.", GOOD + b"\n"
    yield "twice", "Another envelope follows the envelope.", GOOD * 2
    yield "in-front", "A zero byte comes before the envelope.", b"\0" + GOOD
    about = volume("longest")
    too_long = wire.seal(about, longest(about, 16385))
    yield "16385", "Right in all but its length of 16,385 bytes.", too_long


def _outer() -> Iterator[Named]:
    items = GOOD[1:]
    yield "four-items", "The MAC is missing.", head(ARRAY, 4) + items[:-34]
    yield "six-items", "A sixth item follows the MAC.", head(ARRAY, 6) + items + uint(0)
    yield "map", "A map instead of an array.", head(MAP, 1) + uint(1) + GOOD
    yield "wrapped", "An array around the envelope.", array(GOOD)
    yield "bytes", "The envelope inside a byte string.", bstr(GOOD)
    yield "number", "Nothing but a number.", uint(1)
    yield "text", "Nothing but text.", text("hwkm")
    yield "magic-upper", "The magic word is in capitals.", _with(magic=text("HWKM"))
    yield "magic-empty", "The magic word is empty.", _with(magic=text(""))
    yield "magic-bytes", "The magic word is a byte string.", _with(magic=bstr(b"hwkm"))
    yield "magic-missing", "The magic word is missing.", head(ARRAY, 4) + items[5:]


def _versions() -> Iterator[Named]:
    for name, comment, version in (
        ("0", "Version 0.", uint(0)),
        ("2", "Version 2.", uint(2)),
        ("largest", "Version 18446744073709551615.", uint(2**64 - 1)),
        ("negative", "Version -1.", head(NEGATIVE, 0)),
        ("text", "The version is text.", text("1")),
        ("float", "The version is a floating-point number.", ONE_AS_HALF),
        ("true", "The version is true.", TRUE),
        ("null", "The version is null.", NULL),
        ("bignum", "The version is 1 as a bignum.", b"\xc2\x41\x01"),
        ("long-bignum", "The version has 4,800 digits.", b"\xc2" + bstr(b"\xff" * 2000)),
    ):
        yield name, comment, _with(version=version)


def _headers() -> Iterator[Named]:
    items = ABOUT.encode()[1:]
    for name, comment, header in (
        ("4-items", "The time of creation is missing.", head(ARRAY, 4) + items[:-5]),
        ("6-items", "A sixth item.", head(ARRAY, 6) + items + uint(0)),
        ("empty", "The header is empty.", array()),
        ("map", "The header is a map.", head(MAP, 0)),
        ("null", "The header is null.", NULL),
    ):
        yield name, comment, _with(header=header)
    for length in (0, 11, 13):
        comment = f"The key id has {length} bytes."
        yield f"key-id-{length}", comment, _header(key_id=bstr(bytes(length)))
    yield "key-id-text", "The key id is text.", _header(key_id=text("k" * 12))
    wrong_numbers = (
        ("negative", "-1", head(NEGATIVE, 0)),
        ("text", "text", text("1")),
        ("bytes", "a byte string", bstr(b"\1")),
        ("float", "the floating-point number 1.0", ONE_AS_HALF),
        ("nan", "not a number", NAN),
        ("true", "true", TRUE),
        ("null", "null", NULL),
        ("undefined", "undefined", UNDEFINED),
        ("array", "an array", array(uint(1))),
        ("bignum", "1 as a bignum", b"\xc2\x41\x01"),
        ("long-bignum", "a number of 4,800 digits", b"\xc2" + bstr(b"\xff" * 2000)),
    )
    for field in ("generation", "cipher", "created"):
        for name, what, item in wrong_numbers:
            yield f"{field}-{name}", f"The {field} field is {what}.", _header(**{field: item})
    for field, number in (
        ("generation", 0),
        ("generation", 2**32),
        ("cipher", 0),
        ("cipher", 4),
        ("cipher", 2**64 - 1),
        ("created", MAX_CREATED + 1),
        ("created", 2**64 - 1),
    ):
        comment = f"The {field} field is {number}, which is out of range."
        yield f"{field}-{number}", comment, _header(**{field: uint(number)})
    tagged = head(wire.TAG, 1) + uint(CREATED)
    yield "created-tag-1", "The time of creation is tagged as a time.", _header(created=tagged)
    tagged = head(wire.TAG, 0) + text("2026-01-01T00:00:00Z")
    yield "created-tag-0", "The time of creation is a date in text.", _header(created=tagged)


def _volume_names() -> Iterator[Named]:
    for name, comment, data in (
        ("empty", "The volume name is empty.", b""),
        ("128-bytes", "The volume name has 128 bytes.", b"V" * 128),
        ("128-bytes-utf-8", "64 characters, and 128 bytes.", "\u00e9".encode() * 64),
        ("not-utf-8", "Byte FFh is not UTF-8.", b"Vol\xff"),
        ("cut-utf-8", "The last character is cut off.", b"Vol\xc3"),
        ("overlong-utf-8", "NUL in two bytes is not UTF-8.", b"Vol\xc0\x80"),
        ("surrogate", "A surrogate in UTF-8.", b"Vol\xed\xa0\x80"),
        ("above-unicode", "Above U+10FFFF.", b"Vol\xf4\x90\x80\x80"),
    ):
        yield name, comment, _header(volume=head(TEXT, len(data)) + data)
    yield "bytes", "The volume name is a byte string.", _header(volume=bstr(b"Vol-00042"))
    yield "number", "The volume name is a number.", _header(volume=uint(42))
    edges = "00 0a 1b 1f 7f 80 85 9f ad 61c 180e 200b 200f 2028 202e 2060 206f feff fff9 fffb"
    for code in [*edges.split(), "e0000", "e0fff"]:
        comment = f"The volume name holds U+{code.upper():0>4}, which is not seen."
        yield f"u-{code}", comment, _header(volume=text(f"Vol{chr(int(code, 16))}1"))


def _stanzas() -> Iterator[Named]:
    second = wire.Copy(OURS.scheme, OURS.recipient_id, wire.draw("second", 92)).encode()
    many = [foreign(f"17/{number}").encode() for number in range(16)]
    for name, comment, copies in (
        ("none", "There are no stanzas.", array()),
        ("17", "There are 17 stanzas.", array(*many, STANZA)),
        ("twice", "The same stanza twice.", array(STANZA, STANZA)),
        ("same-recipient", "Two stanzas for one recipient.", array(STANZA, second)),
        ("unnested", "The stanza's items are not in an array.", STANZA),
        ("map", "The stanzas are a map.", head(MAP, 1) + uint(1) + STANZA),
        ("null", "The stanzas are null.", NULL),
        ("is-bytes", "A stanza is a byte string.", array(bstr(STANZA))),
        ("2-items", "A stanza lacks its blob.", array(array(uint(1), bstr(b"id")))),
        ("4-items", "A stanza has four items.", array(head(ARRAY, 4) + STANZA[1:] + uint(0))),
        ("empty", "A stanza is empty.", array(array())),
        ("second-empty", "The second stanza is empty.", array(STANZA, array())),
    ):
        yield name, comment, _with(copies=copies)
    for name, comment, items in (
        ("scheme-0", "There is no scheme 0.", {"scheme": uint(0)}),
        ("scheme-5", "There is no scheme 5.", {"scheme": uint(5)}),
        ("scheme-text", "The scheme is text.", {"scheme": text("gcm")}),
        ("scheme-true", "The scheme is true.", {"scheme": TRUE}),
        ("scheme-float", "The scheme is 1.0.", {"scheme": ONE_AS_HALF}),
        ("scheme-bignum", "A scheme of 4,800 digits.", {"scheme": b"\xc2" + bstr(b"\xff" * 2000)}),
        ("id-0", "The recipient id is empty.", {"recipient": bstr(b"")}),
        ("id-81", "The recipient id has 81 bytes.", {"recipient": bstr(b"i" * 81)}),
        ("id-text", "The recipient id is text.", {"recipient": text("recipient")}),
        ("blob-0", "The blob is empty.", {"blob": bstr(b"")}),
        ("blob-2049", "The blob has 2,049 bytes.", {"blob": bstr(b"b" * 2049)}),
        ("blob-text", "The blob is text.", {"blob": text("b" * 92)}),
        ("blob-null", "The blob is null.", {"blob": NULL}),
    ):
        yield name, comment, _stanza(**items)


def _macs() -> Iterator[Named]:
    for length in (0, 31, 33, 64):
        yield f"{length}", f"The MAC has {length} bytes.", _with(mac=bstr(bytes(length)))
    yield "text", "The MAC is text.", _with(mac=text("m" * 32))
    yield "null", "The MAC is null.", _with(mac=NULL)
    yield "number", "The MAC is a number.", _with(mac=uint(0))


def _encodings() -> Iterator[Named]:
    key_id, mac = ABOUT.key_id, GOOD[-32:]
    short = "is not encoded in as few bytes as possible"
    yield "outer", f"The outer array's length {short}.", head(ARRAY, 5, 1) + GOOD[1:]
    for width in (1, 2, 4, 8):
        wide = head(UNSIGNED, 1, width)
        yield f"version-{width}", f"The version {short}.", _with(version=wide)
        yield f"generation-{width}", f"The generation {short}.", _header(generation=wide)
    wide = head(UNSIGNED, CREATED, 8)
    yield "created-8", f"The time of creation {short}.", _header(created=wide)
    yield "key-id", f"The key id's length {short}.", _header(key_id=head(BYTES, 12, 1) + key_id)
    wide = head(TEXT, 9, 2) + ABOUT.name.encode()
    yield "volume", f"The volume name's length {short}.", _header(volume=wide)
    yield "blob", f"The blob's length {short}.", _stanza(blob=head(BYTES, 92, 2) + OURS.blob)
    yield "mac", f"The MAC's length {short}.", GOOD[:-34] + head(BYTES, 32, 4) + mac
    yield "stanzas", f"The number of stanzas {short}.", _with(copies=head(ARRAY, 1, 1) + STANZA)
    yield from _indefinite()
    yield from _tags()


def _indefinite() -> Iterator[Named]:
    header, key_id = ABOUT.encode(), ABOUT.key_id
    for name, comment, data in (
        ("outer", "The outer array", b"\x9f" + GOOD[1:] + BREAK),
        ("header", "The header", _with(header=b"\x9f" + header[1:] + BREAK)),
        ("stanzas", "The array of stanzas", _with(copies=b"\x9f" + STANZA + BREAK)),
        ("stanza", "A stanza", _with(copies=array(b"\x9f" + STANZA[1:] + BREAK))),
        ("key-id", "The key id", _header(key_id=b"\x5f" + bstr(key_id) + BREAK)),
        ("volume", "The volume name", _header(volume=b"\x7f" + text("Vol-00042") + BREAK)),
        ("blob", "The blob", _stanza(blob=b"\x5f" + bstr(OURS.blob) + BREAK)),
    ):
        yield f"indefinite-{name}", f"{comment} is of indefinite length.", data


def _tags() -> Iterator[Named]:
    embedded = head(wire.TAG, 24) + bstr(GOOD)
    for name, comment, data in (
        ("55799", "Tagged as CBOR.", head(wire.TAG, 55799) + GOOD),
        ("24", "Tagged as CBOR inside a byte string.", embedded),
        ("28", "The stanzas are marked as shared.", _with(copies=b"\xd8\x1c" + array(STANZA))),
        ("29", "The stanzas refer to themselves.", _with(copies=b"\xd8\x1c\x81\xd8\x1d\x00")),
        ("258", "The stanzas are a set.", _with(copies=b"\xd9\x01\x02" + array(uint(1)))),
        ("35", "The volume name is a regular expression.", _header(volume=b"\xd8\x23" + text("("))),
        ("37", "The key id is a UUID.", _header(key_id=b"\xd8\x25" + bstr(bytes(16)))),
        ("unknown", "The header has a tag that nobody knows.", _with(
            header=head(wire.TAG, 2**64 - 1) + ABOUT.encode())),
    ):  # fmt: skip
        yield f"tag-{name}", comment, data


def _hostile() -> Iterator[Named]:
    start = head(ARRAY, 5) + text("hwkm") + uint(1)
    yield from (
        ("array-length", "An array says it has 2^64-1 items.", start + head(ARRAY, 2**64 - 1)),
        ("bytes-length", "A byte string says it has 2^63 bytes.", start + head(BYTES, 2**63)),
        ("text-length", "A text says it has 2^32 bytes.", start + head(TEXT, 2**32)),
        ("nested", "10,000 arrays inside each other.", b"\x81" * 10000 + uint(0)),
        ("nested-tags", "10,000 tags inside each other.", b"\xc1" * 10000 + uint(0)),
        ("reserved-28", "A head with the reserved value 28.", start + b"\x9c"),
        ("reserved-31", "A number of indefinite length.", start + b"\x1f"),
        ("break", "A break where there is nothing to end.", start + BREAK),
        ("simple", "A simple value in two bytes.", start + b"\xf8\x20"),
        ("zeros", "1,000 zero bytes.", bytes(1000)),
        ("json", "JSON.", b'["hwkm",1,[],[],""]'),
        ("noise", "1,000 bytes without a meaning.", wire.draw("noise", 1000)),
    )
