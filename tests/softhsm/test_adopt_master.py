"""Keys that a vendor's tool made, taken for master keys; hwkm never removes one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pkcs11 import KeyType, MechanismFlag

from hwkm.envelope import TOKEN_SCHEMES, Scheme
from hwkm.errors import NotFoundError, PolicyError, TokenError
from hwkm.keystore.records import State
from hwkm.provision import find_existing
from hwkm.token import master

from . import raw
from .sites import KEY_ID
from .workshop import GCM, HMAC, OAEP, Workshop, workshop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .sites import Site


@pytest.fixture
def shop(site: Site, tmp_path: Path) -> Iterator[Workshop]:
    with workshop(site, tmp_path) as made:
        yield made


@pytest.mark.parametrize("any_site", ["tpm"], indirect=True)
def test_an_hmac_key_of_the_tpms_tool(any_site: Site, tmp_path: Path) -> None:
    key = any_site.token.hmac_key
    assert key is not None
    with workshop(any_site, tmp_path) as shop:
        master_id = find_existing(shop.token, HMAC, key.label)
        assert master_id == key.key_id
        made = shop.provisioner().adopt(HMAC, master_id)
        assert (made.label, made.state) == (key.label, State.ACTIVE)
        assert made.attributes["KEY_TYPE"] == "SHA256_HMAC"
        assert made.attributes["VERIFY"] is True  # the tool gives this right too
        shop.check(made)


@pytest.mark.parametrize("scheme", TOKEN_SCHEMES)
def test_a_key_is_adopted_under_its_own_id_and_label(shop: Workshop, scheme: Scheme) -> None:
    master.generate(shop.token, scheme, KEY_ID, "vendor's")
    made = shop.provisioner().adopt(scheme, KEY_ID)
    assert (made.master_id, made.label, made.scheme) == (KEY_ID, "vendor's", scheme)
    assert shop.masters() == [made]
    assert (made.public_key is not None) == (scheme is OAEP)
    shop.check(made)


# --- finding it ---


def test_a_key_is_found_by_its_label_or_its_id(shop: Workshop) -> None:
    master.generate(shop.token, GCM, KEY_ID, "vendor's")
    assert find_existing(shop.token, GCM, "vendor's") == KEY_ID
    assert find_existing(shop.token, GCM, KEY_ID.hex()) == KEY_ID
    assert find_existing(shop.token, GCM, KEY_ID.hex().upper()) == KEY_ID


@pytest.mark.parametrize("name", ["absent", "0001fe", "", "00 01 ff 00"])
def test_a_key_that_is_not_there(shop: Workshop, name: str) -> None:
    master.generate(shop.token, GCM, KEY_ID, "vendor's")
    with pytest.raises(NotFoundError, match="the token has no key"):
        find_existing(shop.token, GCM, name)


def test_a_key_of_another_class_is_not_found(shop: Workshop) -> None:
    master.generate(shop.token, GCM, KEY_ID, "vendor's")
    with pytest.raises(NotFoundError):
        find_existing(shop.token, OAEP, "vendor's")


def test_a_label_that_two_keys_have(shop: Workshop) -> None:
    master.generate(shop.token, GCM, b"\x01", "vendor's")
    master.generate(shop.token, GCM, b"\x02", "vendor's")
    with pytest.raises(NotFoundError, match="the token has 2 key"):
        find_existing(shop.token, GCM, "vendor's")


def test_a_key_without_an_id(shop: Workshop) -> None:
    raw.make_secret(shop.token, b"", label="vendor's")
    with pytest.raises(NotFoundError) as caught:
        find_existing(shop.token, GCM, "vendor's")
    assert "needs a CKA_ID" in caught.value.hint


# --- what is refused; the key stays as it is, and on no record ---


def stays(shop: Workshop, error: type[Exception], scheme: Scheme, key_id: bytes = KEY_ID) -> None:
    """Adopt a key, see it refused, then make a master key, and see the other still there."""
    before = raw.objects(shop.token)
    with pytest.raises(error):
        shop.provisioner().adopt(scheme, key_id)
    assert shop.masters() == []
    made = shop.provisioner().create(scheme)
    assert shop.masters() == [made]
    assert set(before) < set(raw.objects(shop.token))


def test_a_key_that_can_leave_is_refused(shop: Workshop) -> None:
    raw.make_secret(shop.token, KEY_ID, EXTRACTABLE=True)
    stays(shop, TokenError, GCM)


def test_a_key_that_can_be_read_is_refused(shop: Workshop) -> None:
    raw.make_secret(shop.token, KEY_ID, SENSITIVE=False)
    stays(shop, TokenError, GCM)


def test_a_key_that_has_not_the_rights_is_refused(shop: Workshop) -> None:
    raw.make_secret(shop.token, KEY_ID, usage=MechanismFlag.ENCRYPT)
    stays(shop, TokenError, GCM)


def test_a_key_of_another_kind_is_refused(shop: Workshop) -> None:
    sign = MechanismFlag.SIGN
    raw.make_secret(shop.token, KEY_ID, kind=KeyType.GENERIC_SECRET, usage=sign)
    stays(shop, NotFoundError, GCM)


def test_a_key_that_is_not_there_is_refused(shop: Workshop) -> None:
    raw.make_secret(shop.token, b"\x01")
    stays(shop, NotFoundError, GCM)


def test_a_key_that_is_on_record_is_refused(shop: Workshop) -> None:
    made = shop.provisioner().create(GCM)
    with pytest.raises(PolicyError, match="is on record as a master key already"):
        shop.provisioner().adopt(GCM, made.master_id, replace_active=True)
    assert shop.masters() == [made]
    shop.check(made)


def test_beside_an_active_master_key_only_to_replace_it(shop: Workshop) -> None:
    first = shop.provisioner().create(GCM)
    raw.make_secret(shop.token, KEY_ID)
    with pytest.raises(PolicyError, match=first.master_id.hex()):
        shop.provisioner().adopt(GCM, KEY_ID)
    assert shop.masters() == [first]
    second = shop.provisioner().adopt(GCM, KEY_ID, replace_active=True)
    states = {record.master_id: record.state for record in shop.masters()}
    assert states == {first.master_id: State.DEACTIVATED, second.master_id: State.ACTIVE}
    shop.check(first)
