"""Scheme ``oaep``: RSAES-OAEP (RFC 8017, section 7.1); wrapping needs only the public key.

Blob: one byte for the hash (1 SHA-1, 2 SHA-256), then the RSA ciphertext. The payload is
SHA-256(context) followed by the key. There is no OAEP label: one widely used module ignores it.
SHA-1 inside OAEP is sound (RFC 8017, appendix B.1), and all that some modules offer.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import IntEnum, unique
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from hwkm.envelope import Scheme, StanzaError
from hwkm.errors import ParseError, TokenError
from hwkm.keys import SecretBytes
from hwkm.token import master, p11

if TYPE_CHECKING:
    from hwkm.token.session import TokenSession

DIGEST_BYTES = 32


@unique
class OaepHash(IntEnum):
    """The hash inside OAEP. The numbers are written into blobs: never reuse one."""

    SHA1 = 1
    SHA256 = 2


@dataclass(frozen=True, slots=True)
class TokenOaep:
    """A token's RSA master key that may decrypt. ``public`` is only needed to wrap."""

    token: TokenSession
    master_id: bytes
    label: str | None = None
    public: RSAPublicKey | None = None
    hash: OaepHash = OaepHash.SHA1
    scheme: Scheme = Scheme.OAEP

    def wrap(self, context: bytes, secret: SecretBytes) -> bytes:
        """See :meth:`MasterCipher.wrap`; the token is asked only if ``public`` is not known."""
        public = self.public or read_public(self.token, self.master_id)
        payload = sha256(context).digest() + secret.expose()
        return bytes([self.hash]) + public.encrypt(payload, _padding(self.hash))

    def unwrap(self, context: bytes, blob: bytes) -> SecretBytes:
        """See :meth:`MasterCipher.unwrap`."""
        with self.token.use("unwrapping a key with RSA-OAEP") as session:
            key = master.find_one(session, self.scheme, self.master_id, self.label)
            if blob[:1] not in (b"\x01", b"\x02") or len(blob) < 1 + 2 * DIGEST_BYTES:
                raise StanzaError("the wrapped key is malformed")
            payload = p11.oaep_decrypt(key, blob[1:], sha256=blob[0] == OaepHash.SHA256).expose()
        if not hmac.compare_digest(payload[:DIGEST_BYTES], sha256(context).digest()):
            raise StanzaError("the wrapped key belongs to another volume, generation or cipher")
        return SecretBytes(payload[DIGEST_BYTES:])


def read_public(token: TokenSession, master_id: bytes) -> RSAPublicKey:
    """Read the public half of an RSA master key from its token.

    :raises NoMasterKeyError: if the token does not hold it.
    :raises TokenError: if what it holds is no RSA key; a killed process may have left it.
    """
    modulus, exponent = master.public_numbers(token, master_id)
    try:
        return RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:
        raise TokenError(f"the public key {master_id.hex()} in the token is no RSA key") from error


def encode_public(public: RSAPublicKey) -> bytes:
    """Return ``public`` as DER SubjectPublicKeyInfo (RFC 5280, section 4.1)."""
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def decode_public(data: bytes) -> RSAPublicKey:
    """Return the RSA public key in ``data``, DER SubjectPublicKeyInfo.

    :raises ParseError: if it holds none.
    """
    try:
        public = load_der_public_key(data)
    except ValueError as error:
        raise ParseError("the public key of a master key is malformed") from error
    if not isinstance(public, RSAPublicKey):
        raise ParseError("the public key of a master key is not an RSA key")
    return public


def _padding(kind: OaepHash) -> OAEP:
    algorithm = SHA256() if kind is OaepHash.SHA256 else SHA1()  # noqa: S303
    return OAEP(mgf=MGF1(algorithm), algorithm=algorithm, label=None)
