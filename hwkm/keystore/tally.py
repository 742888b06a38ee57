"""A number for the rows of a table: copies are compared by it, in whatever order the rows come."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Value: TypeAlias = int | str | bytes | None

_MODULUS = 2**256


@dataclass(slots=True)
class Tally:
    """How many rows there were, and the sum of their SHA-256 digests.

    It tells of damage and of rows left out. It is no signature.
    """

    rows: int = 0
    sum: int = 0

    def add(self, row: Sequence[Value]) -> None:
        """Take one row in; its columns must always come in the same order."""
        digest = hashlib.sha256(b"".join(map(_encoded, row))).digest()
        self.sum = (self.sum + int.from_bytes(digest, "big")) % _MODULUS
        self.rows += 1


def _encoded(value: Value) -> bytes:
    match value:
        case None:
            return b"n"
        case int():
            kind, content = b"i", b"%d" % value
        case str():
            kind, content = b"s", value.encode()
        case bytes():
            kind, content = b"b", value
    return b"%b%d:%b" % (kind, len(content), content)
