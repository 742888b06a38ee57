"""Files made out of sight, and put in their place only when they are whole."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hwkm.errors import KeystoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = ".hwkm-unfinished-"
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What file systems say that have no hard links, such as those of USB sticks."""


@contextmanager
def private(parent: Path) -> Iterator[Path]:
    """Make a folder in ``parent`` that is this user's alone, and remove it after the block.

    What processes have left there that were killed is removed first.

    :raises KeystoreError: if that can't be done.
    """
    with suppress(OSError):
        _remove_left_over(parent)
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    except OSError as error:
        raise KeystoreError(
            f"nothing can be made in {parent}: {error.strerror}",
            hint="The folder must be there, and be open for writing to the user that hwkm runs as",
        ) from error
    try:
        with _held(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(made: Path, path: Path) -> None:
    """Give a finished file its name, for good, unless there is something of that name.

    :raises KeystoreError: if there is, or it can't be done; then nothing is of that name.
    """
    try:
        sync(made)
        _take_name(made, path)
        sync(path.parent)
    except FileExistsError as error:
        raise exists(path) from error
    except OSError as error:
        raise KeystoreError(f"{path} can't be written: {error.strerror}") from error


def exists(path: Path) -> KeystoreError:
    """Return the error that there is something where a file is to be made."""
    return KeystoreError(
        f"there is {path} already", hint="Nothing is overwritten: choose another name"
    )


def _take_name(made: Path, path: Path) -> None:
    try:
        os.link(made, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # The name is taken by a file of no bytes first, so that no other one is overwritten.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        made.rename(path)


def sync(path: Path) -> None:
    """Let what was written to a file, or the names in a folder, be on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Let others know that somebody still works in ``folder``; where locks are."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _remove_left_over(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_uid == os.geteuid():
                    shutil.rmtree(folder)
            finally:
                os.close(descriptor)
