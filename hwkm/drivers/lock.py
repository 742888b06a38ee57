"""One process at a time works with a drive: an advisory lock per drive, gone with its holder."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hwkm.errors import DeviceError
from hwkm.flock import wait_exclusive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLL_SECONDS = 0.1
MAX_NAME = 40


def lock_path(directory: Path, serial: str) -> Path:
    """Return the lock file of the drive with this serial number, "" for a drive without one."""
    return directory / f"drive-{file_name(serial)}.lock"


def file_name(serial: str) -> str:
    """Return a serial number in a form that any file system takes, and that no two share."""
    plain = re.sub(r"[^A-Za-z0-9]", "_", serial)[:MAX_NAME]
    if plain == serial:
        return plain or "without-serial"
    return f"{plain}-{hashlib.sha256(serial.encode()).hexdigest()[:16]}"


@contextmanager
def drive_lock(directory: Path, serial: str, seconds: float) -> Iterator[int]:
    """Hold the drive's lock; yield the descriptor that holds it.

    A process that keeps the descriptor keeps the lock: one that hangs in a command to the drive
    has it for as long as it hangs. So the lock is never taken off, only closed.

    :param directory: where lock files are, the configuration's ``runtime_dir``.
    :param seconds: how long to wait for another holder.
    :raises DeviceError: if another process still holds it then, or the file can't be made.
    """
    path = lock_path(directory, serial)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DeviceError(
            f"the drive's lock {path} can't be opened: {error.strerror}",
            hint="runtime_dir of the configuration must belong to the user that hwkm runs as",
        ) from error
    try:
        _wait(descriptor, path, serial, seconds)
        yield descriptor
    finally:
        os.close(descriptor)


def _wait(descriptor: int, path: Path, serial: str, seconds: float) -> None:
    if not wait_exclusive(descriptor, seconds, POLL_SECONDS):
        raise DeviceError(
            f"another process of hwkm works with the drive {serial or '(no serial)'}",
            hint=f"Try again when it is done; fuser -v {path} shows who holds the lock",
        )
