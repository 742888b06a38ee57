"""Master keys made by hwkm: in each scheme, on each module that has it, read back and tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from hwkm.envelope import TOKEN_SCHEMES, Scheme
from hwkm.errors import PolicyError, TokenError
from hwkm.keystore.records import Operation, Outcome, State
from hwkm.recipients.token_oaep import decode_public
from hwkm.token import master

from . import raw
from .workshop import GCM, HMAC, MADE, NOW, OAEP, Workshop, name_of, workshop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hwkm.keystore.records import Event, MasterKey

    from .sites import Site

CANNOT = [("tpm", GCM), ("tpm", HMAC)]

LOCKED = {
    "TOKEN": True,
    "PRIVATE": True,
    "SENSITIVE": True,
    "EXTRACTABLE": False,
    "ALWAYS_SENSITIVE": True,
    "NEVER_EXTRACTABLE": True,
    "LOCAL": True,
    "MODIFIABLE": False,
}
SECRET = {**LOCKED, "CLASS": "SECRET_KEY", "WRAP": False, "UNWRAP": False, "DERIVE": False}
PRIVATE = {**LOCKED, "CLASS": "PRIVATE_KEY", "KEY_TYPE": "RSA", "DECRYPT": True, "UNWRAP": False}
ATTRIBUTES: dict[tuple[str, Scheme], dict[str, Any]] = {
    ("softhsm", GCM): {
        **SECRET,
        "KEY_TYPE": "AES",
        "ENCRYPT": True,
        "DECRYPT": True,
        "SIGN": False,
        "VERIFY": False,
    },
    ("softhsm", HMAC): {
        **SECRET,
        "KEY_TYPE": "GENERIC_SECRET",
        "ENCRYPT": False,
        "DECRYPT": False,
        "SIGN": True,
        "VERIFY": False,
    },
    ("softhsm", OAEP): {**PRIVATE, "SIGN": False, "DERIVE": False},
    # A TPM's key can sign too, and its module shows public rights on the private half.
    ("tpm", OAEP): {
        **PRIVATE,
        "SIGN": True,
        "DERIVE": False,
        "ENCRYPT": True,
        "VERIFY": True,
    },
}


@pytest.fixture
def shop(any_site: Site, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(any_site, tmp_path) as made:
        yield made


@pytest.fixture
def own_shop(site: Site, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(site, tmp_path) as made:
        yield made


@dataclass(frozen=True, slots=True)
class Made:
    """A master key that was made, and what the token and the keystore held before and after."""

    site: Site
    record: MasterKey
    added: raw.Listed
    masters: list[MasterKey]
    events: list[Event]
    shown: dict[str, Any]


@pytest.fixture(scope="module", params=MADE, ids=name_of)
def made(
    request: pytest.FixtureRequest,
    running: Callable[[str], Site],
    tmp_path_factory: pytest.TempPathFactory,
) -> Made:
    name, scheme = request.param
    site = running(name)
    with workshop(site, tmp_path_factory.mktemp("made")) as shop:
        before = raw.objects(shop.token)
        record = shop.provisioner().create(scheme)
        shop.check(record)
        return Made(
            site=site,
            record=record,
            added=[item for item in raw.objects(shop.token) if item not in before],
            masters=shop.masters(),
            events=shop.events(),
            shown=master.look_at(shop.token, scheme, record.master_id).attributes,
        )


def test_the_attributes_that_are_read_back(made: Made) -> None:
    behind = {"p11kit": "softhsm"}.get(made.site.token.name, made.site.token.name)
    assert made.record.attributes == made.shown == ATTRIBUTES[behind, made.record.scheme]


def test_the_record_of_a_new_master_key(made: Made) -> None:
    record = made.record
    assert made.masters == [record]
    assert (record.state, record.created, record.token) == (State.ACTIVE, NOW, "main")
    assert record.serial == made.site.token.serial
    assert len(record.master_id) == 16
    assert record.label == f"hwkm-{record.master_id[:4].hex()}"
    assert [(event.operation, event.outcome) for event in made.events] == [
        (Operation.KEYSTORE_CREATE, Outcome.OK),
        (Operation.MASTER_CREATE, Outcome.OK),
    ]


def test_what_it_leaves_in_the_token(made: Made) -> None:
    kinds = {GCM: ["SECRET_KEY"], HMAC: ["SECRET_KEY"], OAEP: ["PRIVATE_KEY", "PUBLIC_KEY"]}
    expected = kinds[made.record.scheme]
    assert made.added == [(kind, made.record.master_id, made.record.label) for kind in expected]


def test_the_public_half_and_the_hash_of_an_rsa_master_key(made: Made) -> None:
    if made.record.scheme is not OAEP:
        assert (made.record.public_key, made.record.parameters) == (None, {})
        return
    assert made.record.public_key is not None
    assert decode_public(made.record.public_key).key_size == 3072
    digest = "SHA256" if made.site.token.has_oaep_sha256 else "SHA1"
    assert made.record.parameters == {"oaep_hash": digest}


def test_without_a_wish_the_best_that_works_is_taken(any_site: Site, shop: Workshop) -> None:
    best = {"softhsm": GCM, "p11kit": GCM if any_site.token.has_gcm else HMAC, "tpm": OAEP}
    made = shop.provisioner().create()
    assert made.scheme is best[any_site.token.name]
    shop.check(made)


# --- one active master key in a token ---


def test_a_second_one_is_refused_and_nothing_happens(own_shop: Workshop) -> None:
    first = own_shop.provisioner().create(GCM)
    before = raw.objects(own_shop.token)
    for scheme in (None, GCM, OAEP):
        with pytest.raises(PolicyError, match=first.master_id.hex()) as caught:
            own_shop.provisioner().create(scheme)
        assert "--replace" in caught.value.hint
    assert own_shop.masters() == [first]
    assert raw.objects(own_shop.token) == before


@pytest.mark.parametrize("scheme", TOKEN_SCHEMES)
def test_a_replaced_one_still_opens_its_own(own_shop: Workshop, scheme: Scheme) -> None:
    first = own_shop.provisioner().create(GCM)
    second = own_shop.provisioner().create(scheme, replace_active=True)
    states = {record.master_id: record.state for record in own_shop.masters()}
    assert states == {first.master_id: State.DEACTIVATED, second.master_id: State.ACTIVE}
    for record in own_shop.masters():
        own_shop.check(record)


# --- a scheme that does not work, and what comes after ---


def refused(shop: Workshop, scheme: Scheme) -> None:
    with pytest.raises(TokenError):
        shop.provisioner().create(scheme)
    assert State.ACTIVE not in shop.states()


@pytest.mark.parametrize(("any_site", "scheme"), CANNOT, indirect=["any_site"])
def test_a_scheme_that_the_token_has_not(shop: Workshop, scheme: Scheme) -> None:
    before = raw.objects(shop.token)
    refused(shop, scheme)
    assert raw.objects(shop.token) == before


@pytest.mark.parametrize("any_site", ["p11kit"], indirect=True)
def test_after_a_scheme_that_failed_another_leaves_nothing_unfinished(
    any_site: Site, shop: Workshop
) -> None:
    if any_site.token.has_gcm:
        pytest.skip("this p11-kit carries AES-GCM: no module here makes keys that it can't use")
    before = raw.objects(shop.token)
    refused(shop, GCM)  # the key can be made, but not used
    made = shop.provisioner().create()
    assert shop.masters() == [made]
    shop.check(made)
    added = [item for item in raw.objects(shop.token) if item not in before]
    assert added == [("SECRET_KEY", made.master_id, made.label)]
