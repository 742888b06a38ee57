"""Scheme ``escrow``: published vectors, another implementation, and damage of every kind."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.envelope import (
    MAX_LABEL_BYTES,
    Envelope,
    Header,
    MacError,
    Scheme,
    Stanza,
    StanzaError,
    context,
    fit,
    seal,
)
from hwkm.errors import EnvelopeError, ParseError
from hwkm.keys import Cipher, SecretBytes, VolumeKey
from hwkm.recipients import NotMineError, open_envelope
from hwkm.recipients.escrow import (
    OVERHEAD_BYTES,
    PUBLIC_BYTES,
    EscrowIdentity,
    EscrowRecipient,
    generate,
)

from . import VECTORS, hpke, strategies

PUBLISHED: list[dict[str, Any]] = [
    vector
    for vector in json.loads(
        (files("cryptography_vectors") / "HPKE" / "hpke-pq-test-vectors.json").read_text()
    )
    if (vector["kem_id"], vector["kdf_id"], vector["mode"]) == (hpke.KEM_ID, hpke.KDF_ID, 0)
]
OURS: dict[str, str] = json.loads((VECTORS / "escrow.json").read_text("ascii"))

# draft-connolly-cfrg-xwing-kem, appendix C, the first vector; of its public key the beginning.
DRAFT_SEED = "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26"
DRAFT_PUBLIC = (
    "e2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5b19cfc3da5fa1a92c49f25513e0f"
)

HEADER = Header(bytes(range(12)), "Vol-00042", 1, Cipher.AES_256_XTS, 1767225600)
OTHERS: list[dict[str, Any]] = [
    {"volume": "Vol-00043"},
    {"volume": "Vol-0004"},
    {"generation": 2},
    {"key_id": bytes(range(1, 13))},
]


def key_for(cipher: Cipher) -> VolumeKey:
    return VolumeKey(cipher, bytes(range(cipher.key_bytes)))


@cache
def identity(number: int = 0) -> EscrowIdentity:
    return EscrowIdentity(SecretBytes(bytes([number]) * 32))


@cache
def wrapped(cipher: Cipher = HEADER.cipher) -> Stanza:
    return identity().recipient.wrap(replace(HEADER, cipher=cipher), key_for(cipher))


# published vectors


def test_the_drafts_key() -> None:
    made = EscrowIdentity(SecretBytes(bytes.fromhex(DRAFT_SEED))).recipient.public
    assert made.hex().startswith(DRAFT_PUBLIC)


def test_there_are_published_vectors() -> None:
    assert len(PUBLISHED) >= 1


@pytest.mark.parametrize("vector", PUBLISHED, ids=lambda vector: str(vector["aead_id"]))
def test_published_keys(vector: dict[str, Any]) -> None:
    made = EscrowIdentity(SecretBytes(bytes.fromhex(vector["skRm"])))
    assert made.recipient.public.hex() == vector["pkRm"]
    EscrowRecipient(bytes.fromhex(vector["pkRm"]))


@pytest.mark.parametrize("vector", PUBLISHED, ids=lambda vector: str(vector["aead_id"]))
def test_the_second_opinion_is_that_of_the_published_vectors(vector: dict[str, Any]) -> None:
    """So that it counts, below, for the AEAD of the envelope too."""
    raw = {name: bytes.fromhex(vector[name]) for name in ("skRm", "enc", "info", "shared_secret")}
    key = hpke.Key(raw["skRm"])
    assert key.decapsulate(raw["enc"]) == raw["shared_secret"]
    aead, first = vector["aead_id"], vector["encryptions"][0]
    secret, nonce = hpke.schedule(raw["shared_secret"], raw["info"], aead)
    assert (secret.hex(), nonce.hex()) == (vector["key"], vector["base_nonce"])
    blob, aad = raw["enc"] + bytes.fromhex(first["ct"]), bytes.fromhex(first["aad"])
    opened = hpke.open_message(key, blob, raw["info"], aead=aead, aad=aad)
    assert opened.hex() == first["pt"]


# what fits


@given(strategies.headers, st.binary(min_size=32, max_size=32), st.data())
def test_what_was_wrapped_comes_back_here_and_elsewhere(
    header: Header, seed: bytes, draw: st.DataObject
) -> None:
    key = draw.draw(strategies.keys(header.cipher))
    mine = EscrowIdentity(SecretBytes(seed))
    stanza = mine.recipient.wrap(header, key)
    assert mine.unwrap(header, stanza) == key
    bound = context(header, Scheme.ESCROW, sha256(mine.recipient.public).digest())
    assert hpke.open_message(hpke.Key(seed), stanza.blob, bound, aead=2) == key.expose()


@pytest.mark.parametrize("cipher", Cipher)
def test_lengths(cipher: Cipher) -> None:
    stanza = wrapped(cipher)
    assert (stanza.scheme, len(stanza.recipient_id)) == (Scheme.ESCROW, 32)
    assert len(stanza.blob) == cipher.key_bytes + OVERHEAD_BYTES == cipher.key_bytes + 1136


def test_no_two_are_the_same() -> None:
    again = identity().recipient.wrap(HEADER, key_for(HEADER.cipher))
    assert again.blob[:1120] != wrapped().blob[:1120]
    assert generate().recipient.public != generate().recipient.public


def test_an_envelope_of_an_earlier_release() -> None:
    mine = EscrowIdentity(SecretBytes(bytes.fromhex(OURS["seed"])))
    assert mine.recipient.recipient_id.hex() == OURS["recipient_id"]
    envelope = Envelope.parse(base64.b64decode(OURS["envelope"]))
    (stanza,) = envelope.stanzas
    assert context(envelope.header, Scheme.ESCROW, stanza.recipient_id).hex() == OURS["context"]
    assert open_envelope(envelope, [mine]).key.expose().hex() == OURS["key"]


# what does not


@pytest.mark.parametrize("change", OTHERS, ids=lambda change: str(change))
def test_it_is_bound_to_its_volume(change: dict[str, Any]) -> None:
    with pytest.raises(StanzaError):
        identity().unwrap(replace(HEADER, **change), wrapped())


def test_it_is_bound_to_its_cipher() -> None:
    stanza = wrapped(Cipher.AES_128_XTS)
    assert identity().unwrap(replace(HEADER, cipher=Cipher.AES_128_XTS), stanza)
    with pytest.raises(StanzaError):
        identity().unwrap(replace(HEADER, cipher=Cipher.AES_256_GCM), stanza)


@given(st.integers(0, 8 * (64 + OVERHEAD_BYTES) - 1))
def test_no_bit_can_be_flipped(bit: int) -> None:
    blob = bytearray(wrapped().blob)
    blob[bit // 8] ^= 1 << bit % 8
    with pytest.raises(StanzaError):
        identity().unwrap(HEADER, replace(wrapped(), blob=bytes(blob)))


@given(st.binary(min_size=1, max_size=2048))
def test_anything_else_is_refused(blob: bytes) -> None:
    with pytest.raises(StanzaError):
        identity().unwrap(HEADER, replace(wrapped(), blob=blob))


@pytest.mark.parametrize("length", [1, 32, 1087, 1088, 1119, 1120, 1121, 1136, 1199, 1201])
def test_cut_off_or_longer(length: int) -> None:
    blob = (wrapped().blob + b"\0")[:length]
    with pytest.raises(StanzaError):
        identity().unwrap(HEADER, replace(wrapped(), blob=blob))


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)], ids=["zero", "one"])
def test_points_of_small_order(point: bytes) -> None:
    blob = wrapped().blob
    with pytest.raises(StanzaError):
        identity().unwrap(HEADER, replace(wrapped(), blob=blob[:1088] + point + blob[1120:]))


def test_a_key_of_the_wrong_length_or_with_equal_halves() -> None:
    """Whoever has the public key can wrap anything."""
    for cipher, length in ((Cipher.AES_256_GCM, 31), (Cipher.AES_256_XTS, 64)):
        header = replace(HEADER, cipher=cipher)
        wrong = SecretBytes(bytes(length))
        stanza = identity().recipient.wrap(header, wrong)  # type: ignore[arg-type]
        with pytest.raises(StanzaError):
            identity().unwrap(header, stanza)


def test_somebody_elses() -> None:
    for stanza in (
        replace(wrapped(), recipient_id=identity(1).recipient.recipient_id),
        replace(wrapped(), recipient_id=wrapped().recipient_id[:16]),
        replace(wrapped(), scheme=Scheme.GCM),
    ):
        with pytest.raises(NotMineError):
            identity().unwrap(HEADER, stanza)
    with pytest.raises(NotMineError):
        identity(1).unwrap(HEADER, wrapped())


def test_another_key_under_this_ones_id() -> None:
    stanza = identity(1).recipient.wrap(HEADER, key_for(HEADER.cipher))
    with pytest.raises(StanzaError):
        identity().unwrap(HEADER, replace(stanza, recipient_id=wrapped().recipient_id))


def test_the_whole_envelope() -> None:
    key = key_for(HEADER.cipher)
    envelope = seal(HEADER, [wrapped()], key)
    assert open_envelope(envelope, [identity(1), identity()]).key == key
    later = seal(replace(HEADER, created=1), [wrapped()], key)
    with pytest.raises(MacError):
        open_envelope(replace(later, header=HEADER), [identity()])


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_has_32_bytes(length: int) -> None:
    with pytest.raises(ParseError):
        EscrowIdentity(SecretBytes(bytes(length)))


@pytest.mark.parametrize(
    "public",
    [b"", identity().recipient.public[:-1], identity().recipient.public + b"\0", b"\xff" * 1216],
    ids=["empty", "cut", "longer", "coefficients out of range"],
)
def test_public_keys_that_are_none(public: bytes) -> None:
    with pytest.raises(ParseError):
        EscrowRecipient(public)
    assert len(identity().recipient.public) == PUBLIC_BYTES


def test_nothing_shows_the_seed() -> None:
    mine = identity(7)
    assert "07070707" not in repr(mine) + repr(mine.recipient) + repr(vars(mine))
    assert str(mine.seed.expose()) not in repr(vars(mine))


# labels


@pytest.mark.parametrize("cipher", Cipher)
def test_it_does_not_fit_into_a_label(cipher: Cipher) -> None:
    key = key_for(cipher)
    header = replace(HEADER, volume="V", cipher=cipher)
    alone = seal(header, [wrapped(cipher)], key)
    assert len(alone.encode()) > MAX_LABEL_BYTES
    with pytest.raises(EnvelopeError, match="no wrapped key fits"):
        fit(alone, key)
    token = Stanza(Scheme.GCM, bytes(16), bytes(cipher.key_bytes + 28))
    both = seal(header, [wrapped(cipher), token], key)
    assert fit(both, key).stanzas == (token,)
