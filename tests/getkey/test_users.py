"""Root and the installation's owner take turns, and neither leaves files the other can't use."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess

import pytest

from . import process
from .home import VOLUME, Home
from .process import ME, User


def users() -> list[User]:
    return [ME, User.named("nobody")]


@pytest.fixture(params=["root first", "owner first"])
def turns(request: pytest.FixtureRequest) -> list[User]:
    return users() if request.param == "root first" else users()[::-1]


def test_both_users_in_turn(owned: Home, turns: list[User]) -> None:
    for user in (*turns, *turns):
        labelled = owned.getkey("LABEL", user=user)
        other = next(one for one in turns if one is not user)
        assert owned.getkey("READ", VOLUME, labelled.given.wrapped, user=other).out == labelled.out
        assert owned.owners() == {owned.user.uid}


def test_what_either_user_makes_is_the_owners(owned: Home, turns: list[User]) -> None:
    """Log, lock, memory of PINs, and the keystore made again from a label."""
    wrapped = owned.getkey().given.wrapped
    for user in turns:
        owned.log_file.unlink()
        shutil.rmtree(owned.path / "run")
        (owned.path / "run").mkdir(mode=0o700)
        os.chown(owned.path / "run", owned.user.uid, owned.user.gid)
        (owned.path / "keystore.db").unlink()
        assert owned.getkey("READ", VOLUME, wrapped, user=user).reply is not None
        assert owned.owners() == {owned.user.uid}
        modes = {stat.S_IMODE(file.stat().st_mode) for file in owned.path.rglob("*")}
        assert not [f"{mode:o}" for mode in modes if mode & 0o077]


def test_failures_of_root_leave_nothing_either(owned: Home) -> None:
    (owned.path / "user-pin").write_text("wrong-pin\n")
    assert "the PIN is wrong" in owned.getkey(user=ME).error
    assert owned.owners() == {owned.user.uid}
    assert "not tried again" in owned.getkey().error


def test_every_command_of_root_leaves_the_owners_files(owned: Home) -> None:
    for words in (("check",), ("volume", "check"), ("master", "check"), ("token", "probe")):
        run = owned.hwkm(*words, user=ME)
        assert run.status in (0, 1), run
        assert owned.owners() == {owned.user.uid}
    assert owned.getkey().reply is not None


def test_who_asked_is_recorded(owned: Home) -> None:
    owned.getkey("LABEL")
    owned.getkey("LABEL", user=ME)
    assert {row[0] for row in owned.query("SELECT who FROM event WHERE operation = 'label'")} == {
        "nobody"
    }


def test_another_users_runtime_directory(owned: Home) -> None:
    daemon = User.named("daemon")
    os.chown(owned.path / "run", daemon.uid, daemon.gid)
    assert "can't be opened: Permission denied" in owned.getkey().error
    assert "can't be opened" in owned.log[-1]


def test_root_becomes_the_runtime_directorys_owner_and_nobody_else(owned: Home) -> None:
    daemon = User.named("daemon")
    os.chown(owned.path / "run", daemon.uid, daemon.gid)
    answer = owned.getkey(user=ME)
    assert answer.reply is None
    assert owned.owners() == {owned.user.uid, daemon.uid}


def test_an_owner_who_is_no_user(owned: Home) -> None:
    os.chown(owned.path / "run", 4_000_000, 4_000_000)
    assert "there is no user with id 4000000" in owned.getkey(user=ME).error


@pytest.mark.parametrize("name", ["config.toml", "user-pin", "keystore.db"])
def test_files_of_root_that_the_owner_can_not_read(owned: Home, name: str) -> None:
    os.chown(owned.path / name, 0, 0)
    answer = owned.getkey()
    assert answer.reply is None
    words = {"config.toml": "can't be read", "user-pin": "can't be read", "keystore.db": "keystore"}
    assert words[name] in answer.error


def test_a_keystore_that_can_only_be_read(owned: Home) -> None:
    (owned.path / "keystore.db").chmod(0o400)
    for operation in ("READ", "LABEL"):
        answer = owned.getkey(operation)
        assert "readonly" in answer.error
        assert "Its file and folder must belong to the user" in owned.log[-1]
    for file in owned.path.glob("keystore.db*"):  # SQLite gives its other files the same mode
        file.chmod(0o600)
    assert owned.getkey().reply is not None


def test_a_folder_that_can_only_be_read(owned: Home) -> None:
    owned.path.chmod(0o500)
    try:
        assert owned.getkey().reply is None
        assert "keystore" in owned.log[-1]
    finally:
        owned.path.chmod(0o700)
    assert owned.getkey().reply is not None


def test_a_stranger_gets_nothing(owned: Home) -> None:
    daemon = User.named("daemon")
    assert "can't be read: " in owned.getkey(user=daemon).error


def test_a_log_of_root_does_not_keep_keys_back(owned: Home) -> None:
    os.chown(owned.log_file, 0, 0)
    owned.log_file.chmod(0o600)
    before = owned.log
    assert owned.getkey().reply is not None
    assert owned.log == before


def test_the_groups_of_root_are_given_up(owned: Home) -> None:
    """What root leaves to a child is the owner's identity only."""
    script = (
        "import os, pathlib, sys; from hwkm.privileges import become_owner_of; "
        "become_owner_of(pathlib.Path(sys.argv[1])); "
        "print(os.getresuid(), os.getresgid(), os.getgroups())"
    )
    found = process.command()
    words = [found.interpreter, "-c", script, str(owned.path / "run")]
    out = subprocess.run(words, env=found.env, capture_output=True, text=True, check=True).stdout
    uid, gid = owned.user.uid, owned.user.gid
    assert out == f"{(uid,) * 3} {(gid,) * 3} [{gid}]\n"
