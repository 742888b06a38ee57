"""The kinds of database a keystore can be in, each with a module for what is special to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from hwkm.errors import ConfigError
from hwkm.keystore import postgresql, sqlite

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import URL


class Dialect(Protocol):
    """What the modules :mod:`~hwkm.keystore.sqlite` and :mod:`~hwkm.keystore.postgresql` have."""

    @property
    def APPEND_ONLY(self) -> tuple[str, ...]:  # noqa: N802  # a module's constant
        """Statements that make the database itself keep events and envelopes as they are."""

    @property
    def PROOFS_APPEND_ONLY(self) -> tuple[str, ...]:  # noqa: N802  # a module's constant
        """The same for proofs."""

    def connect_options(self, url: URL, /) -> dict[str, Any]:
        """Return what the driver needs besides ``url``."""

    def prepare(self, engine: Engine, /) -> None:
        """Set up every connection of ``engine``."""

    def keep_current(self, engine: Engine, /) -> None:
        """Let a connection that is kept be used again only if it leads to the same keystore."""

    def lock_creation(self, connection: Connection, /) -> None:
        """Let nobody else make tables until the transaction ends."""

    def freeze(self, connection: Connection, /) -> None:
        """Let a transaction that has just begun see one state to its end, and only read."""

    def continue_numbers(self, connection: Connection, /) -> None:
        """Let new rows be numbered after those that were copied with their numbers."""

    def problems(self, connection: Connection, /) -> list[str]:
        """Return what the database's own check finds wrong; nothing if all is sound."""

    def size(self, connection: Connection, /) -> int:
        """Return how many bytes it takes."""


_KNOWN: dict[str, Dialect] = {"sqlite": sqlite, "postgresql": postgresql}


def named(name: str) -> Dialect:
    """Return the dialect that SQLAlchemy calls ``name``.

    :raises ConfigError: if there is none.
    """
    if name not in _KNOWN:
        raise ConfigError(
            f"a keystore can't be in a database of the kind {name!r}",
            hint="Write sqlite:////absolute/path/keystore.db or postgresql+psycopg://host/name",
        )
    return _KNOWN[name]
