"""Scheme ``escrow``: HPKE (RFC 9180) to an offline key; wrapping needs only the public half.

KEM: X-Wing, which is ML-KEM-768 and X25519 together (draft-connolly-cfrg-xwing-kem, 0x647A);
HKDF-SHA256; AES-256-GCM. Blob: encapsulated key (1,120 bytes), ciphertext as long as the key,
16-byte tag. The context is HPKE's ``info``, as RFC 9180, section 8.1, has it for single messages.
"""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from hashlib import sha256, shake_256
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from hwkm.envelope import Scheme, Stanza, StanzaError, context
from hwkm.errors import ParseError
from hwkm.keys import SecretBytes, VolumeKey
from hwkm.recipients import NotMineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwkm.envelope import Header

SEED_BYTES = 32
PUBLIC_BYTES = 1216
"""ML-KEM-768's 1,184 bytes, and X25519's 32."""
OVERHEAD_BYTES = 1120 + 16
"""By how much a blob is longer than the key in it."""

_MLKEM_PUBLIC_BYTES = 1184
_MLKEM_SEED_BYTES = 64


@dataclass(frozen=True, slots=True)
class EscrowRecipient:
    """The public half of an escrow key: ``public`` are X-Wing's 1,216 bytes."""

    public: bytes

    def __post_init__(self) -> None:
        """Check that it is one.

        :raises ParseError: if it is not.
        """
        _load_public(self.public)

    @property
    def recipient_id(self) -> bytes:
        """What stanzas call it: the SHA-256 of the public key."""
        return sha256(self.public).digest()

    def wrap(self, header: Header, key: VolumeKey) -> Stanza:
        """See :meth:`hwkm.recipients.Recipient.wrap`; no token is asked."""
        bound = context(header, Scheme.ESCROW, self.recipient_id)
        blob = _suite().encrypt(key.expose(), _load_public(self.public), info=bound)
        return Stanza(Scheme.ESCROW, self.recipient_id, blob)


class EscrowIdentity:
    """The private half of an escrow key: X-Wing's seed, of which all the rest is made."""

    def __init__(self, seed: SecretBytes) -> None:
        """Take over ``seed``, 32 bytes.

        :raises ParseError: if it is not as long.
        """
        if len(seed) != SEED_BYTES:
            raise ParseError(f"the private half of an escrow key has {SEED_BYTES} bytes")
        self.seed = seed
        self._mlkem, self._x25519 = _expand(seed)
        public = self._mlkem.public_key().public_bytes_raw()
        self.recipient = EscrowRecipient(public + self._x25519.public_key().public_bytes_raw())

    def unwrap(self, header: Header, stanza: Stanza) -> VolumeKey:
        """See :meth:`hwkm.recipients.Identity.unwrap`."""
        recipient_id = self.recipient.recipient_id
        ours = hmac.compare_digest(stanza.recipient_id, recipient_id)
        if stanza.scheme is not Scheme.ESCROW or not ours:
            raise NotMineError(f"{stanza.recipient_id.hex()} is not this escrow key")
        bound = context(header, Scheme.ESCROW, recipient_id)
        private = MLKEM768X25519PrivateKey(self._mlkem, self._x25519)
        try:
            return VolumeKey(header.cipher, _suite().decrypt(stanza.blob, private, info=bound))
        except (InvalidTag, ParseError, ValueError):
            # What the library says of it differs with the place of the damage, and helps nobody.
            raise StanzaError(
                f"the wrapped key of volume {header.volume!r}, generation {header.generation}, "
                "does not open with the escrow key: it was damaged, or belongs to another volume, "
                "generation or cipher",
                hint="The keystore's backup may have an undamaged copy",
            ) from None


def generate(random: Callable[[int], bytes] = os.urandom) -> EscrowIdentity:
    """Return a new escrow key."""
    return EscrowIdentity(SecretBytes(random(SEED_BYTES)))


def _suite() -> Suite:
    return Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def _expand(seed: SecretBytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    """Return both private keys that X-Wing makes of its seed (its draft, section 5.2)."""
    expanded = shake_256(seed.expose()).digest(_MLKEM_SEED_BYTES + SEED_BYTES)
    return (
        MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_BYTES]),
        X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_BYTES:]),
    )


def _load_public(public: bytes) -> MLKEM768X25519PublicKey:
    if len(public) != PUBLIC_BYTES:
        raise ParseError(f"the public half of an escrow key has {PUBLIC_BYTES} bytes")
    try:
        mlkem = MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC_BYTES])
        x25519 = X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC_BYTES:])
    except ValueError as error:
        raise ParseError("the public half of an escrow key is malformed") from error
    return MLKEM768X25519PublicKey(mlkem, x25519)
