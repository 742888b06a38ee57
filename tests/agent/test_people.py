"""A user database that does not answer: nobody else has to wait for it."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hwkm.agent import people
from hwkm.agent.peers import Peer, Person
from hwkm.agent.people import People
from hwkm.log import Log
from tests.getkey import process, shim
from tests.getkey.home import VOLUME
from tests.getkey.process import User
from tests.getkey.replies import read_reply

from . import raw

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.getkey.home import Home

    from .agents import Agent

NAMELESS = 3_999_999_999
ME = pwd.getpwuid(os.geteuid())
IN_A_NAMESPACE = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount --bind "$NSSWITCH" /etc/nsswitch.conf && exec "$@"',
    "sh",
)
"""Lets a command have another user database than the rest of the machine."""


def peer(uid: int) -> Peer:
    return Peer(uid, NAMELESS, 1, str(uid), frozenset({NAMELESS}))


class TestPeople:
    def test_a_name_and_groups(self, tmp_path: Path) -> None:
        found = asyncio.run(People(Log(str(tmp_path / "log"))).known(peer(ME.pw_uid)))
        groups = {NAMELESS, *os.getgrouplist(ME.pw_name, ME.pw_gid)}
        assert found == replace(peer(ME.pw_uid), user=ME.pw_name, groups=frozenset(groups))

    def test_a_user_without_a_name(self, tmp_path: Path) -> None:
        assert asyncio.run(People(Log(str(tmp_path / "log"))).known(peer(7))) is not None
        found = asyncio.run(People(Log(str(tmp_path / "log"))).known(peer(NAMELESS)))
        assert found == peer(NAMELESS)

    def test_they_are_remembered_and_bounded(self, tmp_path: Path) -> None:
        async def many() -> list[int]:
            known = People(Log(str(tmp_path / "log")))
            for uid in range(NAMELESS, NAMELESS + people.REMEMBERED + 3):
                known._remember(uid, 100.0, Person("somebody"))
            assert (await known.known(peer(NAMELESS + 10))).user == "somebody"
            return list(known._known)

        found = asyncio.run(many())
        assert found == list(range(NAMELESS + 3, NAMELESS + 3 + people.REMEMBERED))

    def test_they_are_asked_for_together(self, tmp_path: Path) -> None:
        async def many() -> set[str]:
            known = People(Log(str(tmp_path / "log")))
            found = await asyncio.gather(*(known.known(peer(ME.pw_uid)) for _ in range(50)))
            return {one.user for one in found}

        assert asyncio.run(many()) == {ME.pw_name}


@pytest.fixture(scope="module", name="database")
def _database(base: Path) -> Path:
    """The folder of a user database that is slow while there is a file ``flag`` in it."""
    folder = base / "nss"
    folder.mkdir()
    module = shim.build(folder, Path(__file__).with_name("slow_nss.c"))
    module.rename(folder / "libnss_slow.so.2")
    (folder / "nsswitch.conf").write_text("passwd: files slow\ngroup: files slow\n")
    return folder


@pytest.mark.skipif(not process.IS_ROOT, reason="only root can have a user database of its own")
class TestSlowDatabase:
    @pytest.fixture(name="slow")
    def _slow(
        self, home: Home, base: Path, database: Path, start_agent: Callable[..., Agent]
    ) -> Agent:
        """An agent whose database has become slow, and which anybody reaches."""
        path = base / f"{home.path.name}.sock"
        lists = f'socket = "{path}"\nmode = "0666"\ngetkey = ["@nogroup"]\n'
        home.edit("[token.main]", f"[agent]\n{lists}\n[token.main]")
        env = {
            "LD_LIBRARY_PATH": str(database),
            "NSSWITCH": str(database / "nsswitch.conf"),
            "SLOW_NSS_FLAG": str(database / "flag"),
        }
        (database / "flag").unlink(missing_ok=True)
        agent = start_agent(home, {"env": env, "prefix": IN_A_NAMESPACE})
        (database / "flag").touch()
        return agent

    def start(self, path: Path, groups: list[int]) -> subprocess.Popen[bytes]:
        """Ask for a key in a process of a user whom only the slow database may know."""
        code = (
            "import os, sys\n"
            f"os.setgroups({groups}); os.setgid({NAMELESS}); os.setuid({NAMELESS})\n"
            "from pathlib import Path\n"
            "from tests.agent import raw\n"
            "with raw.connected(Path(sys.argv[1])) as connection:\n"
            f"    answer = connection.ask(*raw.getkey_fields('READ', {VOLUME!r}))\n"
            "print(answer[0].decode(), answer[1].decode())\n"
        )
        words = [process.command().interpreter, "-c", code, str(path)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, cwd=process.PROJECT)

    def ask(self, path: Path, groups: list[int]) -> list[bytes]:
        """Return the answer to such a user."""
        return self.start(path, groups).communicate(timeout=60)[0].split(maxsplit=1)

    def test_nobody_else_waits(self, slow: Agent, home: Home) -> None:
        path = home.path.with_name(f"{home.path.name}.sock")
        with self.start(path, []) as stranger, raw.connected(path) as connection:
            while stranger.poll() is None:
                assert connection.ask(b"status")[0] == b"ok"
                assert read_reply(connection.getkey("READ", VOLUME)).key
            no, why = stranger.communicate()[0].split(maxsplit=1)
        assert no == b"no"
        assert why.strip() == f"{NAMELESS} may not ask for 'getkey'".encode()

    def test_the_kernel_says_enough(self, slow: Agent, home: Home) -> None:
        """The groups in which a process runs need no database."""
        path = home.path.with_name(f"{home.path.name}.sock")
        nogroup = User.named("nobody").gid
        assert self.ask(path, [nogroup])[0] == b"ok"
        assert home.query("SELECT count(*) FROM event WHERE who = ?", str(NAMELESS)) == [(1,)]

    def test_a_reload(self, slow: Agent, home: Home) -> None:
        """The names of the new file are waited for, while everybody is served; not for ever."""
        path = home.path.with_name(f"{home.path.name}.sock")
        home.edit('getkey = ["@nogroup"]', 'getkey = ["only-in-the-database"]')
        slow.signal(signal.SIGHUP)
        refused = "can't be looked up in time"
        count = 0
        while not any(refused in line for line in home.log):
            with raw.connected(path) as connection:
                assert read_reply(connection.getkey("READ", VOLUME)).key
            count += 1
        assert count > 1
