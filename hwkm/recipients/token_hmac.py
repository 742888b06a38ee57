"""Scheme ``hmac-kdf``: a one-time key from HMAC-SHA256 in the token, AES-256-GCM in the host.

Works on every module tried. Blob: 32-byte salt, ciphertext as long as the key, 16-byte tag.
One-time key = HMAC-SHA256(master key, "hwkm/kdf/1" || 00h || salt || context), a KDF in the sense
of SP 800-108r1, section 4.1, with one block. It encrypts one message, so the nonce may be zero.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hwkm.envelope import Scheme, StanzaError
from hwkm.keys import SecretBytes
from hwkm.token import master, p11

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwkm.token.session import TokenSession

LABEL = b"hwkm/kdf/1\0"
SALT_BYTES = 32
TAG_BYTES = 16
NONCE = bytes(12)


@dataclass(frozen=True, slots=True)
class TokenHmacKdf:
    """A token's 256-bit HMAC master key that may sign, nothing else."""

    token: TokenSession
    master_id: bytes
    label: str | None = None
    random: Callable[[int], bytes] = os.urandom
    scheme: Scheme = Scheme.HMAC_KDF

    def wrap(self, context: bytes, secret: SecretBytes) -> bytes:
        """See :meth:`MasterCipher.wrap`."""
        salt = self.random(SALT_BYTES)
        return salt + self._one_time(salt, context).encrypt(NONCE, secret.expose(), context)

    def unwrap(self, context: bytes, blob: bytes) -> SecretBytes:
        """See :meth:`MasterCipher.unwrap`."""
        salt, data = blob[:SALT_BYTES], blob[SALT_BYTES:]
        one_time = self._one_time(salt, context)
        if len(data) <= TAG_BYTES:
            raise StanzaError("the wrapped key is too short")
        try:
            return SecretBytes(one_time.decrypt(NONCE, data, context))
        except InvalidTag:
            raise StanzaError("the wrapped key does not open") from None

    def _one_time(self, salt: bytes, context: bytes) -> AESGCM:
        with self.token.use("deriving a key with HMAC-SHA256") as session:
            key = master.find_one(session, self.scheme, self.master_id, self.label)
            return AESGCM(p11.hmac_sha256(key, LABEL + salt + context).expose())
