"""A keystore made again out of its backup, in a place where there is none."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import URL

from hwkm.errors import KeystoreError
from hwkm.keystore import backup, sqlite, workplace
from hwkm.keystore.copy import copy
from hwkm.keystore.engine import Keystore, KeystoreMissingError, parse_url
from hwkm.keystore.records import Event, Operation, Outcome

if TYPE_CHECKING:
    from hwkm.keystore.backup import Backup, Manifest
    from hwkm.keystore.store import Transaction

_EMPTY_ONLY = (
    "Look whose it is; if it is to be replaced, stop the agent and the Storage Daemon and move it "
    "away (a SQLite file together with its -wal and -shm), or name an empty database"
)


def restore(url: str, installation: str, path: Path, *, now: int, who: str) -> Backup:
    """Make the keystore at ``url`` out of the backup at ``path``, with an event that says so.

    The backup is looked at as a whole before anything is made. It is one transaction: killed at any
    point, ``url`` is as empty as before.

    :raises KeystoreError: if there is a keystore, or the backup is not sound, is of another
        installation than ``installation`` (when that is given), or can't be written.
    """
    _refuse_keystore(url)
    found = backup.read(path)
    manifest = found.manifest
    _refuse_stranger(manifest, installation)
    event = Event(now, who, Operation.KEYSTORE_RESTORE, Outcome.OK, detail=_about(manifest))

    def finish(transaction: Transaction) -> None:
        transaction.add_event(event)

    with workplace.private(_near(url)) as folder:
        scratch = folder / "keystore.db"
        backup.rebuild(found, scratch)
        copy(URL.create("sqlite", database=str(scratch)), url, finish)
    return found


def _refuse_keystore(url: str) -> None:
    try:
        Keystore.open(url)
    except KeystoreMissingError:
        return
    raise KeystoreError("there is a keystore where one is to be restored", hint=_EMPTY_ONLY)


def _refuse_stranger(manifest: Manifest, installation: str) -> None:
    if installation and manifest.installation != installation:
        raise KeystoreError(
            f"the backup belongs to installation {manifest.installation}, "
            f"the configuration to {installation}",
            hint="Name the right backup, or the right configuration; nothing was changed",
        )


def _about(manifest: Manifest) -> str:
    made = datetime.fromtimestamp(manifest.made, UTC)
    return f"from the backup of {made:%Y-%m-%dT%H:%M:%SZ}"


def _near(url: str) -> Path:
    """Return a folder with room for a copy: that of a SQLite keystore, or the system's."""
    parsed = parse_url(url)
    return (
        sqlite.file_of(parsed).parent if sqlite.is_sqlite(parsed) else Path(tempfile.gettempdir())
    )
