"""Opening a keystore, and its transactions."""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

from hwkm.errors import ConfigError, KeystoreError
from hwkm.keystore import dialects, schema, sqlite
from hwkm.keystore.rows import DAMAGED
from hwkm.keystore.store import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

REVISION = "0003"
"""The migration that this release works with."""


# No limit on further connections: a transaction inside of another would wait for ever.
_KEPT: dict[str, Any] = {
    "poolclass": QueuePool,
    "pool_size": 1,
    "max_overflow": -1,
}
_NOT_KEPT: dict[str, Any] = {"poolclass": NullPool}

_NO_KEYSTORE = (
    "Restore it from its backup; without one, hwkm master create makes an empty one, and every "
    "volume's own label, or its tape's chip, still opens it"
)


class KeystoreMissingError(KeystoreError):
    """There is no keystore at the configured place."""


class Keystore:
    """An opened keystore. One writer transaction per use case.

    If the engine keeps its connection, each new one is checked again to be ``installation``'s
    keystore: in the meantime it may have been restored, migrated or put elsewhere.
    """

    def __init__(self, engine: Engine, installation: str = "") -> None:
        self.engine = engine
        self._installation = installation
        self._keeps = not isinstance(engine.pool, NullPool)
        url = engine.url
        self._file = sqlite.file_of(url) if self._keeps and sqlite.is_sqlite(url) else None
        self._spare: Connection | None = None

    @classmethod
    def open(cls, url: str | URL, installation: str = "", *, keep: bool = False) -> Keystore:
        """Open the keystore at ``url`` and check that it is ours and of this release.

        ``keep`` is for a process that lives long and has one thread: its connection is kept from
        one transaction to the next, as long as it leads to the same keystore.

        :raises KeystoreMissingError: if there is none.
        :raises KeystoreError: if it can't be read, is of another release, or of another
            installation than ``installation`` (when that is given).
        :raises ConfigError: if ``url`` is not a database URL.
        """
        parsed = parse_url(url)
        if sqlite.is_sqlite(parsed) and not sqlite.file_of(parsed).exists():
            raise KeystoreMissingError(
                f"there is no keystore {sqlite.file_of(parsed)}", hint=_NO_KEYSTORE
            )
        keystore = cls(make_engine(parsed, keep=keep), installation)
        with keystore.reading() as transaction:
            _check_identity(transaction, installation)
        return keystore

    @property
    def is_gone(self) -> bool:
        """Whether the file of one whose connection is kept is not there any more."""
        return self._file is not None and not self._file.exists()

    def close(self) -> None:
        """Close the connection, if one is kept."""
        if self._spare is not None:
            self._spare.close()
        self._spare = None
        self.engine.dispose()

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[Transaction]:
        """Run one transaction that may write: all of it is committed, or nothing.

        One that is not ``durable`` may be undone by a power cut, until the next that is; by the end
        of a process it is not. Only SQLite makes a difference.

        :raises KeystoreError: if the database fails; then nothing was written.
        """
        with self._begun(hwkm_writes=True, hwkm_durable=durable) as transaction:
            yield transaction

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Run one transaction that only reads.

        :raises KeystoreError: if the database fails.
        """
        with self._begun(hwkm_writes=False) as transaction:
            yield transaction

    @contextmanager
    def snapshot(self) -> Iterator[Transaction]:
        """Run one transaction that reads the whole of one state, whoever writes meanwhile.

        Only for a keystore whose connection is not kept.

        :raises KeystoreError: if the database fails.
        """
        with self.reading() as transaction:
            dialects.named(self.engine.dialect.name).freeze(transaction.connection)
            yield transaction

    @contextmanager
    def _begun(self, **options: bool) -> Iterator[Transaction]:
        with (
            errors(),
            self._connected() as connection,
            connection.execution_options(**options).begin(),
        ):
            yield self._checked(Transaction(connection))

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """Give a connection, on SQLite the last one again if it is kept.

        It is the pool that keeps it; but to fetch it there for each transaction, and to bring it
        back, takes longer than the statements of a READ. Within a transaction it is in use, and
        another one is given.
        """
        spare, self._spare = self._spare, None
        if spare is not None and not sqlite.is_current(spare):
            spare.close()  # the pool looks at it once more, and opens another
            spare = None
        with ExitStack() as stack:
            connection = spare or self.engine.connect()
            stack.callback(connection.close)  # on an error too: then all of it is undone
            yield connection
            if self._file is not None and self._spare is None:
                self._spare = connection
                stack.pop_all()

    def _checked(self, transaction: Transaction) -> Transaction:
        known = transaction.connection.info
        if self._keeps and "checked" not in known:
            _check_identity(transaction, self._installation)
            known["checked"] = True
        return transaction

    def problems(self) -> list[str]:
        """Return what the database's own integrity check finds; nothing if all is sound.

        :raises KeystoreError: if it can't even be asked.
        """
        with errors(), self.engine.connect() as connection:
            return dialects.named(self.engine.dialect.name).problems(connection)


def parse_url(url: str | URL) -> URL:
    """Return ``url`` taken apart.

    :raises ConfigError: if it is not a database URL.
    """
    try:
        return make_url(url)
    except ArgumentError as error:
        raise ConfigError(
            "keystore is not a database URL",
            hint="Write sqlite:////absolute/path/keystore.db or postgresql+psycopg://host/name",
        ) from error


def make_engine(url: URL, *, keep: bool = False) -> Engine:
    """Return an engine for ``url`` without connecting; ``keep`` as for :meth:`Keystore.open`.

    :raises ConfigError: if no driver for it is installed, or it is no place for a keystore.
    """
    special = dialects.named(url.get_backend_name())
    options = special.connect_options(url)
    try:
        engine = create_engine(
            url,
            connect_args=options,
            hide_parameters=True,
            pool_pre_ping=keep and not sqlite.is_sqlite(url),  # a file is looked at in another way
            **(_KEPT if keep else _NOT_KEPT),
        )
    except (ImportError, NoSuchModuleError) as error:
        raise ConfigError(f"no driver for {url.drivername} is installed: {error}") from error
    special.prepare(engine)
    if keep:
        special.keep_current(engine)
    return engine


def revision_of(connection: Connection) -> str | None:
    """Return the migration a database is at, or None if it holds no keystore."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.exec_driver_sql(
        "SELECT version_num FROM alembic_version"
    ).scalar()
    return found


def _check_identity(transaction: Transaction, installation: str) -> None:
    revision = revision_of(transaction.connection)
    if revision is None and inspect(transaction.connection).get_table_names():
        raise KeystoreError(
            "the database holds something else, and no keystore",
            hint="Correct keystore in the configuration, or restore the keystore's backup",
        )
    if revision is None:
        raise KeystoreMissingError("the database holds no keystore", hint=_NO_KEYSTORE)
    if revision != REVISION:
        raise KeystoreError(
            f"the keystore is at revision {revision}, this release needs {REVISION}",
            hint="Run hwkm keystore migrate after a backup, or install the matching release",
        )
    found = transaction.connection.execute(select(schema.installation)).scalar()
    if installation and found != installation:
        raise KeystoreError(
            f"the keystore belongs to installation {found}, the configuration to {installation}",
            hint="Point keystore at the right database, or restore the right backup",
        )


@contextmanager
def errors() -> Iterator[None]:
    """Turn what the database raises into a :class:`KeystoreError` that says what to do."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        # PostgreSQL's further lines are details and hints of its own.
        text = str(getattr(error, "orig", error)).partition("\n")[0]
        raise KeystoreError(f"the keystore failed: {text}", hint=_advice(text)) from error
    except SQLAlchemyError as error:
        raise KeystoreError(f"the keystore failed: {type(error).__name__}") from error
    except UnicodeDecodeError as error:
        # In a damaged file even SQLite's message about it can be unreadable.
        raise KeystoreError("the keystore failed: database is malformed", hint=DAMAGED) from error


def _advice(text: str) -> str:
    for symptom, advice in _ADVICE.items():
        if symptom in text:
            return advice
    return "Check the database, and keystore in the configuration"


_OWNER = "Its file and folder must belong to the user that hwkm runs as"
_ROOM = "Make room on the disk; nothing was written and nothing was lost"

_ADVICE = {
    "locked": "Another process is writing to it; find it with fuser, or try again",
    "lock timeout": "Another process is writing to it; find it in pg_stat_activity, or try again",
    "readonly": _OWNER,
    "unable to open": _OWNER,
    "full": _ROOM,
    "disk I/O": f"{_ROOM}. If there is room, see the kernel's log about the disk",
    "No space left": _ROOM,
    "malformed": DAMAGED,
    "not a database": "Restore it from its backup, or correct keystore in the configuration",
    "connection": "See that the server runs and lets this user in, and that keystore names it",
    "permission denied": "Give its tables to the database user that keystore names",
    "read-only": "It must be writable: no key is given without an event that says so",
}
