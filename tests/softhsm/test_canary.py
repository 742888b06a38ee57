"""The canary tells a bad blob from a sick token: the token is made sick for real here."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import pytest
from pkcs11 import KeyType, MechanismFlag

from hwkm.envelope import TOKEN_SCHEMES, NoRecipientError, Scheme, StanzaError, seal
from hwkm.errors import PinError, TokenError
from hwkm.keys import SecretBytes
from hwkm.recipients import NotMineError, canary, open_envelope
from hwkm.recipients.token import recorded_master
from hwkm.token import master, p11

from . import raw
from .sealed import HEADER, flipped, identity, key_for, wrap
from .sites import KEY_ID, lose_login
from .spy import watch
from .workshop import Master, Workshop, workshop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hwkm.envelope import Stanza
    from hwkm.keystore.records import MasterKey

    from .sites import Site

KEY = key_for(HEADER.cipher)


@pytest.fixture
def shop(site: Site, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(site, tmp_path) as made:
        yield made


def each_scheme(shop: Workshop) -> Iterator[tuple[MasterKey, Stanza]]:
    """Yield a master key of each scheme, with a stanza for it."""
    for scheme in TOKEN_SCHEMES:
        record = shop.provisioner().create(scheme, replace_active=True)
        yield record, wrap(shop.token, record)


def put_another(shop: Workshop, record: MasterKey) -> None:
    """Put a new key of the same kind in the place of a master key, under its id and label."""
    assert raw.destroy(shop.token, record.master_id) > 0
    master.generate(shop.token, record.scheme, record.master_id, record.label)


# --- a good one ---


def test_a_good_master_key_opens_its_canary_as_often_as_asked(used: Master) -> None:
    assert used.record.canary is not None
    with used.site.session() as token:
        cipher = recorded_master(token, used.record)
        for _ in range(3):
            canary.check(cipher, used.record.canary)
        fresh = canary.make(cipher)
        canary.check(cipher, fresh)
    assert fresh != used.record.canary


def test_after_a_bad_blob_the_good_ones_still_open(used: Master) -> None:
    with used.site.session() as token:
        stanza = wrap(token, used.record)
        mine = identity(token, used.record)
        for _ in range(3):
            with pytest.raises(StanzaError, match="though its master key works"):
                mine.unwrap(HEADER, flipped(stanza, -1))
            assert mine.unwrap(HEADER, stanza) == KEY


# --- a sick one ---


def test_another_key_in_its_place_is_the_tokens_fault(shop: Workshop) -> None:
    for record, stanza in each_scheme(shop):
        put_another(shop, record)
        for blob in (stanza, flipped(stanza, -1)):
            with pytest.raises(TokenError, match="canary") as caught:
                identity(shop.token, record).unwrap(HEADER, blob)
            assert "restore the token's backup" in caught.value.hint
        with pytest.raises(TokenError, match="canary"):
            shop.check(record)


def test_another_key_under_another_label_is_the_tokens_fault(shop: Workshop) -> None:
    for record, stanza in each_scheme(shop):
        put_another(shop, replace(record, label="other"))
        with pytest.raises(TokenError):
            identity(shop.token, record).unwrap(HEADER, stanza)
        with pytest.raises(TokenError, match="holds no master key"):
            shop.check(record)


def test_a_key_that_was_destroyed_is_missed_by_its_canary(shop: Workshop) -> None:
    for record, stanza in each_scheme(shop):
        assert raw.destroy(shop.token, record.master_id) > 0
        with pytest.raises(TokenError, match="holds no master key") as caught:
            shop.check(record)
        assert "restore the token's backup" in caught.value.hint
        envelope = seal(HEADER, [stanza], KEY)
        with pytest.raises(NoRecipientError, match=record.master_id.hex()):
            open_envelope(envelope, [identity(shop.token, record)])
        with pytest.raises(NotMineError):
            identity(shop.token, record).unwrap(HEADER, stanza)


def test_a_token_that_went_away_is_the_tokens_fault(shop: Workshop, tmp_path: Path) -> None:
    for record, stanza in each_scheme(shop):
        (tmp_path / "tokens").rename(tmp_path / "away")
        for _ in range(2):
            with pytest.raises(TokenError, match=r"\(CKR_"):
                identity(shop.token, record).unwrap(HEADER, stanza)
        (tmp_path / "away").rename(tmp_path / "tokens")
        assert identity(shop.token, record).unwrap(HEADER, stanza) == KEY


def test_a_pin_that_became_wrong_is_a_pin_error(shop: Workshop, site: Site) -> None:
    for record, stanza in each_scheme(shop):
        lose_login(shop.token)
        site.put_pin(f"wrong for {record.scheme.label}")
        with pytest.raises(PinError):
            identity(shop.token, record).unwrap(HEADER, stanza)
        with pytest.raises(PinError):
            shop.check(record)
        site.put_pin(site.token.user_pin)


def test_a_canary_of_another_master_key_is_refused(shop: Workshop) -> None:
    records = [record for record, _ in each_scheme(shop)]
    for record in records:
        for other in records:
            if other is not record:
                with pytest.raises(TokenError, match="canary"):
                    shop.check(replace(record, canary=other.canary))


def test_a_canary_that_opens_to_other_bytes_is_refused(used: Master) -> None:
    with used.site.session() as token:
        cipher = recorded_master(token, used.record)
        forged = cipher.wrap(canary._context(cipher), SecretBytes(bytes(32)))
        with pytest.raises(TokenError, match="canary"):
            canary.check(cipher, forged)


# --- a machine without records ---


def test_without_a_record_a_fresh_canary_judges(shop: Workshop) -> None:
    for record, stanza in each_scheme(shop):
        with pytest.raises(StanzaError):
            identity(shop.token).unwrap(HEADER, flipped(stanza, -1))
        # There, nothing tells another key in its place from a blob that is bad.
        put_another(shop, record)
        with pytest.raises(StanzaError):
            identity(shop.token).unwrap(HEADER, stanza)


# --- what bad blobs cost ---


def test_bad_blobs_cost_no_login(used: Master, tmp_path: Path) -> None:
    """Whoever can write labels could make the token be opened all the time, else."""
    spied = watch(used.site, tmp_path / "calls")
    with spied.site.session() as token:
        stanza = wrap(token, used.record)
        mine = identity(token, used.record)
        for _ in range(3):
            with pytest.raises(StanzaError):
                mine.unwrap(HEADER, flipped(stanza, -1))
            assert mine.unwrap(HEADER, stanza) == KEY
    assert spied.calls("C_Login") == 1
    assert spied.calls("C_OpenSession") == spied.calls("C_CloseSession")


def test_naming_somebody_elses_key_costs_no_login(
    site: Site, shop: Workshop, tmp_path: Path
) -> None:
    """A key in the same token that can't open anything is not taken for a sick token."""
    record = shop.provisioner().create(Scheme.GCM)
    stanza = wrap(shop.token, record)
    with shop.token.use("making another application's key") as session:
        p11.generate_secret(
            session, KeyType.AES, MechanismFlag.SIGN, {}, store=True, key_id=KEY_ID, label="other"
        )
    shop.token.close()
    spied = watch(site, tmp_path / "calls")
    with spied.site.session() as token:
        mine = identity(token, record)
        for _ in range(3):
            with pytest.raises(StanzaError, match="though its token works"):
                mine.unwrap(HEADER, replace(stanza, recipient_id=KEY_ID))
        assert mine.unwrap(HEADER, stanza) == KEY
    assert spied.calls("C_Login") == 1


def test_what_passes_is_not_taken_for_a_bad_blob(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for record, stanza in each_scheme(shop):
        mine = identity(shop.token, record)
        with fail_once(monkeypatch):
            assert mine.unwrap(HEADER, stanza) == KEY


@contextmanager
def fail_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the next use of a master key fail, as on a token that is busy."""
    uses = {name: getattr(p11, name) for name in ("gcm_decrypt", "hmac_sha256", "oaep_decrypt")}

    def fail(*_: object, **__: object) -> NoReturn:
        for name, use in uses.items():
            monkeypatch.setattr(p11, name, use)
        raise p11.TokenOperationError("using the key failed")

    for name in uses:
        monkeypatch.setattr(p11, name, fail)
    yield
    assert p11.gcm_decrypt is uses["gcm_decrypt"], "no key was used"
