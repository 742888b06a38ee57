"""Lint looks at every key on a token, and says what could make it leave or be misused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pkcs11 import KeyType, MechanismFlag

from hwkm.checks import Status
from hwkm.envelope import TOKEN_SCHEMES, Scheme
from hwkm.token import master
from hwkm.token.lint import lint, lint_key

from . import raw
from .sites import KEY_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.token.session import TokenSession

    from .sites import Site

NAME = f"key {KEY_ID.hex()} (made)"


@pytest.fixture
def token(site: Site) -> Iterator[TokenSession]:
    with site.session() as session:
        yield session


def findings(token: TokenSession) -> list[tuple[str, Status]]:
    """Return the first word of what lint found, and how bad it is, sorted."""
    return sorted((finding.detail.split(":")[0], finding.status) for finding in lint(token))


def test_a_token_without_keys_is_worth_a_word(token: TokenSession) -> None:
    assert findings(token) == [("the token holds no keys", Status.WARN)]


@pytest.mark.parametrize("scheme", TOKEN_SCHEMES)
def test_a_master_key_of_hwkm_is_good(token: TokenSession, scheme: Scheme) -> None:
    master.generate(token, scheme, KEY_ID, "made")
    assert [(f.name, f.status) for f in lint(token)] == [(NAME, Status.OK)]


def test_the_master_keys_of_every_module_have_no_failures(any_site: Site) -> None:
    with any_site.session() as token:
        try:
            master.generate(token, Scheme.OAEP, KEY_ID, "made")
            mine = [finding for finding in lint(token) if finding.name == NAME]
            assert [finding.status for finding in mine] == [Status.OK]
        finally:
            master.remove(token, Scheme.OAEP, KEY_ID)


def test_the_key_that_the_tpms_tool_made_is_good(any_site: Site) -> None:
    key = any_site.token.hmac_key
    with any_site.session() as token:
        found = {finding.name: finding.status for finding in lint(token)}
    if key is None:
        assert found == {"keys": Status.WARN}
    else:
        assert found == {f"key {key.key_id.hex()} ({key.label})": Status.OK}


def test_a_key_that_can_leave(token: TokenSession) -> None:
    raw.make_secret(token, KEY_ID, EXTRACTABLE=True)
    assert findings(token) == [("CKA_EXTRACTABLE", Status.FAIL)]


def test_a_key_that_can_be_read(token: TokenSession) -> None:
    raw.make_secret(token, KEY_ID, SENSITIVE=False)
    found = findings(token)
    assert ("not CKA_SENSITIVE", Status.FAIL) in found
    assert ("not CKA_ALWAYS_SENSITIVE or not CKA_NEVER_EXTRACTABLE", Status.WARN) in found


def test_a_key_that_unwraps_what_it_wrapped(token: TokenSession) -> None:
    raw.make_secret(token, KEY_ID, usage=raw.CRYPT | MechanismFlag.WRAP)
    assert findings(token) == [("CKA_WRAP and CKA_DECRYPT on one key", Status.FAIL)]


def test_a_key_that_was_brought_in(token: TokenSession) -> None:
    raw.import_secret(token, KEY_ID, bytes(range(32)))
    assert findings(token) == [
        ("not CKA_ALWAYS_SENSITIVE or not CKA_NEVER_EXTRACTABLE", Status.WARN),
        ("not CKA_LOCAL", Status.WARN),
    ]


def test_a_key_that_can_be_given_more_rights(token: TokenSession) -> None:
    raw.make_secret(token, KEY_ID, MODIFIABLE=True)
    assert findings(token) == [("CKA_MODIFIABLE", Status.WARN)]


def test_a_key_without_an_id(token: TokenSession) -> None:
    raw.make_secret(token, b"")
    found = lint(token)
    assert [(f.name, f.status) for f in found] == [("key without an id (made)", Status.FAIL)]
    assert "half-made" in found[0].detail


def test_every_fault_of_every_key_is_told_apart_by_its_name(token: TokenSession) -> None:
    raw.make_secret(token, b"\x01", EXTRACTABLE=True, SENSITIVE=False, MODIFIABLE=True)
    raw.make_secret(token, b"\x02", kind=KeyType.GENERIC_SECRET, usage=MechanismFlag.SIGN)
    by_name: dict[str, list[Status]] = {}
    for finding in lint(token):
        by_name.setdefault(finding.name, []).append(finding.status)
    assert by_name == {
        "key 01 (made)": [Status.FAIL, Status.FAIL, Status.WARN],
        "key 02 (made)": [Status.OK],
    }


def test_every_failure_says_what_to_do(token: TokenSession) -> None:
    raw.make_secret(token, KEY_ID, EXTRACTABLE=True, SENSITIVE=False, MODIFIABLE=True)
    raw.make_secret(token, b"")
    assert all(finding.advice for finding in lint(token))


GOOD: dict[str, Any] = {
    "ID": b"\x01",
    "LABEL": "key",
    "SENSITIVE": True,
    "EXTRACTABLE": False,
    "ALWAYS_SENSITIVE": True,
    "NEVER_EXTRACTABLE": True,
    "LOCAL": True,
    "MODIFIABLE": False,
    "VALUE_LEN": 32,
}


@pytest.mark.parametrize("name", ["SENSITIVE", "EXTRACTABLE"])
def test_what_the_token_does_not_show_is_not_taken_for_good(name: str) -> None:
    assert [finding.status for finding in lint_key(GOOD)] == [Status.OK]
    hidden = {key: value for key, value in GOOD.items() if key != name}
    assert Status.FAIL in [finding.status for finding in lint_key(hidden)]


@pytest.mark.parametrize("name", ["ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "LOCAL"])
def test_nor_is_what_it_does_not_show_of_the_past(name: str) -> None:
    hidden = {key: value for key, value in GOOD.items() if key != name}
    assert [finding.status for finding in lint_key(hidden)] == [Status.WARN]
