"""Volume keys, headers and stanzas for the tests of recipients."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hwkm.envelope import Header, Stanza
from hwkm.keys import Cipher, VolumeKey
from hwkm.recipients.token import TokenIdentity, TokenRecipient, recorded_master

if TYPE_CHECKING:
    from hwkm.keystore.records import MasterKey
    from hwkm.token.session import TokenSession

HEADER = Header(
    key_id=bytes(range(12)),
    volume="Volume-0001",
    generation=1,
    cipher=Cipher.AES_256_XTS,
    created=1_700_000_000,
)


def key_for(cipher: Cipher) -> VolumeKey:
    """Return a key that is as long as ``cipher`` wants it."""
    return VolumeKey(cipher, bytes(range(cipher.key_bytes)))


def wrap(token: TokenSession, record: MasterKey, header: Header = HEADER) -> Stanza:
    """Return the key for ``header`` wrapped to the master key on ``record``."""
    recipient = TokenRecipient(recorded_master(token, record))
    return recipient.wrap(header, key_for(header.cipher))


def identity(token: TokenSession, *records: MasterKey) -> TokenIdentity:
    """Return ``token`` as an identity that has these ``records``."""
    return TokenIdentity(token, {record.master_id: record for record in records})


def flipped(stanza: Stanza, at: int) -> Stanza:
    """Return ``stanza`` with one bit of its blob changed."""
    blob = bytearray(stanza.blob)
    blob[at] ^= 0x04
    return replace(stanza, blob=bytes(blob))
