"""Who is at the other end of the socket, as the kernel says, and what they may ask for.

:func:`peer_of` asks the kernel alone. Whatever asks the user database, which may be far away and
slow, is for other processes than the one that serves everybody: see :mod:`hwkm.agent.people`.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.agent.frames import CHANGER, GETKEY
from hwkm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hwkm.config import Config

ROOT = 0
_UCRED = struct.Struct("=iII")
_SO_PEERGROUPS = 59  # from <asm-generic/socket.h>
_GID = struct.Struct("=I")
_MOST_GROUPS = 1024 // _GID.size
"""Python takes no more from getsockopt(2)."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A client's process as it was when it connected; ``user`` may be its number."""

    uid: int
    gid: int
    pid: int
    user: str
    groups: frozenset[int] = frozenset()

    def __str__(self) -> str:
        return f"{self.user} (uid {self.uid}, process {self.pid})"


def peer_of(connection: socket.socket) -> Peer:
    """Return who connected, and in which groups that process runs; nothing is looked up.

    :raises OSError: if the kernel does not say.
    """
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(credentials)
    return Peer(uid, gid, pid, str(uid), frozenset({gid, *_groups(connection)}))


def _groups(connection: socket.socket) -> frozenset[int]:
    """Return the supplementary groups; none for a process that is in very many."""
    size = _MOST_GROUPS * _GID.size
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, size)
    except OSError:
        return frozenset()
    return frozenset(gid for (gid,) in _GID.iter_unpack(found))


@dataclass(frozen=True, slots=True)
class Person:
    """What the user database says of a user: the name, or the number, and all groups."""

    name: str
    groups: frozenset[int] = frozenset()


def look_up(uid: int) -> Person:
    """Ask the user database, which can take its time."""
    try:
        # The groups not by a name from elsewhere: a number can be a name, too.
        found = pwd.getpwuid(uid)
        return Person(found.pw_name, frozenset(os.getgrouplist(found.pw_name, found.pw_gid)))
    except (KeyError, OSError):
        return Person(str(uid))


@dataclass(frozen=True, slots=True)
class Admitted:
    """Users and groups, by number."""

    uids: frozenset[int]
    gids: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, key: str, names: Iterable[str]) -> Admitted:
        """Look names up; those that begin with ``@`` are groups'.

        :param key: where in ``[agent]`` they stand.
        :raises ConfigError: if one is unknown here.
        """
        words = tuple(names)
        users = (word for word in words if not word.startswith("@"))
        groups = (word[1:] for word in words if word.startswith("@"))
        return cls(
            frozenset(_uid(key, name) for name in users),
            frozenset(gid_of(key, name) for name in groups),
        )

    def with_users(self, uids: frozenset[int]) -> Admitted:
        """Return these and some users more."""
        return Admitted(self.uids | uids, self.gids)

    def has(self, peer: Peer) -> bool:
        """Return whether ``peer`` is one of these."""
        if peer.uid in self.uids:
            return True
        return peer.gid in self.gids or not self.gids.isdisjoint(peer.groups)


@dataclass(frozen=True, slots=True)
class AllowList:
    """Who may ask for keys, and who may ask for everything else.

    Root and the owner of the runtime directory always may: they can read the PIN, too.
    """

    getkey: Admitted
    admin: Admitted

    @classmethod
    def from_config(cls, config: Config) -> AllowList:
        """Return the list that ``[agent]`` says, with root and the owner.

        :raises ConfigError: if a name is unknown, or the directory is not there.
        """
        always = frozenset({ROOT, _owner(config)})
        getkey = Admitted.parse("getkey", config.agent.getkey)
        admin = Admitted.parse("admin", config.agent.admin)
        return cls(getkey.with_users(always), admin.with_users(always))

    def admits(self, peer: Peer, verb: bytes) -> bool:
        """Return whether ``peer`` may ask for ``verb``, which may be anything."""
        return (self.getkey if verb in (GETKEY, CHANGER) else self.admin).has(peer)


def gid_of(key: str, name: str) -> int:
    """Return the number of the group that the key ``key`` of ``[agent]`` names.

    :raises ConfigError: if there is none.
    """
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        hint = "Make it with groupadd, or correct the name"
        raise ConfigError(f"agent.{key} names the unknown group {name!r}", hint=hint) from None


def _uid(key: str, name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        hint = f'Make the user, or correct the name; a group is written "@{name}"'
        raise ConfigError(f"agent.{key} names the unknown user {name!r}", hint=hint) from None


def _owner(config: Config) -> int:
    try:
        return config.runtime_dir.stat().st_uid
    except OSError as error:
        raise ConfigError(
            f"the runtime directory {config.runtime_dir} can't be used: {error.strerror}",
            hint="Make it, and give it to the user that hwkm runs as",
        ) from error
