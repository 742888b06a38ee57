"""The agent under a service manager: what it is told, and the socket that it hands over."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

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
    assert told(manager) == "READY=1"
    agent.signal(signal.SIGTERM)
    assert told(manager) == "STOPPING=1"
    assert agent.wait() == 0


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
