"""A module that hangs: the real time limit, once, for all ways to hang at the same time."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import process
from .home import Answer, Home

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

ANSWER_SECONDS = 20.0
CHILD_SECONDS = 25.0
"""After this long a child ends by itself, if its parent was killed."""
SLACK_SECONDS = 4.0
FUNCTIONS = ("C_Initialize", "C_Login", "C_Decrypt")


@dataclass(frozen=True, slots=True)
class Killed:
    """A call whose parent was killed while the module hung, and how long its child lived."""

    home: Home
    run: process.Run
    child_seconds: float


@dataclass(frozen=True, slots=True)
class Hung:
    """How calls ended that hung in different functions, and one that was killed."""

    calls: dict[str, tuple[Home, process.Run]]
    killed: Killed


@pytest.fixture(scope="module")
def hung(labelled: Home, copy_of: Callable[[Home], Home], shim_module: Path) -> Hung:
    homes = {name: copy_of(labelled) for name in (*FUNCTIONS, "killed")}
    for name, home in homes.items():
        home.use_shim(shim_module)
        home.plan(f"{'C_Initialize' if name == 'killed' else name}:hang")
    begun = time.monotonic()
    victim = homes["killed"].start(prepare=_block_alarm)
    started = {name: homes[name].start() for name in FUNCTIONS}
    run, child = _kill(victim, shim_module)
    calls = {name: (homes[name], process.finish(one)) for name, one in started.items()}
    process.wait_until(lambda: not _is_alive(child), CHILD_SECONDS + SLACK_SECONDS)
    lived = time.monotonic() - begun
    process.end_session(victim.pid)
    return Hung(calls, Killed(homes["killed"], run, lived))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_there_is_an_answer_in_time(hung: Hung, function: str) -> None:
    home, run = hung.calls[function]
    assert Answer.of(run).error.startswith("there was no answer in time")
    assert run.seconds < ANSWER_SECONDS + SLACK_SECONDS
    assert "error: getkey (job 7, device /dev/nst0): there was no answer in time" in home.log[-1]
    home.plan("")
    assert home.getkey().reply is not None


def test_a_killed_parent_leaves_no_pipe_open(hung: Hung) -> None:
    run = hung.killed.run
    assert (run.status, run.out, run.err) == (-signal.SIGTERM, b"", b"")
    assert run.seconds < SLACK_SECONDS


def test_the_child_of_a_killed_parent_ends_by_itself(hung: Hung) -> None:
    assert hung.killed.child_seconds < CHILD_SECONDS + SLACK_SECONDS
    home = hung.killed.home
    home.plan("")
    assert home.getkey().reply is not None


def _kill(victim: subprocess.Popen[bytes], module: Path) -> tuple[process.Run, int]:
    """Kill the parent while the child hangs in the module, as Bacula does at its own limit."""
    assert process.wait_until(lambda: _hanging_child(victim.pid, module) is not None, 10)
    child = _hanging_child(victim.pid, module)
    assert child is not None
    begun = time.monotonic()
    victim.send_signal(signal.SIGTERM)
    out, err = victim.communicate(timeout=process.RUN_SECONDS)
    return process.Run(out, err, victim.returncode, time.monotonic() - begun, ()), child


def _hanging_child(leader: int, module: Path) -> int | None:
    for pid in process.session(leader):
        with suppress(OSError):
            if pid != leader and str(module) in Path(f"/proc/{pid}/maps").read_text():
                return pid
    return None


def _block_alarm() -> None:
    # A mask is inherited; the child's own limit must hold whatever a daemon's thread had blocked.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return Path(f"/proc/{pid}").exists()
