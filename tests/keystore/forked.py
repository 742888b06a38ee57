"""Work in a fork of this process, which strace can kill at a chosen system call.

A fork does exactly what the command does once its modules are imported; under strace, their import
would take longer than all the rest.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import traceback
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, NoReturn

from hwkm import getkey

from . import homes
from .homes import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from .homes import Home

CALLS = ("pwrite64", "fdatasync", "fsync", "ftruncate", "unlink", "write")
"""The system calls that change a file or make a change last, as SQLite uses them."""

STRACE_SECONDS = 60
SUFFIXES = ("", "-wal", "-shm")
_PR_SET_PTRACER = 0x59616D61
_ANY_PROCESS = ctypes.c_ulong(-1)


@dataclass(frozen=True, slots=True)
class Kill:
    """Death at the ``number``-th time that ``call`` is to touch one of ``files``."""

    call: str
    number: int
    files: tuple[Path, ...]
    log: Path

    @property
    def happened(self) -> bool:
        return "killed by SIGKILL" in self.log.read_text()

    @contextmanager
    def watching(self, process: int) -> Iterator[None]:
        """Have strace kill ``process``, or a child of it; leave the block when both are gone."""
        paths = [word for path in self.files for word in ("-P", str(path))]
        inject = f"inject={self.call}:signal=KILL:when={self.number}"
        options = ["-f", "-o", str(self.log), *paths, "-e", f"trace={self.call}", "-e", inject]
        strace = subprocess.Popen(
            ["strace", *options, "-p", str(process)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert strace.stderr is not None
        first = strace.stderr.readline()
        assert b"attached" in first, first
        yield
        strace.communicate(timeout=STRACE_SECONDS)


def kills(
    database: Path, log: Path, calls: tuple[str, ...] = CALLS, suffixes: tuple[str, ...] = SUFFIXES
) -> Iterator[Kill]:
    """Yield every way to die around ``database``, for a run that the caller repeats for each.

    A call that was not come to ends the numbers of its kind.
    """
    files = tuple(database.with_name(database.name + suffix) for suffix in suffixes)
    for call in calls:
        for number in count(1):
            kill = Kill(call, number, files, log)
            yield kill
            if not kill.happened:
                break


def remove(database: Path) -> None:
    """Remove a SQLite database, with all that belongs to it."""
    for suffix in SUFFIXES:
        database.with_name(database.name + suffix).unlink(missing_ok=True)


def run(work: Callable[[], object], kill: Kill | None = None) -> bytes:
    """Run ``work`` in a child of this process; return what it wrote to standard output."""
    return run_all([work], kill)[0]


def run_all(works: Sequence[Callable[[], object]], kill: Kill | None = None) -> list[bytes]:
    """Run all ``works`` at once, each in a child; none starts before all are there.

    Strace watches the first of them, if it is to be killed.
    """
    children = [_start(work) for work in works]
    for child, _ in children:
        os.waitpid(child, os.WUNTRACED)
    with nullcontext() if kill is None else kill.watching(children[0][0]):
        for child, _ in children:
            os.kill(child, signal.SIGCONT)
        return [_finish(*started) for started in children]


@contextmanager
def meanwhile(work: Callable[[Callable[[], object]], object]) -> Iterator[None]:
    """Run ``work`` in a child that stands still, where it calls its argument, during the block."""
    gate, gate_in = os.pipe()

    def pause() -> None:
        os.close(gate_in)
        os.write(1, b"there")
        os.read(gate, 1)

    child, output = _start(lambda: work(pause))
    os.close(gate)
    os.waitpid(child, os.WUNTRACED)
    os.kill(child, signal.SIGCONT)
    assert os.read(output, 5) == b"there"
    try:
        yield
    finally:
        os.close(gate_in)
        _finish(child, output)


def ask(
    home: Home, operation: str, volume: str, label: bytes = b"", kill: Kill | None = None
) -> Answer:
    """Return the Encryption Command's answer; it is empty if none came."""

    def work() -> None:
        os.environ.update(homes.request(operation, volume, label))
        getkey.main(["--config", str(home.config_path)])

    return Answer.parse(run(work, kill))


def _start(work: Callable[[], object]) -> tuple[int, int]:
    """Fork a child that stops itself before ``work``; return its id and where its output is."""
    output, output_in = os.pipe()
    child = os.fork()
    if child == 0:
        _be_child(work, output_in)
    os.close(output_in)
    return child, output


def _finish(child: int, output: int) -> bytes:
    with os.fdopen(output, "rb") as file:
        written = file.read()
    os.waitpid(child, 0)
    return written


def _be_child(work: Callable[[], object], output: int) -> NoReturn:
    code = 1
    try:
        os.dup2(output, 1)
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY_PROCESS, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        work()
        code = 0
    except BaseException:  # noqa: BLE001  # it must not become a second run of all tests
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(code)
