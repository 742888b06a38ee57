"""Proofs as drives give them, and volumes that a drive encrypts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hwkm.checks import fail, ok
from hwkm.envelope import Header, Scheme, Stanza, seal
from hwkm.keys import Cipher, VolumeKey
from hwkm.keystore.records import Generation, Proof, ProofKind, State
from hwkm.policy import Delivery

if TYPE_CHECKING:
    from hwkm.keystore.store import Transaction

CHECKS = (ok("mode", "ENCRYPT"), ok("key id", "as it was sent; ä"))
FAILED = fail("algorithm", "0 instead of 1", "Look at hwkm drive probe")


def proof(key_id: bytes, kind: ProofKind = ProofKind.PROVE, **others: Any) -> Proof:
    """Return what a drive says when all is well, changed by ``others``."""
    values: dict[str, Any] = {
        "at": 500,
        "encrypted": kind is not ProofKind.CLEAR,
        "drive_serial": "1068000073",
        "cartridge_serial": "HE1234567890",
        "barcode": "VOL001L8",
        "job": "7",
        "key_format": "wrapped",
        "counter": 2**32 - 1,
        "checks": CHECKS,
    }
    return Proof(key_id, kind=kind, **(values | others))


def add_tape(transaction: Transaction, volume: str, generation: int = 1) -> bytes:
    """Add a generation that a drive encrypts, in an envelope that nobody can open."""
    key = VolumeKey(Cipher.AES_256_GCM, os.urandom(32))
    header = Header(os.urandom(12), volume, generation, key.cipher, 100)
    sealed = seal(header, [Stanza(Scheme.GCM, b"m1", b"blob")], key)
    record = Generation(
        header.key_id, volume, generation, key.cipher, State.ACTIVE, 100, Delivery.DRIVE
    )
    transaction.add_generation(transaction.lock_volume(volume), record, sealed.encode())
    return header.key_id
