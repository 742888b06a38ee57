"""The envelope: one volume key, wrapped for every recipient, bound to its volume.

The format is laid down in docs/envelope-format.md. Pure: no I/O, no token.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from enum import IntEnum, unique
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

import cbor2

from hwkm.errors import EnvelopeError, ParseError
from hwkm.keys import KEY_ID_BYTES, MAX_RECIPIENTS, Cipher

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hwkm.keys import VolumeKey

_Number = TypeVar("_Number", bound=IntEnum)

MAGIC = "hwkm"
VERSION = 1
MAC_BYTES = 32
MAX_ENVELOPE_BYTES = 16384
MAX_LABEL_BYTES = 1024
"""What a Bacula label takes for certain: it can hold less than its own limit of 2,048."""
MAX_RECIPIENT_ID_BYTES = 80
MAX_BLOB_BYTES = 2048
MAX_STANZAS = MAX_RECIPIENTS
MAX_VOLUME_BYTES = 127
MAX_GENERATION = 2**32 - 1
MAX_CREATED = 253402300799
"""The last second of the year 9999, as far as RFC 3339 goes."""

_HIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""Characters that control how others are shown. Fixed for ever, and so not Unicode's categories:
they change, and an older database would refuse names that a newer one let through."""


@unique
class Scheme(IntEnum):
    """How a stanza is wrapped. The numbers are written into envelopes: never reuse one."""

    GCM = 1
    HMAC_KDF = 2
    OAEP = 3
    ESCROW = 4

    @property
    def label(self) -> str:
        """The name people use: ``gcm``, ``hmac-kdf``, ``oaep``, ``escrow``."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def from_label(cls, label: str) -> Scheme:
        """Return the scheme called ``label``.

        :raises ParseError: if there is none.
        """
        for scheme in cls:
            if scheme.label == label:
                return scheme
        raise ParseError(f"there is no wrapping scheme {label!r}")


TOKEN_SCHEMES = (Scheme.GCM, Scheme.HMAC_KDF, Scheme.OAEP)
"""The schemes of master keys in tokens."""


class NoRecipientError(EnvelopeError):
    """No identity at hand is a recipient of this envelope."""


class StanzaError(EnvelopeError):
    """A stanza is for an identity at hand, but does not open: "mine, but broken"."""


class MacError(EnvelopeError):
    """The key opened, but header or stanzas are not those it was sealed with."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a volume key belongs to.

    ``key_id`` is 12 random bytes, ``volume`` 1 to 127 bytes of UTF-8, ``generation`` counts from
    one, ``created`` is in seconds since 1970-01-01 UTC.
    """

    key_id: bytes
    volume: str
    generation: int
    cipher: Cipher
    created: int

    def __post_init__(self) -> None:
        _require(len(self.key_id) == KEY_ID_BYTES, f"the key id is not {KEY_ID_BYTES} bytes long")
        check_volume_name(self.volume)
        _require(0 < self.generation <= MAX_GENERATION, "the generation is out of range")
        _require(0 <= self.created <= MAX_CREATED, "the time of creation is out of range")


@dataclass(frozen=True, slots=True)
class Stanza:
    """One wrapped copy of the volume key: ``recipient_id`` 1 to 80 bytes, ``blob`` 1 to 2,048."""

    scheme: Scheme
    recipient_id: bytes
    blob: bytes

    def __post_init__(self) -> None:
        _require(
            0 < len(self.recipient_id) <= MAX_RECIPIENT_ID_BYTES,
            f"the recipient id is not 1 to {MAX_RECIPIENT_ID_BYTES} bytes long",
        )
        _require(0 < len(self.blob) <= MAX_BLOB_BYTES, "the wrapped key has an impossible length")


@dataclass(frozen=True, slots=True)
class Envelope:
    """Header, stanzas and a MAC over both, keyed from the volume key."""

    header: Header
    stanzas: tuple[Stanza, ...]
    mac: bytes
    _encoded: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _require(0 < len(self.stanzas) <= MAX_STANZAS, f"not 1 to {MAX_STANZAS} stanzas")
        recipients = {(stanza.scheme, stanza.recipient_id) for stanza in self.stanzas}
        _require(len(recipients) == len(self.stanzas), "a recipient stands twice")
        _require(len(self.mac) == MAC_BYTES, f"the MAC is not {MAC_BYTES} bytes long")
        # Kept, for it is needed several times: to read it, to hand it out, to store it.
        encoded = _dumps([*_items(self.header, self.stanzas), self.mac])
        object.__setattr__(self, "_encoded", encoded)  # as the class is frozen
        _require(len(encoded) <= MAX_ENVELOPE_BYTES, "the envelope is too long to be read")

    def encode(self) -> bytes:
        """Return the envelope's only encoding (RFC 8949, section 4.2.1), at most 16,384 bytes."""
        return self._encoded

    @classmethod
    def parse(cls, data: bytes) -> Envelope:
        """Read an envelope out of bytes that may be anything.

        :raises ParseError: and nothing else, if ``data`` is not exactly one envelope in its
            deterministic encoding.
        """
        match _loads(data):
            case [str() as magic, version, list() as header, list() as stanzas, mac]:
                _require(magic == MAGIC, "this is not an hwkm envelope")
                known = _integer(version) == VERSION
                _require(known, f"envelope version {version} is not known here")
                parsed = cls(_header(header), tuple(map(_stanza, stanzas)), _bytes(mac))
            case _:
                raise ParseError("this is not an hwkm envelope")
        encoded = parsed.encode()
        _require(encoded == data[: len(encoded)], "the envelope's encoding is not deterministic")
        _require(len(encoded) == len(data), "bytes follow the envelope")
        return parsed

    def verify(self, key: VolumeKey) -> None:
        """Check that header and stanzas are those that were sealed with ``key``.

        :raises MacError: if they are not.
        """
        if not hmac.compare_digest(_mac(self.header, self.stanzas, key), self.mac):
            raise MacError(
                "the envelope's MAC is wrong: its header or a stanza was changed",
                hint="The volume's label and the keystore have a copy each: try the other one",
            )


def seal(header: Header, stanzas: Iterable[Stanza], key: VolumeKey) -> Envelope:
    """Return the envelope of ``key``, with its MAC."""
    kept = tuple(stanzas)
    return Envelope(header, kept, _mac(header, kept, key))


def fit(envelope: Envelope, key: VolumeKey, limit: int = MAX_LABEL_BYTES) -> Envelope:
    """Return ``envelope`` with as many of its stanzas, in order, as ``limit`` bytes can hold.

    :raises EnvelopeError: if not even one stanza fits.
    """
    kept: list[Stanza] = []
    for stanza in envelope.stanzas:
        if len(seal(envelope.header, [*kept, stanza], key).encode()) <= limit:
            kept.append(stanza)
    if not kept:
        raise EnvelopeError(f"no wrapped key fits into {limit} bytes")
    return seal(envelope.header, kept, key)


def context(header: Header, scheme: Scheme, recipient_id: bytes) -> bytes:
    """Return what a stanza is bound to, each part behind its length as two bytes.

    A wrapped key that was moved to another volume, generation, cipher or recipient does not open.
    """
    parts = (
        b"hwkm/context",
        bytes([VERSION]),
        bytes([scheme]),
        recipient_id,
        header.key_id,
        header.volume.encode(),
        header.generation.to_bytes(4, "big"),
        bytes([header.cipher]),
    )
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def check_volume_name(volume: str) -> None:
    """Check that ``volume`` is 1 to 127 bytes of UTF-8 without characters that are not seen.

    :raises ParseError: if it is not.
    """
    try:
        size = len(volume.encode())
    except UnicodeEncodeError:
        raise ParseError("the volume name is not valid UTF-8") from None
    _require(0 < size <= MAX_VOLUME_BYTES, f"the volume name is not 1 to {MAX_VOLUME_BYTES} bytes")
    _require(not _HIDDEN.search(volume), "the volume name holds a control character")


def _mac(header: Header, stanzas: tuple[Stanza, ...], key: VolumeKey) -> bytes:
    message = _dumps(_items(header, stanzas))
    return hmac.digest(key.mac_key(b"hwkm/envelope-mac/1"), message, sha256)


def _items(header: Header, stanzas: tuple[Stanza, ...]) -> list[Any]:
    named = [header.key_id, header.volume, header.generation, int(header.cipher), header.created]
    return [MAGIC, VERSION, named, [[int(s.scheme), s.recipient_id, s.blob] for s in stanzas]]


def _header(items: list[Any]) -> Header:
    match items:
        case [bytes() as key_id, str() as volume, generation, cipher, created]:
            known = _member(Cipher, cipher, "cipher")
            return Header(key_id, volume, _integer(generation), known, _integer(created))
    raise ParseError("the envelope's header is malformed")


def _stanza(items: object) -> Stanza:
    match items:
        case [scheme, bytes() as recipient_id, bytes() as blob]:
            return Stanza(_member(Scheme, scheme, "wrapping scheme"), recipient_id, blob)
    raise ParseError("a stanza of the envelope is malformed")


def _member(kind: type[_Number], value: object, what: str) -> _Number:
    number = _integer(value)
    try:
        return kind(number)
    except ValueError:
        raise ParseError(f"{what} number {number} is not known here") from None


def _integer(value: object) -> int:
    # Python's bool is an int, CBOR's is not; and Python can't write a very long number as text.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**64:
        raise ParseError("a number in the envelope is malformed")
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise ParseError("the envelope's MAC is malformed")
    return value


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ParseError(otherwise)


def _dumps(value: object) -> bytes:
    return cbor2.dumps(value, canonical=True)


def _loads(data: bytes) -> object:
    _require(0 < len(data) <= MAX_ENVELOPE_BYTES, "an envelope has 1 to 16,384 bytes")
    try:
        value: object = cbor2.loads(data, max_depth=4, allow_indefinite=False)
    except Exception as error:  # the decoder's tags raise what they like
        raise ParseError("this is not an envelope: it is not valid CBOR") from error
    return value
