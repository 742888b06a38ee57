"""Several tokens in one process, behind one module or several, and processes that were forked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hwkm.envelope import Scheme
from hwkm.errors import PinError, TokenError
from hwkm.token import master
from tests.modules import p11kit, softhsm

from .commands import program, run
from .sites import KEY_ID, Site, decrypt_rubbish, make_site

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.token.session import TokenSession


def second_site(site: Site, tmp_path: Path) -> Site:
    """Return another token behind the same module, of the same installation."""
    return make_site(softhsm.add_token(site.token.env, "second"), tmp_path, "second")


def other_softhsm(tmp_path: Path) -> Site:
    """Return a token of another SoftHSM: the same module with another environment."""
    folder = tmp_path / "other"
    folder.mkdir()
    with softhsm.running(folder, "other") as token:
        site = make_site(token, folder, "other")
    return site.with_access(runtime_dir=tmp_path / "run")


def serial_of(token: TokenSession) -> str:
    with token.use("reading the serial") as session:
        serial: bytes = session.token.serial
    return serial.decode()


def test_two_tokens_behind_one_module_are_open_at_once(site: Site, tmp_path: Path) -> None:
    second = second_site(site, tmp_path)
    with site.session() as one, second.session() as two:
        for _ in range(3):
            assert serial_of(one) == site.token.serial
            assert serial_of(two) == second.token.serial


def test_closing_one_of_two_leaves_the_other_logged_in(site: Site, tmp_path: Path) -> None:
    second = second_site(site, tmp_path)
    with site.session() as one:
        master.generate(one, Scheme.GCM, KEY_ID, "private")
        with second.session() as two:
            assert serial_of(two) == second.token.serial
        assert master.look_at(one, Scheme.GCM, KEY_ID).label == "private"


def test_an_error_on_one_of_two_drops_both_and_both_come_back(site: Site, tmp_path: Path) -> None:
    second = second_site(site, tmp_path)
    with site.session() as one, second.session() as two:
        master.generate(one, Scheme.GCM, KEY_ID, "private")
        assert serial_of(two) == second.token.serial
        with pytest.raises(TokenError):
            decrypt_rubbish(one)
        assert serial_of(two) == second.token.serial
        assert master.look_at(one, Scheme.GCM, KEY_ID).label == "private"


def test_a_wrong_pin_for_one_of_two_does_not_keep_the_other_away(
    site: Site, tmp_path: Path
) -> None:
    second = second_site(site, tmp_path)
    second.put_pin("wrong")
    with site.session() as one, second.session() as two:
        assert serial_of(one) == site.token.serial
        with pytest.raises(PinError, match="the PIN is wrong"):
            serial_of(two)
        assert serial_of(one) == site.token.serial


def test_one_module_with_two_environments_serves_both_in_turn(site: Site, tmp_path: Path) -> None:
    other = other_softhsm(tmp_path)
    with site.session() as one, other.session() as two:
        for _ in range(2):
            assert serial_of(one) == site.token.serial
            assert serial_of(two) == other.token.serial


def test_two_modules_are_open_at_once(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "p11kit"
    folder.mkdir()
    with p11kit.running(folder) as token:
        other = make_site(token, folder, "other").with_access(runtime_dir=tmp_path / "run")
        with site.session() as one, other.session() as two:
            for _ in range(2):
                assert serial_of(one) == site.token.serial
                assert serial_of(two) == token.serial


def test_a_failed_login_unloads_the_module_for_all_but_keeps_the_lock(
    site: Site, tmp_path: Path
) -> None:
    second = second_site(site, tmp_path)
    second.pin_file.unlink()
    with site.session() as one, second.session() as two:
        assert serial_of(one) == site.token.serial
        with pytest.raises(PinError, match="can't be read"):
            serial_of(two)
        waiting = site.with_access(lock_seconds=0).for_child()
        assert "another hwkm process" in run(*program("one_shot", waiting)).stdout
    assert run(*program("one_shot", waiting)).stdout == f"{site.token.serial}\n"


# --- fork ---


def test_a_forked_child_may_not_use_its_parents_session(any_site: Site) -> None:
    done = run(*program("forked", any_site.for_child(), "inherited"))
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "parent: 32 bytes",
        f"child: {any_site.settings.module_path} was loaded before this process was forked",
        "child ended with 0",
        "parent: 32 bytes",
    ]


def test_a_forked_child_may_not_load_what_its_parent_has_loaded(any_site: Site) -> None:
    done = run(*program("forked", any_site.for_child(), "new"))
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "parent: 32 bytes",
        f"child: {any_site.settings.module_path} was loaded before this process was forked",
        "child ended with 0",
        "parent: 32 bytes",
    ]
