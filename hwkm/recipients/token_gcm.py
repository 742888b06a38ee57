"""Scheme ``gcm``: AES-256-GCM inside the token (SP 800-38D; PKCS #11 v3.0, section 2.12).

Blob: 12-byte nonce, ciphertext as long as the key, 16-byte tag. The context is the AAD.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.envelope import Scheme, StanzaError
from hwkm.token import master, p11

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwkm.keys import SecretBytes
    from hwkm.token.p11 import KeyHandle
    from hwkm.token.session import TokenSession

NONCE_BYTES = 12
TAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class TokenGcm:
    """A token's AES-256 master key that may encrypt and decrypt, nothing else."""

    token: TokenSession
    master_id: bytes
    label: str | None = None
    random: Callable[[int], bytes] = os.urandom
    scheme: Scheme = Scheme.GCM

    def wrap(self, context: bytes, secret: SecretBytes) -> bytes:
        """See :meth:`MasterCipher.wrap`."""
        nonce = self.random(NONCE_BYTES)
        with self.token.use("wrapping a key with AES-GCM") as session:
            key = master.find_one(session, self.scheme, self.master_id, self.label)
            return nonce + p11.gcm_encrypt(key, nonce, context, secret)

    def unwrap(self, context: bytes, blob: bytes) -> SecretBytes:
        """See :meth:`MasterCipher.unwrap`."""
        nonce, data = blob[:NONCE_BYTES], blob[NONCE_BYTES:]

        def decrypt(key: KeyHandle) -> SecretBytes:
            if len(data) <= TAG_BYTES:
                raise StanzaError("the wrapped key is too short")
            return p11.gcm_decrypt(key, nonce, context, data)

        with self.token.use("unwrapping a key with AES-GCM") as session:
            return master.use_one(session, self.scheme, self.master_id, self.label, decrypt)
