"""Escrow keys and shares for tests; made once, as they take a moment."""

from __future__ import annotations

from functools import cache

from hwkm.escrow import split
from hwkm.keys import SecretBytes
from hwkm.recipients.escrow import EscrowIdentity

PASSPHRASE = SecretBytes("Zwölf Boxkämpfer jagen".encode())
CHEAP = 14
"""The lowest cost of scrypt that a file may have."""


@cache
def key(number: int = 1) -> EscrowIdentity:
    return EscrowIdentity(SecretBytes(bytes([number]) * 31 + b"\0"))


@cache
def texts(number: int = 1, threshold: int = 2, count: int = 3) -> tuple[str, ...]:
    """Return the words of each share."""
    shares = split(key(number), threshold, count)
    return tuple(share.words.expose().decode() for share in shares)
