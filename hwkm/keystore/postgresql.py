"""All that is special to PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event, func, select

from hwkm.keystore import schema

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL

BUSY_SECONDS = 5
"""How long to wait for the server, and for another writer."""

_REFUSE = """\
CREATE FUNCTION keep_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '% rows are kept as they are', TG_TABLE_NAME; END $$"""
_KEEP = "CREATE TRIGGER {0}_kept BEFORE {1} ON {0} FOR EACH STATEMENT EXECUTE FUNCTION keep_rows()"

APPEND_ONLY = (
    _REFUSE,
    _KEEP.format("event", "UPDATE OR DELETE OR TRUNCATE"),
    _KEEP.format("envelope", "UPDATE OR TRUNCATE"),
)
"""Part of migration 0001; a later migration that changes them brings its own."""

PROOFS_APPEND_ONLY = (_KEEP.format("proof", "UPDATE OR DELETE OR TRUNCATE"),)
"""Part of migration 0002."""

# A server may be set up to call a commit done before it is on disk.
_ON_DISK = """\
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') = 'off'"""
_SETTINGS = (f"SET lock_timeout = '{BUSY_SECONDS}s'", _ON_DISK)
_CREATION = int.from_bytes(b"hwkm", "big")
"""The advisory lock that is held while tables are made."""


def connect_options(url: URL) -> dict[str, Any]:
    """Return what the driver needs besides ``url``."""
    return {} if "connect_timeout" in url.query else {"connect_timeout": BUSY_SECONDS}


def prepare(engine: Engine) -> None:
    """Set up every connection of ``engine``: durable commits, no endless waits."""

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            for setting in _SETTINGS:
                cursor.execute(setting)
        connection.commit()


def keep_current(_engine: Engine) -> None:
    """Do nothing: that the server answers, and so has not changed, is asked before each use."""


def lock_creation(connection: Connection) -> None:
    """Let nobody else make tables until the transaction ends."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_CREATION})")


def freeze(connection: Connection) -> None:
    """Let a transaction that has just begun see one state to its end, and only read."""
    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def continue_numbers(connection: Connection) -> None:
    """Let new rows be numbered after those that were copied into their tables."""
    for column in (schema.volume.c.volume_id, schema.event.c.event_id, schema.proof.c.proof_id):
        sequence = func.pg_get_serial_sequence(column.table.name, column.name)
        connection.execute(select(func.setval(sequence, func.max(column))))


def problems(_connection: Connection) -> list[str]:
    """Return nothing: the server has no check of its own that SQL could ask for."""
    return []


def size(connection: Connection) -> int:
    """Return how many bytes the whole database takes."""
    return int(
        connection.execute(select(func.pg_database_size(func.current_database()))).scalar_one()
    )
