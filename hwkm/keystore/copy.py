"""Copying a keystore into another database, such as from SQLite to PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, inspect, select

from hwkm.errors import KeystoreError
from hwkm.keystore import dialects, migrate, schema
from hwkm.keystore.engine import Keystore

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

_BATCH = 500


def copy(source: str, target: str) -> Keystore:
    """Copy the keystore at ``source`` into an empty database, and return the copy, opened.

    It is one transaction: broken off at any point, ``target`` is as empty as before. Nobody
    should write to ``source`` meanwhile: that would not be in the copy.

    :raises KeystoreError: if ``source`` can't be read, or ``target`` is not empty.
    """
    old = Keystore.open(source)
    with old.reading() as reader, migrate.place(target).writing() as writer:
        _refuse_used(writer.connection)
        migrate.make_tables(writer.connection)
        for table in schema.metadata.sorted_tables:
            _copy_rows(table, reader.connection, writer.connection)
        dialects.named(writer.connection.dialect.name).continue_numbers(writer.connection)
    return Keystore.open(target)


def _refuse_used(connection: Connection) -> None:
    if inspect(connection).get_table_names():
        raise KeystoreError(
            "the database to copy into is not empty",
            hint="Make a new one; nothing was changed",
        )


def _copy_rows(table: Table, source: Connection, target: Connection) -> None:
    for rows in source.execute(select(table)).mappings().partitions(_BATCH):
        target.execute(insert(table), [dict(row) for row in rows])
