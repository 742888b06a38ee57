"""Copying a keystore into another database, such as from SQLite to PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, inspect, select

from hwkm.errors import KeystoreError
from hwkm.keystore import dialects, migrate, schema
from hwkm.keystore.engine import Keystore
from hwkm.keystore.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Table
    from sqlalchemy.engine import URL

    from hwkm.keystore.store import Transaction

_BATCH = 500
Tallies = dict[str, Tally]


def copy(
    source: str | URL, target: str | URL, finish: Callable[[Transaction], None] | None = None
) -> Keystore:
    """Copy the keystore at ``source`` into an empty database, and return the copy, opened.

    It is one transaction, in which the copy is read again and compared: broken off at any point,
    ``target`` is as empty as before. What is written to ``source`` meanwhile is not in the copy.

    :param finish: called at the end of that transaction, to write what the copy has beyond it.
    :raises KeystoreError: if ``source`` can't be read, or ``target`` is not empty.
    """
    old = Keystore.open(source)
    with old.snapshot() as reader, migrate.place(target).writing() as writer:
        copy_rows(reader.connection, writer.connection)
        if finish is not None:
            finish(writer)
    return Keystore.open(target)


def copy_rows(source: Connection, target: Connection) -> Tallies:
    """Make all tables in an empty database, copy all rows into them, and compare.

    :raises KeystoreError: if it is not empty, or the copy differs.
    """
    _refuse_used(target)
    if not migrate.make_tables(target):
        raise _used()  # somebody else has made them since
    tallies = {table.name: _copy_table(table, source, target) for table in _tables()}
    dialects.named(target.dialect.name).continue_numbers(target)
    for table in _tables():
        if _tally(table, target) != tallies[table.name]:
            raise KeystoreError(
                f"what was written into the table {table.name} is not what was read",
                hint="Nothing was kept of it. Look at memory and disk of this machine",
            )
    return tallies


def _tables() -> list[Table]:
    return schema.metadata.sorted_tables


def _refuse_used(connection: Connection) -> None:
    if inspect(connection).get_table_names():
        raise _used()


def _used() -> KeystoreError:
    return KeystoreError(
        "the database to copy into is not empty", hint="Make a new one; nothing was changed"
    )


def _copy_table(table: Table, source: Connection, target: Connection) -> Tally:
    tally = Tally()
    names = table.columns.keys()
    for rows in _batches(table, source):
        for row in rows:
            tally.add(row)
        target.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])
    return tally


def _tally(table: Table, connection: Connection) -> Tally:
    tally = Tally()
    for rows in _batches(table, connection):
        for row in rows:
            tally.add(row)
    return tally


def _batches(table: Table, connection: Connection) -> Iterator[list[tuple[int | str | bytes]]]:
    """Yield all rows, some at a time: there may be more than fit into memory."""
    options = {"yield_per": _BATCH}
    with connection.execute(select(table), execution_options=options) as result:
        for rows in result.partitions():
            yield [tuple(row) for row in rows]
