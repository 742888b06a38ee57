"""Whole agents on a real token, started as a service manager starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwkm.agent.limits import Limits
from tests.getkey import process

from . import raw

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from tests.getkey.home import Home

READY_SECONDS = 30.0
WAIT_SECONDS = 30.0
END_SECONDS = 30.0
FIRST_SOCKET = 3
"""The number under which systemd hands over the first socket."""
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
LIMITED = """
import json, sys
from pathlib import Path
from hwkm import config
from hwkm.agent import front
from hwkm.agent.limits import Limits
from hwkm.installation import Installation
from hwkm.token.pin import PinReader
site = Installation(config.load(Path(sys.argv[1])), PinReader())
front.run(site, Limits(**json.loads(sys.argv[2])))
"""
"""What ``hwkm agent run`` does, with other limits."""


@dataclass
class Agent:
    """One agent of an installation."""

    home: Home
    running: subprocess.Popen[bytes]
    errors: Path
    ready: int
    """How many agents were ready here, this one included."""

    @classmethod
    def start(
        cls,
        home: Home,
        limits: dict[str, Any],
        *,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        hand_over: socket.socket | None = None,
    ) -> Agent:
        """Start one and wait until it is ready; without ``limits`` by the command.

        ``prefix`` is a command that becomes it; ``hand_over`` gets the first number that systemd
        gives to sockets.
        """
        before = _count_ready(home)
        found = process.command()
        words = [*prefix, *found.words, "--config", str(home.config), "agent", "run"]
        if limits:
            given = json.dumps({**asdict(Limits()), **limits})
            words = [sys.executable, "-c", LIMITED, str(home.config), given]
        errors = home.path.with_name(f"{home.path.name}-agent-errors")
        with errors.open("ab") as file:
            running = subprocess.Popen(
                words,
                env={"PATH": os.defpath, **NO_BYTECODE, **found.env, **(env or {})},
                cwd=process.PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                pass_fds=() if hand_over is None else (FIRST_SOCKET,),
                preexec_fn=None if hand_over is None else partial(_hand_over, hand_over),
            )
        agent = cls(home, running, errors, before + 1)
        agent.wait_ready()
        return agent

    def wait_ready(self) -> None:
        """Wait until as many agents as with this one have been ready."""
        process.wait_until(
            lambda: _count_ready(self.home) >= self.ready or self.running.poll() is not None,
            READY_SECONDS,
        )
        assert self.running.poll() is None, self.errors.read_text()
        assert _count_ready(self.home) >= self.ready, self.home.log

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.home.path / "run" / "agent.sock"

    def connect(self, seconds: float = raw.SECONDS) -> AbstractContextManager[raw.Raw]:
        """Connect to it for a while."""
        return raw.connected(self.socket, seconds)

    def getkey(self, operation: str, volume: str, wrapped: bytes = b"", *words: str) -> bytes:
        """Ask for a key on a connection for this alone."""
        with self.connect() as connection:
            return connection.getkey(operation, volume, wrapped, words)

    def status(self) -> dict[str, Any]:
        """Return what it says of itself."""
        with self.connect() as connection:
            ok, document = connection.ask(b"status")
        assert ok == b"ok", document
        found: dict[str, Any] = json.loads(document)
        return found

    def token_pid(self) -> int:
        """Return the process that owns the token, waiting until there is one."""
        assert process.wait_until(lambda: self.status()["token_process"]["pid"], READY_SECONDS)
        pid = self.status()["token_process"]["pid"]
        assert isinstance(pid, int)
        return pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its first process."""
        self.running.send_signal(number)

    def wait(self) -> int:
        """Wait for its end, and return its status."""
        return self.running.wait(END_SECONDS)

    def kill(self) -> None:
        """End it and everything of it."""
        process.end_session(self.running.pid, signal.SIGCONT)
        process.end_session(self.running.pid)
        self.running.wait(END_SECONDS)


def memory(pid: int) -> int:
    """Return how many bytes of memory a process has all for itself or not."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _count_ready(home: Home) -> int:
    return sum("the agent is ready at" in line for line in home.log)


def _hand_over(listener: socket.socket) -> None:
    os.dup2(listener.fileno(), FIRST_SOCKET)


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true that an agent does in its own time."""
    end = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.05)
