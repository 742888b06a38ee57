"""A keystore's backup: one file, made while others write, and checked whole before it is used.

It is a SQLite database with the tables of a keystore, whatever the keystore itself is in, and with
one more, which says what must be in it: SQLite has no checksums of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import stat
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias
from urllib.parse import quote

from sqlalchemy import create_engine, func, select
from sqlalchemy.engine import URL
from sqlalchemy.pool import StaticPool

from hwkm import __version__
from hwkm.errors import KeystoreError
from hwkm.keystore import migrate, schema, sqlite, workplace
from hwkm.keystore.copy import copy_rows
from hwkm.keystore.engine import REVISION, Keystore, errors
from hwkm.keystore.records import Event, Operation, Outcome
from hwkm.keystore.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from hwkm.keystore.copy import Tallies

FORMAT = 1
_TABLE = "CREATE TABLE backup (manifest TEXT NOT NULL, sha256 BLOB NOT NULL) STRICT"
_ATTACHED = "CREATE TABLE attached (name TEXT NOT NULL, content BLOB NOT NULL) STRICT"
_OWN_TABLES = [("attached", "table", _ATTACHED), ("backup", "table", _TABLE)]
_MAX_MANIFEST = 2**20
_REVISION_TABLE = "alembic_version"
_UNSOUND = "Use another backup; nothing was changed"

Outline: TypeAlias = dict[str, tuple[str, tuple[Any, ...]]]
"""Kind and columns of tables, indexes and triggers, by name."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself. ``newest_event`` is its number and time; None without events.

    ``tables`` has for each table the number of its rows and their :class:`Tally`, in hex.
    """

    made: int
    made_by: str
    installation: str
    revision: str
    newest_event: tuple[int, int] | None
    tables: dict[str, tuple[int, str]]

    def rows(self, table: str) -> int:
        """Return how many rows of a table are in the backup."""
        return self.tables.get(table, (0, ""))[0]

    def encode(self) -> str:
        """Return the text that stands in the file."""
        document = {
            "format": FORMAT,
            "made": self.made,
            "made_by": self.made_by,
            "installation": self.installation,
            "revision": self.revision,
            "newest_event": self.newest_event,
            "tables": self.tables,
        }
        return json.dumps(document, sort_keys=True)

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return what a text stands for.

        :raises ValueError: or LookupError, TypeError, AttributeError if it is none.
        """
        found = json.loads(text)
        if found["format"] != FORMAT:
            raise ValueError(f"it has format {found['format']}, which a later release made")
        newest = found["newest_event"]
        return cls(
            made=int(found["made"]),
            made_by=str(found["made_by"]),
            installation=str(found["installation"]),
            revision=str(found["revision"]),
            newest_event=None if newest is None else (int(newest[0]), int(newest[1])),
            tables={name: (int(rows), str(sum_)) for name, (rows, sum_) in found["tables"].items()},
        )


@dataclass(frozen=True, slots=True)
class Attached:
    """A file that is in a backup beside the keystore, by its path there."""

    name: str
    content: bytes


# making one


def make(
    url: str,
    installation: str,
    path: Path,
    *,
    now: int,
    who: str,
    attached: Sequence[Attached] = (),
) -> Manifest:
    """Write a backup of the keystore at ``url`` to ``path``, and note in the keystore that it is.

    Files that are ``attached`` to it come back by :func:`attached_files`. Killed at any point,
    there is a whole file of that name or none.

    :raises KeystoreError: if there is something at ``path`` already, the keystore can't be read, or
        the file can't be written; or if only the note of it could not: the text says which.
    """
    if os.path.lexists(path):
        raise workplace.exists(path)
    keystore = Keystore.open(url, installation)
    with workplace.private(path.parent) as folder:
        scratch = folder / "backup"
        with _saying_where(path):
            _write(keystore, scratch, now, attached)
            manifest = read(scratch).manifest
        workplace.publish(scratch, path)
    _note(keystore, Event(now, who, Operation.KEYSTORE_BACKUP, Outcome.OK, detail=str(path)))
    return manifest


def _write(keystore: Keystore, scratch: Path, now: int, attached: Sequence[Attached]) -> None:
    place = migrate.place(URL.create("sqlite", database=str(scratch)))
    with keystore.snapshot() as reader, place.writing() as writer:
        tallies = copy_rows(reader.connection, writer.connection)
        writer.connection.exec_driver_sql(_ATTACHED)
        tallies["attached"] = _attach(writer.connection, attached)
        manifest = _manifest(writer.connection, tallies, now).encode()
        writer.connection.exec_driver_sql(_TABLE)
        values = (manifest, _digest(manifest))
        writer.connection.exec_driver_sql("INSERT INTO backup VALUES (?, ?)", values)
    # Without a write-ahead log the file can be read where nothing can be written.
    with errors(), closing(sqlite3.connect(scratch)) as connection:
        (mode,) = connection.execute("PRAGMA journal_mode=DELETE").fetchone()
    if mode != "delete":
        raise KeystoreError(f"SQLite keeps to the journal mode {mode}")


def _attach(connection: Connection, files: Sequence[Attached]) -> Tally:
    tally = Tally()
    for file in files:
        row = (file.name, file.content)
        connection.exec_driver_sql("INSERT INTO attached VALUES (?, ?)", row)
        tally.add(row)
    return tally


def _manifest(connection: Connection, tallies: Tallies, now: int) -> Manifest:
    event = schema.event.c
    newest = connection.execute(
        select(event.event_id, event.at).order_by(event.event_id.desc()).limit(1)
    ).first()
    return Manifest(
        made=now,
        made_by=f"hwkm {__version__}",
        installation=connection.execute(select(func.min(schema.installation.c[0]))).scalar_one(),
        revision=REVISION,
        newest_event=None if newest is None else (newest.event_id, newest.at),
        tables={name: _shown(tally) for name, tally in tallies.items()},
    )


def _shown(tally: Tally) -> tuple[int, str]:
    return tally.rows, f"{tally.sum:064x}"


def _digest(manifest: str) -> bytes:
    return hashlib.sha256(manifest.encode()).digest()


def _note(keystore: Keystore, event: Event) -> None:
    try:
        with keystore.writing() as transaction:
            transaction.add_event(event)
    except KeystoreError as error:
        raise KeystoreError(
            f"the backup {event.detail} was made, but the keystore could not note it: {error}",
            hint=error.hint,
        ) from error


@contextmanager
def _saying_where(path: Path) -> Iterator[None]:
    """Say that a failure may be the backup's: its disk is not always the keystore's."""
    try:
        yield
    except KeystoreError as error:
        raise KeystoreError(
            f"no backup was made in {path.parent}: {error}", hint=error.hint
        ) from error


# reading one


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was found to be whole, when it was looked at."""

    path: Path
    manifest: Manifest


def read(path: Path) -> Backup:
    """Look at the whole of a backup.

    :raises KeystoreError: if it is none, or not as it was written.
    """
    with _opened(path) as connection, _in_words():
        manifest = _read_manifest(connection)
        _check_tables(connection, manifest)
        _check_pages(connection)
        for table in manifest.tables:
            for _ in _checked_rows(connection, table, manifest):
                pass
    return Backup(path, manifest)


def attached_files(backup: Backup) -> Iterator[Attached]:
    """Yield the files that are in a backup beside the keystore.

    :raises KeystoreError: as :func:`read` does.
    """
    with _opened(backup.path) as connection:
        for name, content in _checked_rows(connection, "attached", backup.manifest):
            yield Attached(name, content)


def rebuild(backup: Backup, scratch: Path) -> None:
    """Make a new SQLite keystore of this release at ``scratch`` out of the rows of a backup.

    Nothing of the file itself goes into it but rows, and they are compared once more.

    :raises KeystoreError: as :func:`read` does, or if ``scratch`` can't be written.
    """
    url = URL.create("sqlite", database=str(scratch))
    with migrate.place(url).writing() as writer:
        migrate.make_tables(writer.connection, backup.manifest.revision)
    with _opened(backup.path) as source, errors(), closing(sqlite3.connect(scratch)) as target:
        with _in_words():
            if _read_manifest(source) != backup.manifest:
                raise _unsound("it was changed just now")
        for table, (_, columns) in _outline(target).items():
            if table in backup.manifest.tables:
                rows = _checked_rows(source, table, backup.manifest)
                marks = ", ".join("?" * len(columns))
                target.executemany(f'INSERT INTO "{table}" VALUES ({marks})', rows)  # noqa: S608
        target.commit()
    migrate.migrate(url)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a backup for reading, whatever lies beside it.

    What a hostile file says in its schema is not trusted, and is compared before it is used.
    """
    try:
        _refuse_strange(path)
    except OSError as error:
        raise KeystoreError(
            f"the backup {path} can't be read: {error.strerror}",
            hint="It must be there, and the user that hwkm runs as must be able to read it",
        ) from error
    uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    with errors(), closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        yield connection


def _refuse_strange(path: Path) -> None:
    # Without waiting: it may be a pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _unsound("it is no file")
    finally:
        os.close(descriptor)


@contextmanager
def _in_words() -> Iterator[None]:
    """Turn what reading a damaged file raises into an error that says so."""
    try:
        yield
    except (sqlite3.Error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _unsound(str(error)) from error


def _read_manifest(connection: sqlite3.Connection) -> Manifest:
    tables = connection.execute(
        "SELECT name, type, sql FROM sqlite_master WHERE name IN ('attached', 'backup') "
        "ORDER BY name"
    )
    if tables.fetchall() != _OWN_TABLES:
        raise _unsound("it was not made by hwkm keystore backup")
    rows = connection.execute("SELECT manifest, sha256 FROM backup LIMIT 2").fetchall()
    if len(rows) != 1 or len(rows[0][0]) > _MAX_MANIFEST or _digest(rows[0][0]) != rows[0][1]:
        raise _unsound("what it says of itself is damaged")
    manifest = Manifest.decode(rows[0][0])
    if manifest.revision not in migrate.known_revisions():
        raise KeystoreError(
            f"the backup is at revision {manifest.revision}, this release needs {REVISION}",
            hint=f"It was made by {manifest.made_by}: install that release, or a newer one",
        )
    return manifest


def _check_tables(connection: sqlite3.Connection, manifest: Manifest) -> None:
    """Compare the tables with those that a new keystore of the same revision has."""
    wanted = _fresh_outline(manifest.revision)
    found = _outline(connection)
    own = {name: found.pop(name) for name, *_ in _OWN_TABLES}
    if found != wanted:
        names = sorted(set(found.items()) ^ set(wanted.items()))
        raise _unsound(f"its tables are not those of a keystore: {names[0][0]}")
    tables = {name for name, (kind, _) in wanted.items() if kind == "table"} - {_REVISION_TABLE}
    if set(manifest.tables) != tables | own.keys() - {"backup"}:
        raise _unsound("it does not say what is in each of its tables")


def _fresh_outline(revision: str) -> Outline:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        migrate.make_tables(connection, revision)
        outline = _outline(sqlite.driver_of(connection))
    engine.dispose()
    return outline


def _outline(connection: sqlite3.Connection) -> Outline:
    """Return kind and columns of everything in a database.

    The statements that made it are left out: one day their blanks may be other ones.
    """
    kinds = connection.execute("SELECT name, type FROM sqlite_master").fetchall()
    found = {name: kind for name, kind in kinds if not name.startswith("sqlite_")}
    found |= {
        name: kind for _, name, kind, *_ in connection.execute("PRAGMA table_list") if name in found
    }
    return {
        name: (kind, tuple(connection.execute("SELECT * FROM pragma_table_xinfo(?)", (name,))))
        for name, kind in found.items()
    }


def _check_pages(connection: sqlite3.Connection) -> None:
    for pragma in ("integrity_check", "foreign_key_check"):
        found = connection.execute(f"PRAGMA {pragma}").fetchall()
        if found not in ([], [("ok",)]):
            raise _unsound(f"{pragma}: {found[0]}")


def _checked_rows(
    connection: sqlite3.Connection, table: str, manifest: Manifest
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table; at its end, see that they were what they must be."""
    tally = Tally()
    with _in_words():
        for row in connection.execute(f'SELECT * FROM "{table}" ORDER BY rowid'):  # noqa: S608
            tally.add(row)
            yield row
    if _shown(tally) != manifest.tables[table]:
        raise _unsound(f"the rows of the table {table} are not those that were written")


def _unsound(why: str) -> KeystoreError:
    return KeystoreError(f"the file is no sound backup: {why}", hint=_UNSOUND)
