"""Statements that the handing out of every key needs, made ready once.

On SQLite, what SQLAlchemy does around a statement takes several times as long as the statement. So
there they go to the driver as SQLAlchemy writes them, with the same parameters; a server that is
asked takes longer than either, and is asked the usual way.
"""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select

from hwkm.keystore.sqlite import driver_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class _Ready:
    """A statement in SQLite's words; ``names`` are its parameters, ``fixed`` those it brings."""

    sql: str
    names: tuple[str, ...]
    fixed: Mapping[str, Any]
    row: Callable[[Sequence[Any]], Any]

    def values(self, given: Mapping[str, Any]) -> list[Any]:
        """Return the parameters in their order."""
        return [given[name] if name in given else self.fixed[name] for name in self.names]


class Hot:
    """A statement; if it asks for several things at once, their parameter is ``several``."""

    def __init__(self, statement: Any, *, several: str = "", columns: Sequence[str] = ()) -> None:
        """``columns`` are those that an INSERT fills."""
        self._statement = statement
        self._several = several
        self._columns = list(columns)
        self._ready: dict[int, _Ready] = {}

    def rows(self, connection: Connection, values: Mapping[str, Any] | None = None) -> list[Any]:
        """Return the rows that it finds, with the columns' names as attributes."""
        given = dict(values or {})
        if (driver := _sqlite_of(connection)) is None:
            return list(connection.execute(self._statement, given))
        several = list(given.pop(self._several, ()))
        ready = self._made_ready(connection, len(several))
        given |= {f"{self._several}_{place}": one for place, one in enumerate(several, 1)}
        return [ready.row(row) for row in driver.execute(ready.sql, ready.values(given))]

    def many(self, connection: Connection, values: Sequence[dict[str, Any]]) -> None:
        """Run it with each of ``values``; it finds nothing."""
        if (driver := _sqlite_of(connection)) is None:
            connection.execute(self._statement, values)
            return
        ready = self._made_ready(connection, 0)
        driver.executemany(ready.sql, [ready.values(given) for given in values])

    def many_numbers(self, connection: Connection, values: Sequence[dict[str, Any]]) -> list[int]:
        """Run an INSERT with each of ``values``, and return the numbers that the rows got."""
        if _sqlite_of(connection) is None:
            return list(connection.execute(self._statement, values).scalars())
        return [self.rows(connection, given)[0][0] for given in values]

    def _made_ready(self, connection: Connection, count: int) -> _Ready:
        """Return it for ``count`` things at once."""
        if count not in self._ready:
            self._ready[count] = self._make_ready(connection, count)
        return self._ready[count]

    def _make_ready(self, connection: Connection, count: int) -> _Ready:
        dialect, columns = connection.dialect, self._columns or None
        made: Any = self._statement.compile(dialect=dialect, column_keys=columns)
        if self._several:
            several = {self._several: [b""] * count}
            whole = made.construct_expanded_state({**made.params, **several})
            sql, names, fixed = whole.statement, whole.positiontup, whole.parameters
        else:
            sql, names, fixed = str(made), made.positiontup, made.params
        row: Callable[[Sequence[Any]], Any] = tuple
        if isinstance(self._statement, Select):
            make: Any = namedtuple
            row = make("Row", self._statement.selected_columns.keys())._make
        return _Ready(sql, tuple(names), fixed, row)


def _sqlite_of(connection: Connection) -> sqlite3.Connection | None:
    return driver_of(connection) if connection.dialect.name == "sqlite" else None
