"""Creating a keystore, and bringing an older one up to this release (alembic)."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from hwkm.errors import KeystoreError
from hwkm.keystore import dialects, sqlite
from hwkm.keystore.engine import REVISION, Keystore, errors, make_engine, parse_url, revision_of
from hwkm.keystore.records import Event, Operation, Outcome

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import URL

MIGRATIONS = Path(__file__).parent / "migrations"


def create(url: str, installation: str, *, now: int, who: str) -> Keystore:
    """Create an empty keystore at ``url`` and open it.

    Tables, installation id and the first event are one transaction: killed at any point, there
    is a whole keystore or none. One that is there already, complete or not begun, is kept.

    :raises KeystoreError: if the place holds another installation's keystore, or can't be written.
    """
    with place(url).writing() as transaction:
        if make_tables(transaction.connection):
            transaction.set_installation(installation or new_installation(), now)
            transaction.add_event(Event(now, who, Operation.KEYSTORE_CREATE, Outcome.OK))
    return Keystore.open(url, installation)


def place(url: str | URL) -> Keystore:
    """Return what is at ``url``, to make a keystore there; in SQLite's case its file is made.

    :raises KeystoreError: if the file can't be made.
    """
    engine = make_engine(parse_url(url))
    if sqlite.is_sqlite(engine.url):
        _make_file(sqlite.file_of(engine.url))
    return Keystore(engine)


def make_tables(connection: Connection, revision: str = REVISION) -> bool:
    """Make all tables, but if there are some; return whether they were made.

    ``revision`` is another than this release's for what an older one has written.
    """
    dialects.named(connection.dialect.name).lock_creation(connection)
    missing = revision_of(connection) is None
    if missing:
        _upgrade(connection, revision)
    return missing


def known_revisions() -> set[str]:
    """Return every revision that this release can bring up to its own."""
    scripts = ScriptDirectory.from_config(_config())
    return {script.revision for script in scripts.walk_revisions()}


def migrate(url: str | URL) -> str:
    """Bring the keystore at ``url`` to this release's revision, in one transaction; return it.

    :raises KeystoreError: if there is none, or the migration fails; then nothing was changed.
    """
    parsed = parse_url(url)
    hint = "Correct keystore in the configuration, or restore the keystore's backup"
    # SQLite would make an empty file, which is worse than none.
    if sqlite.is_sqlite(parsed) and not sqlite.file_of(parsed).exists():
        raise KeystoreError(f"there is no keystore {sqlite.file_of(parsed)}", hint=hint)
    keystore = Keystore(make_engine(parsed))
    with keystore.writing() as transaction:
        if revision_of(transaction.connection) is None:
            raise KeystoreError("the database holds no keystore", hint=hint)
        _upgrade(transaction.connection)
    return REVISION


def new_installation() -> str:
    """Return a new random installation id, 16 hex digits."""
    return secrets.token_hex(8)


def _make_file(path: Path) -> None:
    with errors():
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise KeystoreError(f"the keystore {path} can't be made: {error.strerror}") from error


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _upgrade(connection: Connection, revision: str = REVISION) -> None:
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise KeystoreError(
            f"the keystore can't be brought to revision {REVISION}: {error}",
            hint="A newer release has written it: install that one again",
        ) from error
