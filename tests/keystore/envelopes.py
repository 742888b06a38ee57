"""Envelopes that are unopenable, forged or broken, and how to get them into a keystore."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import text

from hwkm.envelope import Envelope, Header, Scheme, Stanza, seal
from hwkm.keys import Cipher, VolumeKey
from hwkm.keystore.records import Generation, State
from hwkm.recipients.token import TokenRecipient, unrecorded_master

if TYPE_CHECKING:
    from hwkm.keystore.engine import Keystore
    from hwkm.keystore.store import Transaction

    from .homes import Home


def sealed(volume: str, generation: int, *recipients: bytes, created: int = 100) -> Envelope:
    """Return an envelope of a random key, with copies for ``recipients`` that nobody can open."""
    key = VolumeKey(Cipher.AES_256_XTS, os.urandom(64))
    header = Header(os.urandom(12), volume, generation, key.cipher, created)
    stanzas = [Stanza(Scheme.GCM, recipient, b"blob") for recipient in recipients or (b"m1",)]
    return seal(header, stanzas, key)


def forge(home: Home, header: Header) -> Envelope:
    """Return an envelope with this header around another key, sealed by the real master key."""
    key = VolumeKey(header.cipher, os.urandom(header.cipher.key_bytes))
    with home.keystore().reading() as transaction:
        (master,) = transaction.masters()
    with home.tokens() as tokens:
        cipher = unrecorded_master(tokens.session(), master.scheme, master.master_id)
        return seal(header, [TokenRecipient(cipher).wrap(header, key)], key)


def with_broken_stanza(envelope: Envelope) -> Envelope:
    (stanza,) = envelope.stanzas
    blob = stanza.blob[:-1] + bytes([stanza.blob[-1] ^ 1])
    return replace(envelope, stanzas=(replace(stanza, blob=blob),))


def with_broken_mac(envelope: Envelope) -> Envelope:
    return replace(envelope, mac=bytes([envelope.mac[0] ^ 1]) + envelope.mac[1:])


def with_other_generation(envelope: Envelope) -> Envelope:
    header = envelope.header
    return replace(envelope, header=replace(header, generation=header.generation + 1))


BREAK = (with_broken_stanza, with_broken_mac, with_other_generation)


def add(transaction: Transaction, envelope: Envelope, state: State = State.ACTIVE) -> bytes:
    """Add a generation with this envelope; return its key id."""
    header = envelope.header
    record = Generation(
        header.key_id, header.volume, header.generation, header.cipher, state, header.created
    )
    transaction.add_generation(transaction.lock_volume(header.volume), record, envelope.encode())
    return header.key_id


def store(home: Home, key_id: bytes, blob: bytes) -> None:
    """Let the keystore's newest envelope of a key be ``blob``."""
    with home.keystore().writing() as transaction:
        transaction.add_envelope(key_id, blob, 1)


def run(keystore: Keystore, statement: str, **values: object) -> None:
    """Run a statement in a transaction of its own."""
    with keystore.writing() as transaction:
        transaction.connection.execute(text(statement), values)
