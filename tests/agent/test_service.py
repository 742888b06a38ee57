"""The agent under a service manager: what it is told, and the socket that it hands over."""

from __future__ import annotations

import json
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.getkey import process
from tests.getkey.home import VOLUME
from tests.getkey.replies import read_reply

from . import raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.getkey.home import Home

    from .agents import Agent

LIKE_SYSTEMD = ("sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "sh")


@pytest.fixture(name="manager")
def _manager(base: Path, home: Home) -> Iterator[socket.socket]:
    """A socket at which the agent's state is told."""
    path = base / f"{home.path.name}-notify"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener:
        listener.bind(str(path))
        listener.settimeout(20)
        yield listener


def told(manager: socket.socket) -> str:
    return manager.recv(4096).decode()


def test_its_states_are_told(
    home: Home, manager: socket.socket, start_agent: Callable[..., Agent]
) -> None:
    agent = start_agent(home, {"env": {"NOTIFY_SOCKET": manager.getsockname()}})
    assert told(manager) == "READY=1"
    agent.signal(signal.SIGHUP)
    assert told(manager).startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert [told(manager), told(manager)] == ["STATUS=", "READY=1"]
    agent.signal(signal.SIGTERM)
    assert told(manager) == "STOPPING=1"
    assert agent.wait() == 0


def test_it_is_told_to_stop(home: Home, start_agent: Callable[..., Agent]) -> None:
    """It ends as with SIGTERM, and the command comes back when it has."""
    agent = start_agent(home)
    assert read_reply(agent.getkey("LABEL", VOLUME)).key
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(agent.wait)  # or it would be a zombie, which still has its number
        done = home.hwkm("agent", "stop")
        assert ended.result() == 0
    assert (done.status, done.out, done.err) == (0, b"", b"")
    assert any("told to end by" in line for line in home.log)
    assert home.hwkm("agent", "stop").status == 1


def test_the_watchdog_is_told(
    home: Home, manager: socket.socket, start_agent: Callable[..., Agent]
) -> None:
    env = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "200000"}
    agent = start_agent(home, {"env": env})
    words = {told(manager) for _ in range(4)}
    assert words == {"READY=1", "WATCHDOG=1"}
    os.kill(agent.token_pid(), signal.SIGSTOP)  # that is the agent's own business
    assert told(manager) == "WATCHDOG=1"


def test_a_socket_that_is_handed_over(
    home: Home, base: Path, start_agent: Callable[..., Agent]
) -> None:
    """Clients can connect before the agent is there, and its name is not the agent's to remove."""
    path = base / f"{home.path.name}-handed.sock"
    home.edit("[token.main]", f'[agent]\nsocket = "{path}"\n\n[token.main]')
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as listener:
        listener.bind(str(path))
        listener.listen()
        with raw.connected(path) as early:
            early.socket.sendall(raw.frame(*raw.getkey_fields("READ", VOLUME)))
            agent = start_agent(home, {"prefix": LIKE_SYSTEMD, "hand_over": listener})
            assert read_reply(early.answer()[1]).key
        agent.signal(signal.SIGTERM)
        assert agent.wait() == 0
        assert path.exists()


class TestWrongPin:
    """With a socket of systemd's the agent stays: systemd would start it at every request."""

    @pytest.fixture(name="path")
    def _path(self, home: Home, base: Path) -> Path:
        path = base / f"{home.path.name}-handed.sock"
        home.edit("[token.main]", f'[agent]\nsocket = "{path}"\n\n[token.main]')
        return path

    @pytest.fixture(name="refused")
    def _refused(
        self, home: Home, path: Path, manager: socket.socket, start_agent: Callable[..., Agent]
    ) -> Iterator[Agent]:
        (home.path / "right").write_text((home.path / "user-pin").read_text())
        (home.path / "user-pin").write_text("wrong-pin\n")
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as listener:
            listener.bind(str(path))
            listener.listen()
            env = {"NOTIFY_SOCKET": manager.getsockname()}
            yield start_agent(home, {"prefix": LIKE_SYSTEMD, "hand_over": listener, "env": env})

    def ask(self, path: Path) -> bytes:
        with raw.connected(path) as connection:
            return connection.getkey("READ", VOLUME)

    def status(self, path: Path) -> dict[str, Any]:
        with raw.connected(path) as connection:
            found: dict[str, Any] = json.loads(connection.ask(b"status")[1])
        return found

    def test_every_request_is_told_why(
        self, refused: Agent, path: Path, manager: socket.socket
    ) -> None:
        home = refused.home
        status = told(manager)
        assert status.startswith("STATUS=no token takes its PIN")
        assert told(manager) == "READY=1"
        for _ in range(2):
            assert b"error: no token takes its PIN (logging in to token" in self.ask(path)
        (home.path / "user-pin").write_text((home.path / "right").read_text())
        assert b"none is tried until the agent is told to" in self.ask(path)
        assert self.status(path)["token_process"]["logins"] == 1
        failed = "SELECT count(*) FROM event WHERE outcome = 'failed' AND detail LIKE '%its PIN%'"
        assert process.wait_until(lambda: home.query(failed) == [(3,)], 20)

    def test_another_process_with_the_token_does_not_try_it_either(
        self, refused: Agent, path: Path
    ) -> None:
        os.kill(self.status(path)["token_process"]["pid"], signal.SIGKILL)
        assert process.wait_until(lambda: self.status(path)["token_process"]["starts"] == 2, 20)
        assert b"error: no token takes its PIN" in self.ask(path)
        assert self.status(path)["token_process"]["logins"] == 1

    def test_other_commands_have_the_token(self, refused: Agent) -> None:
        home = refused.home
        (home.path / "user-pin").write_text((home.path / "right").read_text())
        run = home.hwkm("master", "check")
        assert run.status == 0, run

    def test_a_reload_tries_again(self, refused: Agent, path: Path, manager: socket.socket) -> None:
        home = refused.home
        refused.signal(signal.SIGHUP)  # the PIN is still wrong
        assert process.wait_until(lambda: self.status(path)["reloads"] == 1, 20)
        assert b"error: no token takes its PIN" in self.ask(path)
        (home.path / "user-pin").write_text((home.path / "right").read_text())
        refused.signal(signal.SIGHUP)
        assert process.wait_until(lambda: self.status(path)["reloads"] == 2, 20)
        assert read_reply(self.ask(path)).key
        said = [told(manager) for _ in range(9)]
        assert said[-2:] == ["STATUS=", "READY=1"]


class TestReload:
    """Whatever a reload comes to, systemd hears of its end."""

    @pytest.fixture(name="reloaded")
    def _reloaded(
        self, home: Home, manager: socket.socket, start_agent: Callable[..., Agent]
    ) -> Iterator[Agent]:
        agent = start_agent(home, {"env": {"NOTIFY_SOCKET": manager.getsockname()}})
        assert told(manager) == "READY=1"
        yield agent
        agent.signal(signal.SIGHUP)
        assert told(manager).startswith("RELOADING=1")
        assert told(manager) == "READY=1"
        assert agent.status()["refused_reloads"] == 1
        assert read_reply(agent.getkey("READ", VOLUME)).key

    def test_a_file_that_nobody_foresaw(self, reloaded: Agent) -> None:
        reloaded.home.config.write_text(f"x = {'[' * 100_000}")

    def test_tokens_that_cannot_be_opened(self, reloaded: Agent) -> None:
        reloaded.home.edit("module-path=", "module-path=/no-such")


@pytest.mark.skipif(not process.IS_ROOT, reason="only root can start it for another user")
def test_started_by_root_it_runs_as_the_owner(
    owned: Home, start_agent: Callable[..., Agent]
) -> None:
    agent = start_agent(owned)
    given = read_reply(agent.getkey("LABEL", "A"))
    pids = process.session(agent.running.pid)
    assert len(pids) == 2
    for pid in pids:
        assert f"Uid:\t{owned.user.uid}\t" in Path(f"/proc/{pid}/status").read_text()
    os.kill(agent.token_pid(), signal.SIGKILL)  # another one can be started, too
    assert process.wait_until(lambda: agent.status()["token_process"]["starts"] == 2, 10)
    assert read_reply(agent.getkey("READ", "A", given.wrapped)) == given
    assert owned.owners() == {owned.user.uid}
    keeps_nothing(agent)


def test_no_child_keeps_what_is_the_agents(agent: Agent) -> None:
    """Neither its lock nor its socket nor a client: they would outlive it."""
    with agent.connect() as client:
        assert client.ask(b"status")[0] == b"ok"
        os.kill(agent.token_pid(), signal.SIGKILL)
        assert process.wait_until(lambda: agent.status()["token_process"]["starts"] == 2, 10)
        keeps_nothing(agent)


def keeps_nothing(agent: Agent) -> None:
    """Check that of all sockets the process with the token has its link only."""
    names = []
    for entry in Path(f"/proc/{agent.token_pid()}/fd").iterdir():
        with suppress(OSError):
            names.append(str(entry.readlink()))
    assert not any("agent.lock" in name for name in names), names
    assert len([name for name in names if name.startswith("socket:")]) == 1, names
