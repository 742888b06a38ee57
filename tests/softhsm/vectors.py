"""Published vectors out of the package cryptography_vectors, and their keys put into a token."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from cryptography_vectors import open_vector_file
from pkcs11 import Attribute, KeyType, ObjectClass

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pkcs11

    from hwkm.token.p11 import KeyHandle

SHORTEST_HMAC_KEY = 32
_GCM_FILES = ("gcmDecrypt256.rsp", "gcmEncryptExtIV256.rsp")


@dataclass(frozen=True, slots=True)
class GcmVector:
    """AES-256-GCM with a 96-bit nonce and a 128-bit tag; ``plain`` is None if it must fail."""

    key: bytes
    nonce: bytes
    aad: bytes
    plain: bytes | None
    sealed: bytes


@dataclass(frozen=True, slots=True)
class HmacVector:
    key: bytes
    message: bytes
    code: bytes


@dataclass(frozen=True, slots=True)
class OaepVector:
    """RSAES-OAEP with SHA-1 and no label; ``key`` is modulus, exponents, primes and so on."""

    key: tuple[bytes, ...]
    message: bytes
    encrypted: bytes


def gcm_vectors() -> list[GcmVector]:
    """Return NIST's vectors (CAVS 14.0) of the sizes that hwkm uses."""
    found = []
    for name in _GCM_FILES:
        with open_vector_file(f"ciphers/AES/GCM/{name}", "r") as file:
            sections = re.split(r"\n\s*\n(?=\[Keylen)", file.read())
        for section in sections:
            sizes = dict(re.findall(r"\[(\w+) = (\d+)\]", section))
            if {"Keylen": "256", "IVlen": "96", "Taglen": "128"}.items() <= sizes.items():
                found += [_gcm(block) for block in re.findall(r"Count = .+(?:\n.+)+", section)]
    return found


def _gcm(block: str) -> GcmVector:
    values = re.findall(r"^(Key|IV|AAD|PT|CT|Tag) = *(\w*)$", block, re.MULTILINE)
    fields = {name: bytes.fromhex(value) for name, value in values}
    plain = None if "FAIL" in block else fields["PT"]
    sealed = fields["CT"] + fields["Tag"]
    return GcmVector(fields["Key"], fields["IV"], fields["AAD"], plain, sealed)


def hmac_vectors() -> list[HmacVector]:
    """Return those vectors of RFC 4231 for HMAC-SHA-256 whose keys SoftHSM takes: 32 bytes up."""
    with open_vector_file("HMAC/rfc-4231-sha256.txt", "r") as file:
        values = re.findall(r"^(?:Key|Msg|MD) = (\w+)$", file.read(), re.MULTILINE)
    parts = [bytes.fromhex(value) for value in values]
    found = [HmacVector(*parts[at : at + 3]) for at in range(0, len(parts), 3)]
    return [vector for vector in found if len(vector.key) >= SHORTEST_HMAC_KEY]


def oaep_vectors() -> list[OaepVector]:
    """Return the vectors that RSA Laboratories published with PKCS #1 v2.0."""
    with open_vector_file("asymmetric/RSA/pkcs-1v2-1d2-vec/oaep-vect.txt", "r") as file:
        examples = re.split(r"^# Example \d+: .*$", file.read(), flags=re.MULTILINE)[1:]
    found = []
    for example in examples:
        numbers = [
            bytes.fromhex(text)
            for text in re.findall(r"^# .*:\s*\n((?:[0-9a-f ]+\n)+)", example, re.MULTILINE)
        ]
        key = tuple(numbers[2:10])
        for at in range(10, len(numbers), 3):
            message, _seed, encrypted = numbers[at : at + 3]
            found.append(OaepVector(key, message, encrypted))
    return found


@contextmanager
def secret(
    session: pkcs11.Session, kind: KeyType, value: bytes, *rights: Attribute, **named: Any
) -> Iterator[KeyHandle]:
    """Have a secret key in the token for the time of a block, with a session's life."""
    template = {
        Attribute.CLASS: ObjectClass.SECRET_KEY,
        Attribute.KEY_TYPE: kind,
        Attribute.VALUE: value,
        Attribute.TOKEN: False,
        **dict.fromkeys(rights, True),
        **{Attribute[name]: given for name, given in named.items()},
    }
    key = session.create_object(template)
    try:
        yield cast("KeyHandle", key)
    finally:
        key.destroy()


_RSA_PARTS = (
    Attribute.MODULUS,
    Attribute.PUBLIC_EXPONENT,
    Attribute.PRIVATE_EXPONENT,
    Attribute.PRIME_1,
    Attribute.PRIME_2,
    Attribute.EXPONENT_1,
    Attribute.EXPONENT_2,
    Attribute.COEFFICIENT,
)


@contextmanager
def private_rsa(session: pkcs11.Session, parts: tuple[bytes, ...]) -> Iterator[KeyHandle]:
    """Have an RSA private key in the token for the time of a block."""
    template: dict[Attribute, Any] = {
        Attribute.CLASS: ObjectClass.PRIVATE_KEY,
        Attribute.KEY_TYPE: KeyType.RSA,
        Attribute.TOKEN: False,
        Attribute.DECRYPT: True,
        **dict(zip(_RSA_PARTS, parts, strict=True)),
    }
    key = session.create_object(template)
    try:
        yield cast("KeyHandle", key)
    finally:
        key.destroy()
