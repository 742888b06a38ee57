"""The file of an emulated drive: one SQLite database, locked while a command runs.

Several processes can use one file, like several hosts one drive. A process that is killed within a
command leaves the drive as it was before that command.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from hwkm.scsi.emulator.state import dump, load
from hwkm.scsi.emulator.tape import TABLE, Tape
from hwkm.scsi.transport import DeviceAccessError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hwkm.scsi.emulator.state import State

BUSY_SECONDS = 60.0
"""How long a command waits for that of another process."""

FORMAT = 1
"""Version of the file's layout; older files are made anew, since they hold nothing of value."""

_MEMORY = "CREATE TABLE memory (state TEXT NOT NULL)"


def create_file(path: Path, state: State) -> None:
    """Make the file of a new drive, for its owner only: it holds whatever key a host sets.

    :raises DeviceAccessError: if it is there already, or can't be made.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise DeviceAccessError(
            f"{path}: no emulated drive can be made there: {error.strerror}",
            hint="Choose the name of a file that is not there yet, in a directory of yours",
        ) from error
    with _connected(path) as connection, _transaction(connection):
        connection.execute(_MEMORY)
        for statement in TABLE:
            connection.execute(statement)
        connection.execute("INSERT INTO memory VALUES (?)", (dump(state),))
        connection.execute(f"PRAGMA user_version = {FORMAT}")


@contextmanager
def opened(path: Path) -> Iterator[tuple[State, Tape]]:
    """Give the drive's memory and its tapes to the block, alone; keep what it changes.

    An exception in the block leaves the file as it was.

    :raises DeviceAccessError: if there is no such file, or it is no emulated drive.
    """
    with _connected(path) as connection, _transaction(connection):
        before = _read(connection)
        state = load(before)
        yield state, Tape(connection)
        after = dump(state)
        if after != before:
            connection.execute("UPDATE memory SET state = ?", (after,))


def _read(connection: sqlite3.Connection) -> str:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != FORMAT:
        raise sqlite3.DatabaseError(f"its format is {version}, not {FORMAT}")
    (text,) = connection.execute("SELECT state FROM memory").fetchone()
    return str(text)


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        path.stat()  # SQLite would make the file
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise _not_a_drive(path, str(error)) from error
    with closing(connection):
        try:
            # A killed process loses nothing without it; only a crash of the system may.
            connection.execute("PRAGMA synchronous = OFF")
            yield connection
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise _not_a_drive(path, str(error)) from error
            raise DeviceAccessError(
                f"{path}: another process has held the emulated drive for {BUSY_SECONDS:.0f} s",
                hint="See who does: fuser -v FILE",
            ) from error
        except sqlite3.Error as error:
            raise _not_a_drive(path, str(error)) from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def refuse_strangers(path: Path) -> None:
    """Refuse a file of somebody else's, who would read the keys that are set in it.

    :raises DeviceAccessError: if it is one, or is not there.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise _not_a_drive(path, error.strerror or str(error)) from error
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise DeviceAccessError(
            f"{path} is no emulated drive of ours: it is somebody else's, or others can write",
            hint="An emulated drive holds whatever key is set: make your own, hwkm emulator create",
        )


def _not_a_drive(path: Path, why: str) -> DeviceAccessError:
    return DeviceAccessError(
        f"{path} can't be used as an emulated drive: {why}",
        hint="Make one with hwkm emulator create FILE",
    )
