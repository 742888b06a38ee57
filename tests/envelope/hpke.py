"""HPKE with X-Wing, opened by hand after the standards: a second opinion on scheme ``escrow``.

RFC 9180, sections 4 and 5.1 (HKDF-SHA256, mode base), and draft-connolly-cfrg-xwing-kem, section
5.4. Of cryptography it takes what these are made of, and nothing of its HPKE.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha3_256, shake_256

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

KEM_ID, KDF_ID = 0x647A, 0x0001
AEADS: dict[int, type[AESGCM | ChaCha20Poly1305]] = {0x0002: AESGCM, 0x0003: ChaCha20Poly1305}
MLKEM_CIPHERTEXT = 1088
ENC_BYTES = MLKEM_CIPHERTEXT + 32
XWING_LABEL = rb"\.//^" + b"\\"


@dataclass(frozen=True)
class Key:
    """An X-Wing key out of its seed."""

    seed: bytes

    @property
    def halves(self) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        expanded = shake_256(self.seed).digest(96)
        return (
            MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
            X25519PrivateKey.from_private_bytes(expanded[64:]),
        )

    @property
    def public(self) -> bytes:
        mlkem, x25519 = self.halves
        return mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()

    def decapsulate(self, enc: bytes) -> bytes:
        mlkem, x25519 = self.halves
        point = enc[MLKEM_CIPHERTEXT:]
        parts = (
            mlkem.decapsulate(enc[:MLKEM_CIPHERTEXT]),
            x25519.exchange(X25519PublicKey.from_public_bytes(point)),
            point,
            x25519.public_key().public_bytes_raw(),
            XWING_LABEL,
        )
        return sha3_256(b"".join(parts)).digest()


def open_message(key: Key, blob: bytes, info: bytes, *, aead: int, aad: bytes = b"") -> bytes:
    """Open ``enc`` and ciphertext, the first of its context."""
    shared = key.decapsulate(blob[:ENC_BYTES])
    secret, nonce = schedule(shared, info, aead)
    return AEADS[aead](secret).decrypt(nonce, blob[ENC_BYTES:], aad)


def schedule(shared: bytes, info: bytes, aead: int) -> tuple[bytes, bytes]:
    """Return key and base nonce, RFC 9180, section 5.1, mode base."""
    suite = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (KEM_ID, KDF_ID, aead))
    hashes = [_extract(suite, b"", b"psk_id_hash", b""), _extract(suite, b"", b"info_hash", info)]
    about = b"\0" + b"".join(hashes)
    secret = _extract(suite, shared, b"secret", b"")
    return _expand(suite, secret, b"key", about, 32), _expand(
        suite, secret, b"base_nonce", about, 12
    )


def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, "sha256")


def _expand(suite: bytes, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(secret, labeled + b"\x01", "sha256")[:length]
