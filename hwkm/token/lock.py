"""One hwkm process at a time inside PKCS#11 modules.

SoftHSM loses its token's file when two processes log in at once, and what is behind a module (a
server, a TPM) can be behind another one too. So there is one lock for a whole installation.

The agent holds it for as long as it is logged in. So who finds it taken knocks: a byte goes into a
pipe beside the lock, which the agent listens at, and it lets the other in.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import contextmanager, suppress
from threading import RLock
from typing import TYPE_CHECKING

from hwkm.errors import TokenError
from hwkm.flock import wait_exclusive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "tokens.lock"
KNOCK = "tokens.knock"
"""The pipe to knock at whoever holds the lock."""
_POLL_SECONDS = 0.01
_KNOCK_SECONDS = 0.1
_CHUNK = 65536

_guard = RLock()
_held: dict[Path, tuple[int, int]] = {}
"""Descriptor and number of holders in this process, by path."""
_in_vain: dict[Path, float] = {}
"""When this process last gave up waiting, by path."""
_listening: dict[Path, int] = {}
"""Descriptors of the pipes that this process is knocked at, by path."""


def acquire(runtime_dir: Path, seconds: float) -> None:
    """Take the lock of the installation, for ``seconds`` at most; held twice, it is counted.

    :raises TokenError: if another process does not let go of it in time, or it can't be opened.
    """
    path = runtime_dir / NAME
    with _guard:
        if path in _held:
            descriptor, holders = _held[path]
            _held[path] = descriptor, holders + 1
        else:
            _held[path] = _lock(path, _patience(path, seconds)), 1
            _forget_knocks(runtime_dir)


def _patience(path: Path, seconds: float) -> float:
    """Return how long to wait: who waited in vain just now does not do so again."""
    since = time.monotonic() - _in_vain.get(path, -seconds - time.monotonic())
    return seconds if since >= seconds else 0


def release(runtime_dir: Path) -> None:
    """Give back what :func:`acquire` took."""
    path = runtime_dir / NAME
    with _guard:
        descriptor, holders = _held.pop(path)
        if holders > 1:
            _held[path] = descriptor, holders - 1
        else:
            os.close(descriptor)


@contextmanager
def held(runtime_dir: Path, seconds: float) -> Iterator[None]:
    """Hold the lock of the installation for the time of a block.

    :raises TokenError: as :func:`acquire` does.
    """
    acquire(runtime_dir, seconds)
    try:
        yield
    finally:
        release(runtime_dir)


def open_knock(runtime_dir: Path) -> int:
    """Return a descriptor that becomes readable when another process knocks; made if need be.

    Read it by :func:`drain`, then release the lock for a moment. It stays open for as long as the
    process lives.

    :raises TokenError: if the pipe can't be had, or is not one that belongs to this user.
    """
    path = runtime_dir / KNOCK
    try:
        with suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        # For writing too: without any writer, poll would report its end for ever.
        descriptor = _open_pipe(path, os.O_RDWR)
    except OSError as error:
        raise TokenError(
            f"the pipe {path} can't be opened: {error.strerror}",
            hint="Remove it; the runtime directory must belong to the user that hwkm runs as",
        ) from error
    _listening[runtime_dir] = descriptor
    return descriptor


def drain(descriptor: int) -> None:
    """Take in all knocks so far."""
    try:
        while os.read(descriptor, _CHUNK):
            pass
    except BlockingIOError:
        pass


def _open_pipe(path: Path, how: int) -> int:
    """Open a FIFO of this user's without waiting for its other end.

    :raises OSError: if it is anything else, or somebody else's.
    """
    descriptor = os.open(path, how | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    status = os.fstat(descriptor)
    if stat.S_ISFIFO(status.st_mode) and status.st_uid == os.geteuid():
        return descriptor
    os.close(descriptor)
    raise PermissionError(errno.EPERM, "it is no pipe of this user's")


def _knock(path: Path) -> None:
    """Knock, if anybody listens; where that can't be done, waiting is all that is left."""
    with suppress(OSError):
        descriptor = _open_pipe(path, os.O_WRONLY)
        try:
            os.write(descriptor, b"\0")
        finally:
            os.close(descriptor)


def _forget_knocks(runtime_dir: Path) -> None:
    """Take in this process's own knocks, and those of others who may have been let in already.

    Who still waits knocks again.
    """
    if runtime_dir in _listening:
        drain(_listening[runtime_dir])


def _lock(path: Path, seconds: float) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TokenError(
            f"the lock {path} can't be opened: {error.strerror}",
            hint="The runtime directory must exist and belong to the user that hwkm runs as",
        ) from error
    try:
        _wait(descriptor, path, seconds)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _wait(descriptor: int, path: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    pause = 0.0
    while not wait_exclusive(descriptor, pause, _POLL_SECONDS):
        _knock(path.with_name(KNOCK))
        pause = min(_KNOCK_SECONDS, end - time.monotonic())
        if pause <= 0:
            _in_vain[path] = time.monotonic()
            raise TokenError(
                "another hwkm process uses the token and does not let go of it",
                hint=f"See who holds {path} (fuser shows it), and whether the token hangs",
            )
