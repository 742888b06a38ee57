"""Envelopes put together by hand after docs/envelope-format.md, for the vectors' generator.

Nothing here comes from hwkm, so that what it makes checks hwkm instead of mirroring it. Nothing is
random either: what would be is drawn from a name.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha1, sha256
from itertools import count
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from . import VECTORS

if TYPE_CHECKING:
    from collections.abc import Sequence

UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE = range(8)
GCM, HMAC_KDF, OAEP, ESCROW = 1, 2, 3, 4
CIPHERS = {"AES_128_XTS": 1, "AES_256_XTS": 2, "AES_256_GCM": 3}
KEY_BYTES = {1: 32, 2: 64, 3: 32}
SCHEMES = {"gcm": GCM, "hmac-kdf": HMAC_KDF, "oaep": OAEP}


def draw(name: str, length: int) -> bytes:
    """Return ``length`` bytes that depend on ``name`` alone."""
    blocks = (sha256(f"hwkm vectors/{name}/{number}".encode()).digest() for number in count())
    drawn = b""
    while len(drawn) < length:
        drawn += next(blocks)
    return drawn[:length]


# CBOR, RFC 8949


def head(major: int, number: int, width: int | None = None) -> bytes:
    """Return the head of an item; ``width`` bytes for the number make it longer than need be."""
    if width is None:
        width = next(w for w, end in ((0, 24), (1, 2**8), (2, 2**16), (4, 2**32), (8, 2**64))
                     if number < end)  # fmt: skip
    if width == 0:
        return bytes([major << 5 | number])
    return bytes([major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[width]]) + number.to_bytes(width, "big")


def uint(number: int) -> bytes:
    return head(UNSIGNED, number)


def bstr(data: bytes) -> bytes:
    return head(BYTES, len(data)) + data


def text(characters: str) -> bytes:
    data = characters.encode()
    return head(TEXT, len(data)) + data


def array(*items: bytes) -> bytes:
    return head(ARRAY, len(items)) + b"".join(items)


# The envelope


@dataclass(frozen=True, slots=True)
class Volume:
    """An envelope's header, and the key it is about."""

    key: bytes
    key_id: bytes
    name: str
    generation: int
    cipher: int
    created: int

    def but(self, **changes: Any) -> Volume:
        return replace(self, **changes)

    def encode(self) -> bytes:
        numbers = [uint(self.generation), uint(self.cipher), uint(self.created)]
        return array(bstr(self.key_id), text(self.name), *numbers)


@dataclass(frozen=True, slots=True)
class Master:
    """A master key whose value is known. ``material`` is a secret key, or the PEM of an RSA key."""

    name: str
    scheme: int
    master_id: bytes
    material: bytes

    def rsa(self) -> RSAPrivateKey:
        return _load_rsa(self.material)


@dataclass(frozen=True, slots=True)
class Copy:
    """A stanza: one wrapped copy of a volume key."""

    scheme: int
    recipient_id: bytes
    blob: bytes

    def encode(self) -> bytes:
        return array(uint(self.scheme), bstr(self.recipient_id), bstr(self.blob))


def masters() -> dict[str, Master]:
    """Return the master keys in keys.json, by name."""
    document = json.loads((VECTORS / "keys.json").read_text())
    return {name: _master(name, entry) for name, entry in document["masters"].items()}


def context(volume: Volume, scheme: int, recipient_id: bytes, version: int = 1) -> bytes:
    parts = [b"hwkm/context", bytes([version]), bytes([scheme]), recipient_id, volume.key_id]
    parts += [volume.name.encode(), volume.generation.to_bytes(4, "big"), bytes([volume.cipher])]
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def mac_key(key: bytes) -> bytes:
    """HKDF-SHA256 by RFC 5869, sections 2.2 and 2.3: no salt, one block."""
    extracted = hmac.digest(bytes(32), key, "sha256")
    return hmac.digest(extracted, b"hwkm/envelope-mac/1" + b"\x01", "sha256")


def assemble(
    key: bytes,
    *,
    magic: bytes = text("hwkm"),
    version: bytes = uint(1),
    header: bytes,
    copies: bytes,
    mac: bytes | None = None,
) -> bytes:
    """Return an envelope out of parts that are already encoded; the MAC is right if not given."""
    body = magic + version + header + copies
    if mac is None:
        mac = bstr(hmac.digest(mac_key(key), head(ARRAY, 4) + body, "sha256"))
    return head(ARRAY, 5) + body + mac


def seal(volume: Volume, copies: Sequence[Copy], key: bytes | None = None) -> bytes:
    """Return an envelope; its MAC is keyed from ``key``, otherwise from the volume's key."""
    encoded = array(*(copy.encode() for copy in copies))
    return assemble(key or volume.key, header=volume.encode(), copies=encoded)


def wrap(volume: Volume, master: Master, *, seed: str, bound: bytes | None = None) -> Copy:
    """Return the volume's key wrapped by ``master``, bound to its context or to ``bound``."""
    if bound is None:
        bound = context(volume, master.scheme, master.master_id)
    make = {GCM: gcm_blob, HMAC_KDF: hmac_blob, OAEP: oaep_blob}[master.scheme]
    return Copy(master.scheme, master.master_id, make(master, volume.key, bound, seed))


def gcm_blob(master: Master, key: bytes, bound: bytes, seed: str) -> bytes:
    nonce = draw(f"{seed}/nonce", 12)
    return nonce + AESGCM(master.material).encrypt(nonce, key, bound)


def hmac_blob(master: Master, key: bytes, bound: bytes, seed: str) -> bytes:
    salt = draw(f"{seed}/salt", 32)
    one_time = hmac.digest(master.material, b"hwkm/kdf/1\0" + salt + bound, "sha256")
    return salt + AESGCM(one_time).encrypt(bytes(12), key, bound)


def oaep_blob(master: Master, key: bytes, bound: bytes, seed: str) -> bytes:
    return b"\x01" + oaep(master, sha256(bound).digest() + key, seed)


# RSAES-OAEP, RFC 8017, section 7.1.1


def oaep(
    master: Master, message: bytes, seed: str, *, digest: str = "sha1", label: bytes = b""
) -> bytes:
    numbers = master.rsa().public_key().public_numbers()
    size = (numbers.n.bit_length() + 7) // 8
    hashed = _hash(digest, label)
    padding = bytes(size - len(message) - 2 * len(hashed) - 2)
    block = hashed + padding + b"\x01" + message
    salt = draw(f"{seed}/oaep", len(hashed))
    masked = _xor(block, _mgf1(digest, salt, len(block)))
    masked_salt = _xor(salt, _mgf1(digest, masked, len(salt)))
    return raw_rsa(master, b"\0" + masked_salt + masked)


def raw_rsa(master: Master, block: bytes) -> bytes:
    numbers = master.rsa().public_key().public_numbers()
    return pow(int.from_bytes(block, "big"), numbers.e, numbers.n).to_bytes(len(block), "big")


def _mgf1(digest: str, salt: bytes, length: int) -> bytes:
    """Mask generation, RFC 8017, appendix B.2.1."""
    mask = b""
    for number in count():
        if len(mask) >= length:
            return mask[:length]
        mask += _hash(digest, salt + number.to_bytes(4, "big"))
    raise AssertionError


def _hash(digest: str, data: bytes) -> bytes:
    return (sha1(data) if digest == "sha1" else sha256(data)).digest()


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _master(name: str, entry: dict[str, str]) -> Master:
    material = bytes.fromhex(entry["value"]) if "value" in entry else entry["pem"].encode()
    return Master(name, SCHEMES[entry["scheme"]], bytes.fromhex(entry["id"]), material)


@cache
def _load_rsa(pem: bytes) -> RSAPrivateKey:
    loaded = load_pem_private_key(pem, password=None)
    assert isinstance(loaded, RSAPrivateKey)
    return loaded
