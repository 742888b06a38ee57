"""All that is special to SQLite."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError

from hwkm.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

BUSY_SECONDS = 5
"""How long to wait for another writer."""

PRAGMAS = (
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA secure_delete=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
)

_KEEP = (
    "CREATE TRIGGER {0}_no_{2} BEFORE {1} ON {0} "
    "BEGIN SELECT RAISE(ABORT, '{0} rows are kept as they are'); END"
)

APPEND_ONLY = (
    _KEEP.format("event", "UPDATE", "update"),
    _KEEP.format("event", "DELETE", "delete"),
    _KEEP.format("envelope", "UPDATE", "update"),
)
"""Part of migration 0001; a later migration that changes them brings its own."""

PROOFS_APPEND_ONLY = (
    _KEEP.format("proof", "UPDATE", "update"),
    _KEEP.format("proof", "DELETE", "delete"),
)
"""Part of migration 0002."""


def is_sqlite(url: URL) -> bool:
    """Return whether ``url`` names a SQLite keystore."""
    return url.get_backend_name() == "sqlite"


def file_of(url: URL) -> Path:
    """Return the file of a SQLite keystore.

    :raises ConfigError: if it has none; a keystore in memory would lose every key.
    """
    if not url.database or url.database == ":memory:" or not Path(url.database).is_absolute():
        raise ConfigError(
            f"the keystore URL {url} does not name a file",
            hint="Write sqlite:////absolute/path/keystore.db (four slashes)",
        )
    return Path(url.database)


def connect_options(_url: URL) -> dict[str, Any]:
    """Return what the driver needs besides the URL."""
    return {"timeout": BUSY_SECONDS}


def prepare(engine: Engine) -> None:
    """Set up every connection of ``engine``: durable commits, real transactions."""

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        # Python's sqlite3 would otherwise begin transactions when it thinks fit.
        connection.isolation_level = None
        _use_wal(connection)
        for pragma in PRAGMAS:
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        writes = options.get("hwkm_writes", False)
        if writes:
            _wait_for_disk(connection, durable=options.get("hwkm_durable", True))
        driver_of(connection).execute("BEGIN IMMEDIATE" if writes else "BEGIN")


def driver_of(connection: Connection) -> sqlite3.Connection:
    """Return SQLite's own connection: SQLAlchemy takes several times as long for a statement."""
    driver: sqlite3.Connection = connection.connection.dbapi_connection  # type: ignore[assignment]
    return driver


def _wait_for_disk(connection: Connection, *, durable: bool) -> None:
    """Let commits from now on wait for the disk, or be written to it later, in their order."""
    if connection.info.setdefault("durable", True) is not durable:
        driver_of(connection).execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        connection.info["durable"] = durable


def keep_current(engine: Engine) -> None:
    """Let a kept connection be used again only if it still leads to the same file and tables.

    A keystore that was restored is another file of the same name; what is written to the old one
    would be lost.
    """
    path = str(file_of(engine.url))

    @event.listens_for(engine, "checkout")
    def _checkout(connection: Any, record: Any, _proxy: object) -> None:
        record.info.setdefault("path", path)
        now = _identity(connection, path)
        if now is None or record.info.setdefault("identity", now) != now:
            raise DisconnectionError


def is_current(connection: Connection) -> bool:
    """Return whether a connection that was kept still leads to the same file and tables."""
    known = connection.info
    try:
        return bool(_identity(driver_of(connection), known["path"]) == known["identity"])
    except sqlite3.Error:
        return False  # what is wrong is said of a new one


def _identity(connection: sqlite3.Connection, path: str) -> tuple[int, ...] | None:
    try:
        file = os.stat(path)  # noqa: PTH116  # before every transaction
    except FileNotFoundError:
        return None
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    return file.st_dev, file.st_ino, version


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch the file to a write-ahead log, unless it has one.

    SQLite doesn't wait for others here, as it does elsewhere: of two that switch at once, one is
    told at once that the file is locked.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def lock_creation(_connection: Connection) -> None:
    """Do nothing: whoever writes to a file is alone in it."""


def freeze(_connection: Connection) -> None:
    """Do nothing: whoever reads a file sees the state in which it was at the first statement."""


def continue_numbers(_connection: Connection) -> None:
    """Do nothing: SQLite goes on from the highest number by itself."""


def problems(connection: Connection) -> list[str]:
    """Return what SQLite's own check finds wrong in the whole file; nothing if it is sound."""
    rows = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    foreign = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    found = [str(row) for row in rows if row != "ok"]
    return found + [f"{row[0]} row {row[1]} points at nothing" for row in foreign]


def size(connection: Connection) -> int:
    """Return how many bytes the keystore takes, without its write-ahead log."""
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    return int(pages) * int(connection.exec_driver_sql("PRAGMA page_size").scalar_one())
