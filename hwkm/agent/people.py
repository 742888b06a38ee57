"""Who is who: the user database, asked in processes of its own and remembered for a while.

It may be behind a network (LDAP), and a lookup can take minutes. The agent's first process must not
wait for one, and can't leave it to a thread, because it forks.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hwkm.agent import children, listening
from hwkm.agent.peers import Admitted, AllowList, Person, look_up
from hwkm.errors import ConfigError, HwkmError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from hwkm.agent.peers import Peer
    from hwkm.config import Config
    from hwkm.log import Log

KNOWN_SECONDS = 300.0
"""How long it is remembered what the database said of a user."""
UNKNOWN_SECONDS = 30.0
"""How long nobody is asked again after there was no answer."""
WAIT_SECONDS = 2.0
"""How long a request waits for it; then the user is a number, in the groups the kernel says."""
LONGEST_SECONDS = 20.0
"""How long a lookup may take before it is given up."""
REMEMBERED = 256
AT_ONCE = 8
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Names:
    """What the names in a configuration stand for."""

    allowed: AllowList
    socket_group: int | None


def names_of(config: Config) -> Names:
    """Look up all names in ``[agent]``.

    :raises ConfigError: if one is unknown.
    """
    return Names(AllowList.from_config(config), listening.group_of(config.agent))


async def look_up_names(config: Config, log: Log) -> Names:
    """Return :func:`names_of`, without holding anybody up.

    :raises ConfigError: if one is unknown, or there is no answer in time.
    :raises OSError: if there can't be another process.
    """
    found = await _in_child(lambda: _packed(names_of(config)), log)
    if found is None:
        raise ConfigError(
            "the names of users and groups in [agent] can't be looked up in time",
            hint="See whether the user database (LDAP, SSSD) answers: getent passwd",
        )
    return Names(
        AllowList(_admitted(found["getkey"]), _admitted(found["admin"])), found["socket_group"]
    )


def _packed(names: Names) -> dict[str, Any]:
    lists = {"getkey": names.allowed.getkey, "admin": names.allowed.admin}
    numbers = {key: [sorted(one.uids), sorted(one.gids)] for key, one in lists.items()}
    return {**numbers, "socket_group": names.socket_group}


def _admitted(numbers: list[list[int]]) -> Admitted:
    uids, gids = map(frozenset, numbers)
    return Admitted(uids, gids)


class People:
    """What is known of the users who ask."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: dict[int, tuple[float, Person]] = {}
        self._asking: dict[int, asyncio.Task[Person]] = {}

    def forget(self) -> None:
        """Ask anew about everybody."""
        self._known.clear()

    async def known(self, peer: Peer) -> Peer:
        """Return ``peer`` with its name, and the groups that the database says as well.

        Never raises, and waits for two seconds at most.
        """
        until, person = self._known.get(peer.uid, (0.0, Person("")))
        if time.monotonic() >= until:
            person = await self._ask(peer.uid)
        return replace(peer, user=person.name, groups=peer.groups | person.groups)

    async def _ask(self, uid: int) -> Person:
        asking = self._asking.get(uid)
        if asking is None:
            if len(self._asking) >= AT_ONCE:
                return Person(str(uid))
            asking = self._asking[uid] = asyncio.create_task(self._find(uid))
        await asyncio.wait([asking], timeout=WAIT_SECONDS)
        return asking.result() if asking.done() else Person(str(uid))

    async def _find(self, uid: int) -> Person:
        try:
            found = await _in_child(lambda: _packed_person(look_up(uid)), self._log)
        except (HwkmError, OSError) as error:
            self._log.error(f"user {uid} can't be looked up: {error}")
            found = None
        finally:
            del self._asking[uid]
        person, seconds = Person(str(uid)), UNKNOWN_SECONDS
        if found is None:
            self._log.warning(f"who user {uid} is could not be looked up in time")
        else:
            person, seconds = Person(found[0], frozenset(found[1])), KNOWN_SECONDS
        self._remember(uid, seconds, person)
        return person

    def _remember(self, uid: int, seconds: float, person: Person) -> None:
        self._known.pop(uid, None)
        while len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[uid] = time.monotonic() + seconds, person


def _packed_person(person: Person) -> list[Any]:
    return [person.name, sorted(person.groups)]


async def _in_child(work: Callable[[], Any], log: Log) -> Any:
    """Return what ``work`` returns in a new process, as JSON has it; None if it takes too long.

    :raises ConfigError: if it raises one.
    :raises OSError: if there can't be another process.
    """
    child = children.fork(lambda link: _send(link, work), log)
    end = children.see_to(child)
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            found = json.loads(await _receive(child.link) or b"null")
    except TimeoutError:
        return None
    finally:
        child.link.close()
        child.kill()
        await asyncio.wait([end], timeout=WAIT_SECONDS)
    if isinstance(found, dict) and "error" in found:
        raise ConfigError(found["error"], hint=found["hint"])
    return found


def _send(link: socket.socket, work: Callable[[], Any]) -> None:
    try:
        found = work()
    except ConfigError as error:
        found = {"error": str(error), "hint": error.hint}
    link.sendall(json.dumps(found).encode())


async def _receive(link: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    link.setblocking(False)
    parts = []
    while part := await loop.sock_recv(link, _CHUNK):
        parts.append(part)
    return b"".join(parts)
