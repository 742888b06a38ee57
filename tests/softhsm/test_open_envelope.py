"""Envelopes with several stanzas, opened by several tokens: one that works is enough."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from hwkm.envelope import MacError, NoRecipientError, StanzaError, seal
from hwkm.errors import PinError, TokenError
from hwkm.recipients import open_envelope
from tests.modules import softhsm

from .sealed import HEADER, flipped, identity, key_for, wrap
from .sites import make_site
from .spy import watch
from .workshop import GCM, HMAC, Workshop, workshop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hwkm.envelope import Envelope, Stanza
    from hwkm.keystore.records import MasterKey
    from hwkm.recipients import Identity

    from .sites import Site

KEY = key_for(HEADER.cipher)


@dataclass(slots=True)
class Pair:
    """Two tokens with a master key each, and a stanza for each."""

    sites: list[Site]
    shops: list[Workshop]
    records: list[MasterKey]
    stanzas: list[Stanza]

    def identities(self) -> list[Identity]:
        return [identity(shop.token, *self.records) for shop in self.shops]

    def envelope(self, *changed: Stanza) -> Envelope:
        return seal(HEADER, changed or self.stanzas, KEY)

    def put_pins(self, *pins: str) -> None:
        """Log out everywhere and give the tokens these PINs."""
        for site, shop, pin in zip(self.sites, self.shops, pins, strict=True):
            site.put_pin(pin)
            shop.token.close()


@pytest.fixture
def pair(site: Site, tmp_path: Path) -> Iterator[Pair]:
    second = make_site(softhsm.add_token(site.token.env, "second"), tmp_path, "second")
    sites = [site, second]
    with ExitStack() as stack:
        shops = []
        for name, one in zip(("first", "second"), sites, strict=True):
            (tmp_path / name).mkdir()
            shops.append(stack.enter_context(workshop(one, tmp_path / name)))
        records = [shops[0].provisioner().create(GCM), shops[1].provisioner().create(HMAC)]
        stanzas = [wrap(shop.token, record) for shop, record in zip(shops, records, strict=True)]
        yield (made := Pair(sites, shops, records, stanzas))
        made.put_pins(*(one.token.user_pin for one in sites))


def test_the_first_stanza_that_opens_serves_and_there_is_nothing_to_say(pair: Pair) -> None:
    opened = open_envelope(pair.envelope(), pair.identities())
    assert opened.key == KEY
    assert opened.stanza == pair.stanzas[0]
    assert opened.problems == ()


def test_identities_may_come_in_any_order_and_once(pair: Pair) -> None:
    opened = open_envelope(pair.envelope(), reversed(pair.identities()))
    assert opened.stanza == pair.stanzas[0]


def test_one_token_alone_opens_its_own_stanza(pair: Pair) -> None:
    for mine, stanza in zip(pair.identities(), pair.stanzas, strict=True):
        opened = open_envelope(pair.envelope(), [mine])
        assert (opened.key, opened.stanza, opened.problems) == (KEY, stanza, ())


def test_a_broken_first_stanza_leaves_a_note(pair: Pair) -> None:
    envelope = pair.envelope(flipped(pair.stanzas[0], -1), pair.stanzas[1])
    opened = open_envelope(envelope, pair.identities())
    assert (opened.key, opened.stanza) == (KEY, pair.stanzas[1])
    [note] = opened.problems
    assert "does not open" in note
    assert HEADER.volume in note


def test_a_broken_second_stanza_is_not_looked_at(pair: Pair) -> None:
    envelope = pair.envelope(pair.stanzas[0], flipped(pair.stanzas[1], -1))
    assert open_envelope(envelope, pair.identities()).problems == ()


def test_all_broken_is_the_first_ones_error(pair: Pair) -> None:
    envelope = pair.envelope(*(flipped(stanza, -1) for stanza in pair.stanzas))
    with pytest.raises(StanzaError):
        open_envelope(envelope, pair.identities())


def test_none_of_mine_names_who_could(pair: Pair) -> None:
    strange = [
        replace(stanza, recipient_id=b"strange" + stanza.recipient_id) for stanza in pair.stanzas
    ]
    with pytest.raises(NoRecipientError) as caught:
        open_envelope(pair.envelope(*strange), pair.identities())
    for stanza in strange:
        assert f"{stanza.recipient_id.hex()} ({stanza.scheme.label})" in str(caught.value)
    with pytest.raises(NoRecipientError):
        open_envelope(pair.envelope(), [])


def test_a_wrong_pin_of_one_token_does_not_stop_the_other(pair: Pair) -> None:
    pair.put_pins("wrong", pair.sites[1].token.user_pin)
    opened = open_envelope(pair.envelope(), pair.identities())
    assert (opened.key, opened.stanza) == (KEY, pair.stanzas[1])
    assert any("the PIN is wrong" in note for note in opened.problems)


def test_wrong_pins_everywhere_are_a_pin_error(pair: Pair) -> None:
    pair.put_pins("wrong", "wrong too")
    with pytest.raises(PinError):
        open_envelope(pair.envelope(), pair.identities())


def test_a_wrong_pin_is_tried_once_for_an_envelope_of_many_stanzas(
    pair: Pair, tmp_path: Path
) -> None:
    spied = watch(pair.sites[0], tmp_path / "calls")
    pair.put_pins("wrong", "wrong too")
    with spied.site.session() as token, pytest.raises(PinError):
        open_envelope(pair.envelope(), [identity(token), identity(token)])
    assert spied.calls("C_Login") == 1


def test_a_token_that_is_away_does_not_stop_the_other(pair: Pair) -> None:
    with pair.sites[0].with_uri(token="absent").session() as away:
        identities = [identity(away, *pair.records), pair.identities()[1]]
        opened = open_envelope(pair.envelope(), identities)
        assert (opened.key, opened.stanza) == (KEY, pair.stanzas[1])
        assert "'main'" in opened.problems[0]
        with pytest.raises(TokenError):
            open_envelope(pair.envelope(), identities[:1])


def test_an_envelope_that_was_changed_does_not_open_at_all(pair: Pair) -> None:
    envelope = pair.envelope()
    header = replace(HEADER, created=HEADER.created + 1)
    for changed in (
        replace(envelope, mac=bytes(32)),
        replace(envelope, header=header),
        replace(envelope, stanzas=envelope.stanzas[:1]),
        replace(envelope, stanzas=envelope.stanzas[::-1]),
        replace(envelope, stanzas=(envelope.stanzas[0], flipped(envelope.stanzas[1], 0))),
    ):
        with pytest.raises(MacError):
            open_envelope(changed, pair.identities())
