"""Running a piece of work in a child process, so that there is always exactly one answer.

A PKCS#11 module is foreign code: it may hang, crash, print, or leave threads behind. The child
loads it; this process does not, waits for a limited time, and gives the answer in one write.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hwkm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_ANSWER_BYTES = 65536
MAX_NOISE_BYTES = 4096
MIN_FILE_BYTES = 2**20
"""A process that can't write files so large would cut off those that it rewrites."""
_GRACE_SECONDS = 5
_CHUNK = 4096
_CAP_IPC_LOCK = 14


@dataclass(frozen=True, slots=True)
class Result:
    """What the child left behind: its answer, what was printed on standard error, its end.

    ``trouble`` is empty if it ended by itself with an answer, else says what happened.
    """

    answer: bytes
    noise: bytes
    trouble: str


def silence() -> None:
    """Send standard error nowhere: Bacula would take any line there for an answer."""
    # Whichever of the three standard descriptors is closed is opened here too, so that no pipe or
    # file of ours gets its number.
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def protect() -> None:
    """No core dumps (they would hold keys), no files that others can read or that are cut off.

    :raises ConfigError: if this process may only write very small files.
    """
    os.umask(0o077)
    # A limit of 0 holds for files only; with 1, Linux starts no program of core_pattern either.
    core = 0 if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (core, core))
    size = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    if 0 <= size < MIN_FILE_BYTES:
        raise ConfigError(
            f"this process may only write files of {size} bytes (RLIMIT_FSIZE)",
            hint="Remove the limit: SoftHSM would lose its token, and the keystore can't grow",
        )


def may_lock_memory() -> bool:
    """Return whether this process may lock as much memory as it will ever have."""
    allowed = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (allowed, allowed))
    return allowed == resource.RLIM_INFINITY or _has_capability(_CAP_IPC_LOCK)


def _has_capability(number: int) -> bool:
    status = Path("/proc/self/status").read_text("ascii", "replace")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> number & 1)


def run(work: Callable[[], bytes], deadline: float) -> Result:
    """Run ``work`` in a child until ``deadline`` (of :func:`time.monotonic`) at the latest.

    The child's standard output goes nowhere and its standard error is captured. It must be
    called before any PKCS#11 module is loaded: a module does not survive a fork.
    """
    answer_out, answer_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    noise_out, noise_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    # Whoever started this process may have ignored it, and then there is nothing to wait for.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        os.close(answer_out)
        os.close(noise_out)
        _be_child(work, answer_in, noise_in, deadline)
    os.close(answer_in)
    os.close(noise_in)
    ended = os.pidfd_open(child)
    answer, noise, in_time = _collect(ended, answer_out, noise_out, deadline)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(ended)
    return Result(answer, noise, _trouble(answer, status, in_time=in_time))


def _be_child(
    work: Callable[[], bytes], answer_in: int, noise_in: int, deadline: float
) -> NoReturn:
    code = 1
    try:
        # Ends this process even inside a module's code, if the parent is no longer there to.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.alarm(max(1, int(deadline - time.monotonic())) + _GRACE_SECONDS)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(noise_in, 2)
        _write_all(answer_in, work())
        code = 0
    except BaseException as error:  # noqa: BLE001  # this process ends here, whatever it is
        _write_all(2, where(error).encode())
    finally:
        os._exit(code)


def where(error: BaseException) -> str:
    """Return kind and place of an unforeseen error.

    Its text could hold anything, and is left out, but for the system's own words.
    """
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[::-1])
    words = f" ({error.strerror})" if isinstance(error, OSError) else ""
    return f"{type(error).__name__}{words} at {places}"


def _collect(
    ended: int, answer_out: int, noise_out: int, deadline: float
) -> tuple[bytes, bytes, bool]:
    """Read both pipes until the child has ended; return them, and whether that was in time.

    The end of a pipe is no sign: a process that the module left behind may keep it open.
    """
    pipes = {
        answer_out: _Pipe(answer_out, MAX_ANSWER_BYTES),
        noise_out: _Pipe(noise_out, MAX_NOISE_BYTES),
    }
    poll = select.poll()
    for descriptor in (ended, *pipes):
        poll.register(descriptor, select.POLLIN)
    in_time = running = True
    while running and in_time:
        left = deadline - time.monotonic()
        ready = [descriptor for descriptor, _ in poll.poll(max(0, left * 1000))]
        in_time = bool(ready)
        running = ended not in ready
        for descriptor in ready:
            if descriptor != ended and not pipes[descriptor].drain():
                poll.unregister(descriptor)
    for pipe in pipes.values():
        pipe.drain()
        os.close(pipe.descriptor)
    return bytes(pipes[answer_out].kept), bytes(pipes[noise_out].kept), in_time


class _Pipe:
    """What has come through a pipe; more than ``limit`` bytes are read and dropped."""

    def __init__(self, descriptor: int, limit: int) -> None:
        self.descriptor = descriptor
        self.limit = limit
        self.kept = bytearray()

    def drain(self) -> bool:
        """Read what is there; return whether more can come."""
        try:
            while data := os.read(self.descriptor, _CHUNK):
                self.kept += data[: self.limit - len(self.kept)]
        except BlockingIOError:
            return True
        return False


def _trouble(answer: bytes, status: int, *, in_time: bool) -> str:
    if not in_time:
        return "there was no answer in time"
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return f"the process crashed ({name}); the PKCS#11 module is the likely cause"
    if os.waitstatus_to_exitcode(status) != 0 or not answer:
        return "the process ended without an answer"
    return ""


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
