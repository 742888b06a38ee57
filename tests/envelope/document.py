"""The parts of docs/envelope-format.md that are measured: the size table and the hexdump."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from hwkm.envelope import MAX_LABEL_BYTES, Envelope, Header, Scheme, Stanza, fit, seal
from hwkm.keys import Cipher, VolumeKey
from hwkm.recipients.token import TokenRecipient, unrecorded_master

from . import DOCUMENT, wire
from .cases import CREATED, MASTERS
from .generate_vectors import CASES

if TYPE_CHECKING:
    from .tokens import VectorTokens

SHOWN_CASE = "one-aes-aes-256-gcm"
SCHEMES = {
    "aes": "`gcm`",
    "hmac": "`hmac-kdf`",
    "rsa-2048": "`oaep`, 2048",
    "rsa-3072": "`oaep`, 3072",
}
BYTES_PER_LINE = 16
NOTE_COLUMN = 48


def section(name: str) -> str:
    """Return what the document has between the marks of a measured part."""
    return (
        DOCUMENT.read_text("utf-8").partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0]
    )


# sizes


def size_table(tokens: VectorTokens) -> str:
    """Return the table, out of stanzas that a real token wrapped."""
    lines = ["| scheme | cipher | one | two | three recipients |", "|---|---|---:|---:|---:|"]
    rows: dict[tuple[str, ...], list[str]] = {}
    for master in SCHEMES:
        for cipher in Cipher:
            rows.setdefault((SCHEMES[master], *_sizes(tokens, master, cipher)), []).append(
                cipher.name
            )
    lines += [
        f"| {cells[0]} | {', '.join(names)} | {' | '.join(cells[1:])} |"
        for cells, names in rows.items()
    ]
    return "\n".join(lines) + "\n"


def _sizes(tokens: VectorTokens, master: str, cipher: Cipher) -> list[str]:
    key = VolumeKey(cipher, wire.draw("sizes", cipher.key_bytes))
    header = Header(bytes(12), "Vol-00042", 1, cipher, CREATED)
    session = tokens.session([master])
    known = MASTERS[master]
    named = unrecorded_master(session, Scheme(known.scheme), known.master_id)
    stanza = TokenRecipient(named).wrap(header, key)
    return [_size(seal(header, _copies(stanza, count), key), key) for count in (1, 2, 3)]


def _copies(stanza: Stanza, count: int) -> list[Stanza]:
    return [replace(stanza, recipient_id=number.to_bytes(16, "big")) for number in range(count)]


def _size(envelope: Envelope, key: VolumeKey) -> str:
    size = f"{len(envelope.encode()):,}"
    label = fit(envelope, key, MAX_LABEL_BYTES)
    if label == envelope:
        return size
    return f"**{size}**; label: {len(label.stanzas)} stanzas, {len(label.encode()):,}"


def longest_name(master_blob: int, count: int) -> int:
    """Return how long a volume's name may be for ``count`` stanzas to fit into a label."""
    key = VolumeKey(Cipher.AES_256_XTS, bytes(range(64)))
    stanza = Stanza(Scheme.OAEP, bytes(16), bytes(master_blob))
    for length in range(127, 0, -1):
        header = Header(bytes(12), "V" * length, 1, Cipher.AES_256_XTS, CREATED)
        if len(seal(header, _copies(stanza, count), key).encode()) <= MAX_LABEL_BYTES:
            return length
    return 0


# hexdump


def hexdump() -> str:
    """Return the envelope of one vector, item by item, each with what it means."""
    data = base64.b64decode(json.loads((CASES / f"{SHOWN_CASE}.json").read_text())["envelope"])
    envelope = Envelope.parse(data)
    items = [*_start(envelope.header), *_stanzas(envelope), (1, b"\x58\x20", "MAC")]
    items += [(2, envelope.mac, "")]
    assert b"".join(item for _, item, _ in items) == data
    lines = [line for depth, item, note in items for line in _lines(depth, item, note)]
    return "```\n" + "\n".join(lines) + "\n```\n"


def _start(header: Header) -> list[tuple[int, bytes, str]]:
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(header.created))
    return [
        (0, b"\x85", "array of 5"),
        (1, wire.text("hwkm"), '"hwkm"'),
        (1, b"\x01", "version 1"),
        (1, b"\x85", "header: array of 5"),
        (2, wire.bstr(header.key_id), "key id"),
        (2, wire.text(header.volume), f'volume, "{header.volume}"'),
        (2, wire.uint(header.generation), f"generation {header.generation}"),
        (2, wire.uint(header.cipher), f"cipher {header.cipher}, {header.cipher.name}"),
        (2, wire.uint(header.created), f"created {made}"),
    ]


def _stanzas(envelope: Envelope) -> list[tuple[int, bytes, str]]:
    (stanza,) = envelope.stanzas
    blob = stanza.blob
    return [
        (1, b"\x81", "stanzas: array of 1"),
        (2, b"\x83", "stanza: array of 3"),
        (3, wire.uint(stanza.scheme), f"scheme {stanza.scheme}, {stanza.scheme.label}"),
        (3, wire.bstr(stanza.recipient_id)[:1], "recipient id"),
        (4, stanza.recipient_id, ""),
        (3, wire.head(wire.BYTES, len(blob)), f"blob, {len(blob)} bytes"),
        (4, blob[:12], "nonce"),
        (4, blob[12:-16], "wrapped key"),
        (4, blob[-16:], "tag"),
    ]


def _lines(depth: int, item: bytes, note: str) -> list[str]:
    pieces = [item[at : at + BYTES_PER_LINE] for at in range(0, len(item), BYTES_PER_LINE)]
    notes = [note, *[""] * (len(pieces) - 1)]
    return [
        f"{'  ' * depth}{piece.hex():{NOTE_COLUMN - 2 * depth}}{words}".rstrip()
        for piece, words in zip(pieces, notes, strict=True)
    ]
