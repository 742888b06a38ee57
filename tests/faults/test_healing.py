"""A token that is lost and comes back: without a restart, not too often, no PIN tried twice."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from hwkm.errors import PinError, TokenError
from hwkm.token.pace import TokenUnavailableError
from hwkm.token.pin_guard import RefusedBeforeError
from hwkm.token.session import TokenSession
from tests.modules import softhsm

from .faulty import CODES, Until
from .site import OLD, Site, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.getkey.home import Home

# python-pkcs11 says on standard error that it could not end a search that never began.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

RELOAD_SECONDS = 30
DEVICE_ERROR = CODES["CKR_DEVICE_ERROR"]
LOST = CODES["CKR_SESSION_HANDLE_INVALID"]
PIN_CODES = {
    "CKR_PIN_INCORRECT": 0xA0,
    "CKR_PIN_INVALID": 0xA1,
    "CKR_PIN_LEN_RANGE": 0xA2,
    "CKR_PIN_LOCKED": 0xA4,
}


@dataclass(slots=True)
class Clock:
    """A clock that is put forward by hand."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def paced(home: Home, clock: Clock) -> Iterator[Site]:
    """An installation that opens a failing token once in 30 seconds, as the agent does."""
    with opened(home.config, RELOAD_SECONDS, clock) as site:
        yield site


def loads(site: Site) -> int:
    return site.faulty.calls("C_Initialize")


def logins(site: Site) -> int:
    return site.faulty.calls("C_Login")


# --- what is lost while nobody asks ---


def test_a_session_lost_while_idle_costs_no_label_and_no_read(paced: Site, clock: Clock) -> None:
    paced.label(OLD)
    for number, ask in enumerate((paced.label, paced.read)):
        clock.now += RELOAD_SECONDS
        before = logins(paced)
        paced.faulty.fail(LOST, until=Until.RELOADED)
        ask(OLD)
        assert logins(paced) == before + 1, number


def test_a_session_in_use_is_not_looked_after(paced: Site, clock: Clock) -> None:
    paced.label(OLD)
    before = paced.faulty.calls("C_GenerateRandom")
    for _ in range(5):
        paced.read(OLD)
    assert paced.faulty.calls("C_GenerateRandom") == before
    clock.now += 1
    paced.read(OLD)
    assert paced.faulty.calls("C_GenerateRandom") == before + 1


def log_out(site: Site) -> None:
    """Take the login away, not the session: some modules do that after a while."""
    with site.tokens.session().use("logging out") as session:
        library = ctypes.CDLL(softhsm.MODULE)  # the one that is loaded already
        handle = cast("Any", session).handle
        assert library.C_Logout(ctypes.c_ulong(handle)) == 0


def test_a_login_that_was_lost_does_not_look_like_a_token_without_the_key(site: Site) -> None:
    old = site.label(OLD)
    log_out(site)
    assert site.read(OLD, old.envelope.encode()).key == old.key
    log_out(site)
    new = site.label(OLD)
    log_out(site)
    assert site.read(OLD).key == new.key


def test_a_token_without_random_numbers_goes_on_being_read(paced: Site, clock: Clock) -> None:
    old = paced.label(OLD)
    paced.faulty.fail(DEVICE_ERROR, 1, "C_GenerateRandom")
    before = logins(paced)
    for _ in range(10):
        clock.now += 2
        assert paced.read(OLD).key == old.key
    assert logins(paced) == before + 1


# --- how often ---


def test_a_token_that_stays_away_is_tried_once_in_thirty_seconds(
    paced: Site, home: Home, clock: Clock
) -> None:
    old = paced.label(OLD)
    paced.faulty.fail(DEVICE_ERROR)
    before = loads(paced)
    with pytest.raises(TokenError, match="CKR_DEVICE_ERROR"):
        paced.read(OLD)
    assert loads(paced) == before + 1
    clock.now += 10.0
    again = r"^token 'main' was lost 10 s ago \(.*CKR_DEVICE_ERROR.*\); it is tried again in 20 s$"
    for ask in (paced.read, paced.label):
        with pytest.raises(TokenUnavailableError, match=again):
            ask(OLD)
    paced.faulty.heal()
    clock.now += 19.5
    with (
        opened(home.config, RELOAD_SECONDS, clock) as other,
        pytest.raises(TokenUnavailableError, match=r"lost 30 s ago .* tried again in 1 s"),
    ):
        other.read(OLD)
    assert loads(paced) == before + 1
    clock.now += 0.5
    assert paced.read(OLD).key == old.key


def test_a_release_is_no_way_around(paced: Site, clock: Clock) -> None:
    paced.label(OLD)
    paced.faulty.fail(DEVICE_ERROR)
    for _ in range(2):
        with pytest.raises(TokenError):
            paced.read(OLD)
    paced.tokens.release()
    paced.faulty.heal()
    with pytest.raises(TokenUnavailableError):
        paced.read(OLD)


def test_after_a_release_a_token_that_works_is_opened_at_once(paced: Site) -> None:
    old = paced.label(OLD)
    for _ in range(3):
        paced.tokens.release()
        assert paced.read(OLD).key == old.key


def test_what_passes_twice_in_thirty_seconds_is_refused_the_second_time(
    paced: Site, clock: Clock
) -> None:
    """Who hammers on a sick token helps nobody; who asks after that is served again."""
    old = paced.label(OLD)
    paced.faulty.fail(LOST, until=Until.RELOADED)
    assert paced.read(OLD).key == old.key
    paced.faulty.fail(LOST, until=Until.RELOADED)
    with pytest.raises(TokenUnavailableError, match=r"CKR_SESSION_HANDLE_INVALID.* again in 30 s"):
        paced.read(OLD)
    clock.now += RELOAD_SECONDS
    assert paced.read(OLD).key == old.key


def test_a_process_for_one_request_does_not_wait(site: Site) -> None:
    old = site.label(OLD)
    for _ in range(3):
        site.faulty.fail(LOST, until=Until.RELOADED)
        assert site.read(OLD).key == old.key


# --- whose fault it is ---


def test_bad_labels_cost_no_login_and_nobody_elses_key(paced: Site) -> None:
    old = paced.label(OLD)
    envelope = old.envelope
    stanza = envelope.stanzas[0]
    blob = stanza.blob[:-1] + bytes([stanza.blob[-1] ^ 1])
    bad = replace(envelope, stanzas=(replace(stanza, blob=blob),)).encode()
    before = paced.faulty.logins()
    for _ in range(20):
        with pytest.raises(Exception, match="does not open"):
            paced.open_alone(bad)
        assert paced.read(OLD, bad).key == old.key  # by the keystore's envelope
        assert paced.read(OLD).key == old.key
    assert paced.faulty.logins() == before


# --- PINs ---


def pin_of(home: Home) -> str:
    return (home.path / "user-pin").read_text().strip()


@pytest.mark.parametrize("code", PIN_CODES)
def test_a_refused_pin_is_never_given_again(site: Site, home: Home, code: str) -> None:
    old = site.label(OLD)
    site.tokens.release()
    right = pin_of(home)
    before = site.faulty.logins()[right]
    site.faulty.fail(PIN_CODES[code], 1, "C_Login", until=Until.ONCE)
    for kind in (PinError, RefusedBeforeError, RefusedBeforeError):
        with pytest.raises(kind):
            site.read(OLD, old.envelope.encode())
        with pytest.raises(RefusedBeforeError):
            site.label(OLD)
    assert site.faulty.logins()[right] == before + 1
    (home.path / "user-pin").write_text("another")
    for _ in range(3):
        with pytest.raises(PinError):
            site.read(OLD)
    assert site.faulty.logins() == {right: before + 1, "another": 1}


def test_a_pin_refused_when_a_lost_token_is_opened_again_is_not_given_again(
    paced: Site, home: Home
) -> None:
    old = paced.label(OLD)
    right = pin_of(home)
    (home.path / "user-pin").write_text("wrong")
    paced.faulty.fail(LOST, until=Until.RELOADED)
    for _ in range(3):
        with pytest.raises(PinError):
            paced.read(OLD)
    assert paced.faulty.logins()["wrong"] == 1
    (home.path / "user-pin").write_text(right)
    assert paced.read(OLD).key == old.key  # the token is well: nobody waits for it


def test_a_pin_that_can_be_read_only_once_survives_a_token_that_is_away(
    site: Site, home: Home
) -> None:
    settings = site.tokens.session().settings
    read, write = os.pipe()
    os.write(write, pin_of(home).encode())
    os.close(write)
    uri = replace(settings.uri, pin_source=f"fd:{read}")
    access = site.tokens.session()._access
    with TokenSession(replace(settings, uri=uri), access) as token:
        site.faulty.fail(DEVICE_ERROR, 1, "C_Login")
        for _ in range(2):
            with pytest.raises(TokenUnavailableError, match="CKR_DEVICE_ERROR"):
                _ = token.info
        site.faulty.heal()
        assert token.info.initialized
