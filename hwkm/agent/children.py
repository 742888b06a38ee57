"""Processes that the agent forks: each ends with the agent, and holds nothing of it but its link.

Forking is safe here because the agent's first process runs one thread, and has no PKCS#11 module
and no keystore open.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hwkm import supervise
from hwkm.errors import HwkmError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwkm.log import Log

_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>
_STANDARD = (0, 1, 2)
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)
"""A service manager sends them to all processes of a unit; the first decides for all."""


@dataclass(slots=True)
class Child:
    """A process of ours. ``ended`` becomes readable when it ends; ``link`` leads to it."""

    pid: int
    ended: int
    link: socket.socket
    is_reaped: bool = False
    signal: int | None = None
    """The signal that ended it, known when it is reaped."""

    def kill(self) -> None:
        """End it and what it started, whatever they do; :meth:`reap` is still to be called."""
        if not self.is_reaped:  # until then its number is that of no other group
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> str:
        """Return how it ended, in words; to be called once, when ``ended`` is readable."""
        self.is_reaped = True
        os.close(self.ended)
        _, status = os.waitpid(self.pid, 0)
        if os.WIFSIGNALED(status):
            self.signal = os.WTERMSIG(status)
            return f"it was ended by {signal.Signals(self.signal).name}"
        return f"it ended with status {os.waitstatus_to_exitcode(status)}"


def fork(work: Callable[[socket.socket], None], log: Log) -> Child:
    """Run ``work`` in a new process, with the other end of the child's link.

    Whatever is not foreseen there goes into the ``log``, by kind and place.
    """
    parent = os.getpid()
    ours, theirs = socket.socketpair()
    # Blocked from before the fork on: the parent's handlers shall not run in the child.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(work, theirs, parent, log)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    with suppress(OSError):
        os.setpgid(pid, pid)  # the child does so too: whoever is first
    theirs.close()
    return Child(pid, os.pidfd_open(pid), ours)


async def ended(child: Child) -> str:
    """Wait for the end of ``child``, and return how it ended, in words."""
    loop = asyncio.get_running_loop()
    seen = asyncio.Event()
    loop.add_reader(child.ended, seen.set)
    try:
        await seen.wait()
    finally:
        loop.remove_reader(child.ended)
    return child.reap()


def see_to(child: Child) -> asyncio.Task[str]:
    """Wait for the end of ``child`` in the background: one in the kernel's hands may take its time.

    To be called once, in place of :func:`ended`; the task returns the same.
    """
    end = asyncio.create_task(ended(child))
    _ends.add(end)
    end.add_done_callback(_ends.discard)
    return end


_ends: set[asyncio.Task[str]] = set()
"""What :func:`see_to` waits for; asyncio itself does not keep its tasks."""


def _be_child(
    work: Callable[[socket.socket], None], link: socket.socket, parent: int, log: Log
) -> NoReturn:
    code = 1
    try:
        os.setpgid(0, 0)
        _end_with(parent)
        _reset_signals()
        _let_go(keep=link.fileno())
        work(link)
        code = 0
    except HwkmError as error:
        log.error(error.diagnostics())
    except BaseException as error:  # noqa: BLE001  # this process ends here, whatever it is
        log.error(f"internal error: {supervise.where(error)}")
    finally:
        os._exit(code)  # nothing that the parent registered or buffered happens twice


def _end_with(parent: int) -> None:
    """Let the kernel end this process when the parent is gone, even inside a module's code."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _let_go(keep: int) -> None:
    """Let go of all that the parent has open, its lock and its clients too.

    Nothing is closed: objects that the parent left in this memory may still close their
    descriptors, and by then the numbers would be those of something else.
    """
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in _descriptors():
        if descriptor not in (nothing, keep, *_STANDARD):
            with suppress(OSError):  # the one with which they were listed
                os.fstat(descriptor)
                os.dup2(nothing, descriptor, inheritable=False)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what a library prints is a matter for whoever reads the agent's errors


def _descriptors() -> list[int]:
    try:
        return [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    except OSError:
        return list(range(os.sysconf("SC_OPEN_MAX")))
