"""``hwkm token change-pin``: the token and the PIN file agree, also after a killed run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hwkm.envelope import Scheme
from hwkm.errors import ConfigError, PinError, TokenError
from hwkm.keys import SecretBytes
from hwkm.token import master
from hwkm.token.change_pin import change_pin_file, generate_pin
from tests.modules import softhsm, tpm

from .commands import program, run
from .interrupt import CHANGES, kill, trace
from .sites import KEY_ID, Site, login, make_site

if TYPE_CHECKING:
    from pathlib import Path

    from .spy import Spied

NEW = "a new PIN"


def change(site: Site, new: str = NEW) -> None:
    assert change_pin_file(site.settings, site.access, SecretBytes(new.encode())) == site.pin_file


def takes(site: Site, pin: str, folder: Path) -> bool:
    """Return whether the token takes ``pin``; nothing of this is remembered at the site."""
    folder.mkdir()
    other = make_site(replace(site.token, user_pin=pin), folder)
    try:
        login(other)
    except PinError:
        return False
    return True


def files(site: Site) -> list[str]:
    return sorted(path.name for path in site.pin_file.parent.glob("main-pin*"))


# --- changed ---


def test_the_token_takes_the_new_pin_and_not_the_old(site: Site, tmp_path: Path) -> None:
    change(site)
    assert site.pin_file.read_text() == f"{NEW}\n"
    assert site.pin_file.stat().st_mode & 0o777 == 0o600
    assert files(site) == ["main-pin"]
    login(site)
    assert not takes(site, site.token.user_pin, tmp_path / "old")


def test_keys_stay_usable(site: Site) -> None:
    with site.session() as token:
        master.generate(token, Scheme.GCM, KEY_ID, "key")
    change(site)
    with site.session() as token:
        assert master.look_at(token, Scheme.GCM, KEY_ID).label == "key"


def test_a_tpm_changes_its_pin_too(tmp_path: Path) -> None:
    with tpm.running(tmp_path) as token:
        site = make_site(token, tmp_path)
        change(site, "another")
        login(site)
        assert not takes(site, token.user_pin, tmp_path / "old")


def test_again_and_back_again(site: Site) -> None:
    for pin in (NEW, site.token.user_pin, "pässwörd", NEW):
        change(site, pin)
        login(site)


def test_generated_pins_differ_and_are_long() -> None:
    pins = {generate_pin().expose() for _ in range(50)}
    assert len(pins) == 50
    assert {len(pin) for pin in pins} == {20}


# --- not changed ---


def test_a_wrong_old_pin_changes_nothing_and_is_tried_once(spied: Spied) -> None:
    spied.site.put_pin("wrong")
    for words in ("the PIN is wrong", "refused this very PIN before"):
        with pytest.raises(PinError, match=words) as caught:
            change(spied.site)
        assert caught.value.exit_code == 4
        assert spied.site.pin_file.read_text() == "wrong"
    assert spied.calls("C_Login") == 1
    assert spied.calls("C_SetPIN") == 0
    spied.site.put_pin(spied.site.token.user_pin)
    change(spied.site)
    login(spied.site)


@pytest.mark.parametrize("new", ["123", "x" * 256])
def test_a_new_pin_that_the_token_refuses_changes_nothing(site: Site, new: str) -> None:
    with pytest.raises(PinError):
        change(site, new)
    assert site.pin_file.read_text().strip() == site.token.user_pin
    assert files(site) == ["main-pin"]
    login(site)


@pytest.mark.parametrize("source", ["prompt", "fd:7", "credential:pin", "protected"])
def test_a_pin_that_does_not_come_from_a_file(site: Site, source: str) -> None:
    with pytest.raises(ConfigError, match="does not come from a file"):
        change(site.with_uri(pin_source=source))
    login(site)


def test_a_token_that_is_away_changes_nothing(site: Site, tmp_path: Path) -> None:
    (tmp_path / "tokens").rename(tmp_path / "away")
    with pytest.raises(TokenError):
        change(site)
    (tmp_path / "away").rename(tmp_path / "tokens")
    assert site.pin_file.read_text().strip() == site.token.user_pin
    login(site)
    change(site)
    assert files(site) == ["main-pin"]
    login(site)


# --- killed ---


def killed_sites(tmp_path: Path) -> list[Site]:
    """Kill a change of the PIN at each change of a file; return the sites as they were left."""
    sites = []
    with_all = CHANGES + ",rename,renameat,renameat2,openat"
    for point in trace(command(new_site(tmp_path / "whole")), with_all):
        if point.call == "openat" and "-pin" not in point.line:
            continue
        site = new_site(tmp_path / str(point))
        kill(command(site), point)
        sites.append(site)
    return sites


def new_site(folder: Path) -> Site:
    folder.mkdir()
    with softhsm.running(folder) as token:
        return make_site(token, folder)


def command(site: Site) -> tuple[str, ...]:
    return program("change_pin", site.for_child(), NEW)


def test_killed_anywhere_the_next_run_ends_with_token_and_file_agreeing(tmp_path: Path) -> None:
    left_over = 0
    for site in killed_sites(tmp_path):
        left_over += files(site) != ["main-pin"]
        change(site, "the newest PIN")
        assert files(site) == ["main-pin"]
        assert site.pin_file.read_text() == "the newest PIN\n"
        login(site)
    assert left_over > 3


@pytest.fixture
def half_changed(tmp_path: Path) -> Site:
    """A site whose token has the new PIN already, and whose file has not."""
    points = trace(command(new_site(tmp_path / "whole")), "rename")
    site = new_site(tmp_path / "half")
    kill(command(site), points[-1])
    assert files(site) == ["main-pin", "main-pin.new"]
    assert takes(site, NEW, tmp_path / "new")
    return site


def test_the_next_run_finds_out_that_the_token_has_the_new_pin(half_changed: Site) -> None:
    change(half_changed, "the newest PIN")
    assert files(half_changed) == ["main-pin"]
    login(half_changed)


def test_it_does_so_too_after_a_job_has_tried_the_old_pin(half_changed: Site) -> None:
    with pytest.raises(PinError, match="the PIN is wrong"):
        login(half_changed)
    change(half_changed, "the newest PIN")
    assert files(half_changed) == ["main-pin"]
    login(half_changed)


def test_where_the_token_takes_neither_nothing_is_lost(half_changed: Site) -> None:
    pending = half_changed.pin_file.with_name("main-pin.new")
    half_changed.put_pin("neither")
    pending.write_text("nor")
    with pytest.raises(PinError):
        change(half_changed, "the newest PIN")
    assert half_changed.pin_file.read_text() == "neither"
    assert pending.read_text() == "nor"


def test_the_command_that_was_killed_is_this_one(tmp_path: Path) -> None:
    site = new_site(tmp_path / "site")
    assert run(*command(site)).stdout == "changed\n"
    login(site)


# --- two at once ---


def test_of_two_at_once_the_file_has_the_tokens_pin(site: Site) -> None:
    def change_elsewhere(pin: str) -> None:
        assert run(*program("change_pin", site.for_child(), pin)).stdout == "changed\n"

    for _ in range(3):
        pins = [generate_pin().expose().decode() for _ in range(2)]
        with ThreadPoolExecutor() as both:
            list(both.map(change_elsewhere, pins))
        assert site.pin_file.read_text().strip() in pins
        assert files(site) == ["main-pin"]
        login(site)


def test_a_refused_change_leaves_no_pin_behind_that_would_be_tried(site: Site) -> None:
    site.put_pin("4711-secret")
    for words in ("the PIN is wrong", "refused this very PIN before"):
        with pytest.raises(PinError, match=words):
            change(site)
        assert files(site) == ["main-pin"]
