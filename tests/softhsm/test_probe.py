"""What a token can do is found out by trying; the three modules differ, and nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hwkm.envelope import Scheme
from hwkm.errors import PinError, TokenError
from hwkm.token.probe import Trial, choose_scheme, probe
from tests.modules import softhsm

from . import raw
from .sites import make_site

if TYPE_CHECKING:
    from pathlib import Path

    from .sites import Site
    from .spy import Spied

SCHEMES = {"softhsm": Scheme.GCM, "p11kit": Scheme.HMAC_KDF, "tpm": Scheme.OAEP}
"""What Debian's versions of the modules lead to; p11-kit has AES-GCM from 0.25 on."""


def expected_scheme(site: Site) -> Scheme:
    return Scheme.GCM if site.token.has_gcm else SCHEMES[site.token.name]


def test_every_module_gets_the_best_scheme_that_works_on_it(any_site: Site) -> None:
    with any_site.session() as token:
        assert choose_scheme(probe(token)) is expected_scheme(any_site)


def test_the_trials_say_what_each_module_can_do(any_site: Site) -> None:
    with any_site.session() as token:
        works = {trial.name: trial.works for trial in probe(token)}
    assert works == {
        "random numbers": True,
        "AES-256-GCM with context": any_site.token.has_gcm,
        "HMAC-SHA256": any_site.token.can_generate_secret,
        "RSA-OAEP with SHA-1": True,
        "RSA-OAEP with SHA-256": any_site.token.has_oaep_sha256,
    }


def test_a_trial_that_fails_says_why_and_every_trial_how_long(any_site: Site) -> None:
    with any_site.session() as token:
        trials = probe(token)
    assert all(trial.milliseconds > 0 for trial in trials)
    for trial in trials:
        assert trial.works != ("(CKR_" in trial.detail)


def test_nothing_stays_on_the_token(any_site: Site) -> None:
    with any_site.session() as token:
        before = raw.objects(token)
        probe(token)
        assert raw.objects(token) == before
    with any_site.session() as token:
        assert raw.objects(token) == before


def test_keys_that_are_there_are_left_alone(site: Site) -> None:
    with site.session() as token:
        raw.make_secret(token, b"\x01")
        raw.make_secret(token, b"\x02", label="")
        before = raw.objects(token)
        probe(token)
        assert raw.objects(token) == before
        assert len(before) == 2


def test_a_token_that_is_opened_to_read_can_be_probed_too(site: Site) -> None:
    with site.session(writable=False) as token:
        assert choose_scheme(probe(token)) is Scheme.GCM


def test_softhsm_is_opened_again_after_each_trial_that_fails(spied: Spied) -> None:
    with spied.site.session() as token:
        probe(token)
        assert token.info.initialized
    assert spied.calls("C_Login") == 2  # RSA-OAEP with SHA-256 is all that fails


def test_a_token_that_is_not_there_is_an_error_not_a_result(site: Site) -> None:
    with site.with_uri(token="absent").session() as token, pytest.raises(TokenError):
        probe(token)
    site.put_pin("wrong")
    with site.session() as token, pytest.raises(PinError):
        probe(token)


def test_a_token_that_goes_away_meanwhile(tmp_path: Path) -> None:
    with softhsm.running(tmp_path) as token, make_site(token, tmp_path).session() as session:
        assert session.info.initialized
        (tmp_path / "tokens").rename(tmp_path / "away")
        trials = probe(session)
        (tmp_path / "away").rename(tmp_path / "tokens")
        assert not all(trial.works for trial in trials)
        assert all(trial.works for trial in probe(session)[:4])


# --- the choice ---


def tried(**works: bool) -> list[Trial]:
    names = {
        "gcm": "AES-256-GCM with context",
        "hmac": "HMAC-SHA256",
        "sha1": "RSA-OAEP with SHA-1",
        "sha256": "RSA-OAEP with SHA-256",
    }
    return [Trial(names[name], good, "", 1.0) for name, good in works.items()]


@pytest.mark.parametrize(
    ("works", "scheme"),
    [
        ({"gcm": True, "hmac": True, "sha1": True}, Scheme.GCM),
        ({"sha1": True, "hmac": True, "gcm": True}, Scheme.GCM),
        ({"gcm": False, "hmac": True, "sha1": True}, Scheme.HMAC_KDF),
        ({"gcm": False, "hmac": False, "sha1": True}, Scheme.OAEP),
        ({"gcm": False, "hmac": False, "sha1": True, "sha256": True}, Scheme.OAEP),
    ],
)
def test_the_order_of_preference(works: dict[str, bool], scheme: Scheme) -> None:
    assert choose_scheme(tried(**works)) is scheme


def test_a_card_that_only_does_oaep_with_sha256_can_be_used() -> None:
    trials = tried(gcm=False, hmac=False, sha1=False, sha256=True)
    assert choose_scheme(trials) is Scheme.OAEP


def test_no_scheme_at_all_leads_to_the_vendors_tool() -> None:
    with pytest.raises(TokenError, match="no wrapping scheme works") as caught:
        choose_scheme(tried(gcm=False, hmac=False, sha1=False, sha256=False))
    assert "--existing" in caught.value.hint
