"""Commands that are run to their end, and servers that run as long as a block lasts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

BASE_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
TOOL_SECONDS = 60
START_SECONDS = 30
STOP_SECONDS = 5
LONGEST_SOCKET_PATH = 100
"""Bytes; sockaddr_un takes 107, and swtpm's second socket has a longer name than its first."""


def run_tool(*command: str, env: Mapping[str, str]) -> str:
    """Run a system's tool with ``env`` and nothing else of ours, and return what it prints.

    :raises RuntimeError: with all its output, if it fails.
    """
    done = subprocess.run(
        command,
        env={**BASE_ENV, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TOOL_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def server(
    command: Sequence[str], env: Mapping[str, str], log: Path, ready: Callable[[], bool]
) -> Iterator[None]:
    """Run ``command`` from the moment it is ``ready`` to the end of the block.

    It gets its own process group, which is killed as a whole. It also ends when this process dies
    without coming to the end of the block, or when the thread does that entered it.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *command],
            env={**BASE_ENV, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until(ready, process, log)
        yield
    finally:
        _stop_group(process)


def socket_path(directory: Path, name: str) -> Path:
    """Return the path of a socket in ``directory``, if the kernel can bind to one so long."""
    path = directory.resolve() / name
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise ValueError(f"too long for a socket, choose a shorter directory: {path}")
    return path


def accepts(path: Path) -> bool:
    """Return whether something listens on the unix socket ``path``."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(str(path))
        return True
    return False


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while not ready():
        ended = process.poll() is not None
        if ended or time.monotonic() > end:
            what = f"ended with {process.returncode}" if ended else "does not answer"
            raise RuntimeError(f"{process.args!r} {what}\n{log.read_text(errors='replace')}")
        time.sleep(0.01)


def _stop_group(process: subprocess.Popen[bytes]) -> None:
    _signal_group(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(leader: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, number)
