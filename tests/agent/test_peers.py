"""Who is at the other end, and what the configuration lets them ask for."""

from __future__ import annotations

import grp
import os
import pwd
import socket
from typing import TYPE_CHECKING

import pytest

from hwkm import config as configuration
from hwkm.agent.frames import GETKEY, RELEASE, STATUS
from hwkm.agent.peers import Admitted, AllowList, Peer, gid_of, look_up, peer_of
from hwkm.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.config import Config

NOBODY = pwd.getpwnam("nobody")
TOKEN = '[token.main]\nuri = "pkcs11:token=a?module-path=/lib/module.so"\n'
NAMELESS = 3_999_999_999


def peer(uid: int, gid: int = NAMELESS) -> Peer:
    """Return a peer as it is when the user database was asked."""
    person = look_up(uid)
    return Peer(uid, gid, 1, person.name, person.groups | {gid})


def config(tmp_path: Path, agent: str = "") -> Config:
    top = f'keystore = "sqlite:////x.db"\nruntime_dir = "{tmp_path}"\n'
    return configuration.parse(f"{top}{TOKEN}[agent]\n{agent}", tmp_path / "config.toml")


def someone_in_a_group() -> tuple[str, str]:
    """Return a user and a group other than its first that it is in."""
    for group in grp.getgrall():
        for user in group.gr_mem:
            try:
                found = pwd.getpwnam(user)
            except KeyError:
                continue
            if found.pw_gid != group.gr_gid:
                return user, group.gr_name
    pytest.skip("no user here is in a second group")


def test_the_kernel_says_who_connected() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        found = peer_of(ours)
    uid, groups = os.geteuid(), frozenset({os.getegid(), *os.getgroups()})
    assert found == Peer(uid, os.getegid(), os.getpid(), str(uid), groups)
    assert str(found) == f"{uid} (uid {uid}, process {os.getpid()})"


def test_a_user_without_a_name_is_a_number() -> None:
    found = peer(NAMELESS, 4711)
    assert found.user == str(NAMELESS)
    assert found.groups == {4711}


def test_users_and_groups_are_looked_up() -> None:
    group = grp.getgrgid(NOBODY.pw_gid).gr_name
    found = Admitted.parse("getkey", ["root", "nobody", f"@{group}"])
    assert found == Admitted(frozenset({0, NOBODY.pw_uid}), frozenset({NOBODY.pw_gid}))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no-such-user", "agent.admin names the unknown user 'no-such-user'"),
        ("@no-such-group", "agent.admin names the unknown group 'no-such-group'"),
        ("0", "the unknown user '0'"),
        ("a\0b", "the unknown user"),
        ("@a\0b", "the unknown group"),
    ],
)
def test_unknown_names_are_found_at_the_start(tmp_path: Path, name: str, words: str) -> None:
    escaped = name.replace("\0", "\\u0000")
    with pytest.raises(ConfigError, match=words) as caught:
        AllowList.from_config(config(tmp_path, f'admin = ["root", "{escaped}"]\n'))
    assert caught.value.hint


def test_the_default_is_root_and_the_owner(tmp_path: Path) -> None:
    everyone = AllowList.from_config(config(tmp_path))
    for verb in (GETKEY, STATUS, RELEASE):
        assert everyone.admits(peer(0), verb)
        assert everyone.admits(peer(os.geteuid()), verb)
        assert not everyone.admits(peer(NOBODY.pw_uid, 0), verb)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_owner_is_that_of_the_runtime_directory(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY.pw_uid, 0)
    assert AllowList.from_config(config(tmp_path)).admits(peer(NOBODY.pw_uid), GETKEY)


def test_a_runtime_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="runtime directory") as caught:
        AllowList.from_config(config(tmp_path / "absent"))
    assert caught.value.hint


def test_each_verb_has_its_list(tmp_path: Path) -> None:
    lists = 'getkey = ["nobody"]\nadmin = ["daemon"]\n'
    allowed = AllowList.from_config(config(tmp_path, lists))
    daemon = pwd.getpwnam("daemon").pw_uid
    assert allowed.admits(peer(NOBODY.pw_uid), GETKEY)
    assert not allowed.admits(peer(daemon), GETKEY)
    for verb in (STATUS, RELEASE, b"", b"\xff", b"getkey\0", b"GETKEY"):
        assert allowed.admits(peer(daemon), verb)
        assert not allowed.admits(peer(NOBODY.pw_uid), verb)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_root_and_the_owner_are_always_admitted(tmp_path: Path) -> None:
    """Root's bls, bextract and bcopy need keys as well."""
    os.chown(tmp_path, NOBODY.pw_uid, 0)
    lists = 'getkey = ["daemon"]\nadmin = ["daemon"]\n'
    allowed = AllowList.from_config(config(tmp_path, lists))
    for uid in (0, NOBODY.pw_uid):
        assert allowed.admits(peer(uid), GETKEY)
        assert allowed.admits(peer(uid), STATUS)


def test_members_of_a_group(tmp_path: Path) -> None:
    user, group = someone_in_a_group()
    found = pwd.getpwnam(user)
    allowed = AllowList.from_config(config(tmp_path, f'getkey = ["@{group}"]\n'))
    assert allowed.admits(peer(found.pw_uid, found.pw_gid), GETKEY)
    assert not allowed.admits(peer(NAMELESS), GETKEY)


def test_a_process_that_runs_in_a_group(tmp_path: Path) -> None:
    """As the Storage Daemon does in group tape, by its unit and not by /etc/group."""
    group = grp.getgrgid(NOBODY.pw_gid)
    allowed = AllowList.from_config(config(tmp_path, f'getkey = ["@{group.gr_name}"]\n'))
    assert allowed.admits(peer(NAMELESS, group.gr_gid), GETKEY)
    assert not allowed.admits(peer(NAMELESS, NAMELESS), GETKEY)


def test_a_group_by_its_name() -> None:
    assert gid_of("group", grp.getgrgid(0).gr_name) == 0
    with pytest.raises(ConfigError, match=r"agent\.group names the unknown group"):
        gid_of("group", "no-such-group")
