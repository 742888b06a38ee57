"""Volume keys wrapped and unwrapped by master keys: each scheme on each module that has it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from hwkm.envelope import TOKEN_SCHEMES, Scheme, StanzaError
from hwkm.keys import Cipher
from hwkm.recipients import NotMineError
from hwkm.recipients.token import TokenRecipient, recorded_master

from .sealed import HEADER, flipped, identity, key_for, wrap
from .workshop import GCM, HMAC, OAEP, Master, workshop

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.envelope import Stanza

    from .sites import Site

OTHERS: list[dict[str, Any]] = [
    {"volume": "Volume-0002"},
    {"volume": "Volume-000"},
    {"generation": 2},
    {"key_id": bytes(range(1, 13))},
    {"cipher": Cipher.AES_256_GCM},
]
NAMES = ["another volume", "a shorter name", "generation", "key id", "cipher"]
SHORT = replace(HEADER, cipher=Cipher.AES_128_XTS)


# --- what fits ---


@pytest.mark.parametrize("cipher", Cipher, ids=lambda cipher: cipher.name)
def test_what_was_wrapped_comes_back(used: Master, cipher: Cipher) -> None:
    header = replace(HEADER, cipher=cipher)
    with used.site.session(writable=False) as token:
        stanza = wrap(token, used.record, header)
        assert identity(token, used.record).unwrap(header, stanza) == key_for(cipher)
    assert (stanza.scheme, stanza.recipient_id) == (used.record.scheme, used.record.master_id)


def test_it_comes_back_in_another_session_without_any_record(used: Master) -> None:
    with used.site.session() as token:
        stanza = wrap(token, used.record)
    with used.site.session() as token:
        assert identity(token).unwrap(HEADER, stanza) == key_for(HEADER.cipher)


def test_the_time_of_creation_is_no_part_of_what_binds(used: Master) -> None:
    with used.site.session() as token:
        stanza = wrap(token, used.record)
        later = replace(HEADER, created=HEADER.created + 1)
        assert identity(token, used.record).unwrap(later, stanza) == key_for(HEADER.cipher)


def test_the_lengths_of_blobs_and_that_no_two_are_alike(used: Master) -> None:
    with used.site.session() as token:
        blobs = [wrap(token, used.record, header).blob for header in (SHORT, HEADER, HEADER)]
    expected = {
        GCM: [12 + 32 + 16, 12 + 64 + 16],
        HMAC: [32 + 32 + 16, 32 + 64 + 16],
        OAEP: [1 + 384, 1 + 384],
    }
    assert [len(blob) for blob in blobs[:2]] == expected[used.record.scheme]
    assert blobs[1] != blobs[2]
    assert key_for(HEADER.cipher).expose() not in blobs[1]


# --- what does not ---


@pytest.mark.parametrize("changes", OTHERS, ids=NAMES)
def test_what_was_moved_elsewhere_is_mine_but_broken(used: Master, changes: dict[str, Any]) -> None:
    header = replace(SHORT, **changes)
    with used.site.session() as token:
        stanza = wrap(token, used.record, SHORT)
        for mine in (identity(token, used.record), identity(token)):
            with pytest.raises(StanzaError, match="does not open") as caught:
                mine.unwrap(header, stanza)
            assert header.volume in str(caught.value)
        assert identity(token, used.record).unwrap(SHORT, stanza) == key_for(SHORT.cipher)


def test_a_key_of_another_length_than_its_cipher_wants_is_broken(used: Master) -> None:
    with used.site.session() as token:
        recipient = TokenRecipient(recorded_master(token, used.record))
        stanza = recipient.wrap(SHORT, key_for(Cipher.AES_256_XTS))
        with pytest.raises(StanzaError, match="has 32 bytes"):
            identity(token, used.record).unwrap(SHORT, stanza)


def test_what_is_for_somebody_else_is_not_mine(used: Master) -> None:
    with used.site.session() as token:
        stanza = replace(wrap(token, used.record), recipient_id=b"somebody else")
        with pytest.raises(NotMineError, match=b"somebody else".hex()):
            identity(token, used.record).unwrap(HEADER, stanza)


def test_every_part_of_a_blob_is_guarded(used: Master) -> None:
    with used.site.session() as token:
        stanza = wrap(token, used.record)
        mine = identity(token, used.record)
        for damaged in damage(stanza):
            with pytest.raises(StanzaError):
                mine.unwrap(HEADER, damaged)
        assert mine.unwrap(HEADER, stanza) == key_for(HEADER.cipher)


def damage(stanza: Stanza) -> list[Stanza]:
    """Return ``stanza`` damaged at the begin and end of each part, shorter, and longer."""
    size = len(stanza.blob)
    parts = {
        GCM: [0, 11, 12, size // 2, size - 17, size - 16, size - 1],
        HMAC: [0, 31, 32, size // 2, size - 17, size - 16, size - 1],
        OAEP: [0, 1, 2, size // 2, size - 1],
    }
    whole = stanza.blob
    lengths = [whole[:1], whole[: size // 3], whole[:-1], whole + b"\0", whole * 2, b"\0" * size]
    if stanza.scheme is OAEP:
        lengths += [bytes([number]) + whole[1:] for number in (0, 2 if whole[0] == 1 else 1, 255)]
    return [
        *(flipped(stanza, at) for at in parts[stanza.scheme]),
        *(replace(stanza, blob=blob) for blob in lengths),
    ]


# --- two master keys in one token ---


@pytest.mark.parametrize("scheme", TOKEN_SCHEMES, ids=lambda scheme: scheme.label)
def test_a_blob_of_another_master_key_is_broken(site: Site, tmp_path: Path, scheme: Scheme) -> None:
    with workshop(site, tmp_path) as shop:
        first = shop.provisioner().create(scheme)
        second = shop.provisioner().create(scheme, replace_active=True)
        mine = identity(shop.token, first, second)
        stanza = wrap(shop.token, first)
        with pytest.raises(StanzaError):
            mine.unwrap(HEADER, replace(stanza, recipient_id=second.master_id))
        assert mine.unwrap(HEADER, stanza) == key_for(HEADER.cipher)
        assert mine.unwrap(HEADER, wrap(shop.token, second)) == key_for(HEADER.cipher)


@pytest.mark.parametrize("scheme", TOKEN_SCHEMES, ids=lambda scheme: scheme.label)
def test_a_blob_under_another_scheme_is_not_mine(
    site: Site, tmp_path: Path, scheme: Scheme
) -> None:
    with workshop(site, tmp_path) as shop:
        record = shop.provisioner().create(scheme)
        stanza = wrap(shop.token, record)
        for other in set(Scheme) - {scheme}:
            for mine in (identity(shop.token, record), identity(shop.token)):
                with pytest.raises(NotMineError):
                    mine.unwrap(HEADER, replace(stanza, scheme=other))


def test_an_rsa_key_that_is_not_on_record_is_only_used_where_nothing_is(
    site: Site, tmp_path: Path
) -> None:
    with workshop(site, tmp_path) as shop:
        record = shop.provisioner().create(OAEP)
        other = shop.provisioner().create(GCM, replace_active=True)
        stanza = wrap(shop.token, record)
        with pytest.raises(NotMineError, match="is no master key on record"):
            identity(shop.token, other).unwrap(HEADER, stanza)
        for mine in (identity(shop.token), identity(shop.token, other, record)):
            assert mine.unwrap(HEADER, stanza) == key_for(HEADER.cipher)
