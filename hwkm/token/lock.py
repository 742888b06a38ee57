"""One hwkm process at a time inside PKCS#11 modules.

SoftHSM loses its token's file when two processes log in at once, and what is behind a module (a
server, a TPM) can be behind another one too. So there is one lock for a whole installation.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING

from hwkm.errors import TokenError
from hwkm.flock import wait_exclusive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "tokens.lock"
_POLL_SECONDS = 0.01

_guard = RLock()
_held: dict[Path, tuple[int, int]] = {}
"""Descriptor and number of holders in this process, by path."""
_in_vain: dict[Path, float] = {}
"""When this process last gave up waiting, by path."""


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
    if not wait_exclusive(descriptor, seconds, _POLL_SECONDS):
        _in_vain[path] = time.monotonic()
        raise TokenError(
            "another hwkm process uses the token and does not let go of it",
            hint=f"See who holds {path} (fuser shows it), and whether the token hangs",
        )
