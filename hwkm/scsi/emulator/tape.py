"""What is written on the cartridges: logical objects, as they lie on the tape."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

BLOCK, FILEMARK = 0, 1

CLEAR, EXTERNAL, ENCRYPTED = 0, 1, 2
"""How a block was written: the ENCRYPTION MODE of that time."""

TABLE = (
    """CREATE TABLE objects (
        barcode TEXT NOT NULL, number INTEGER NOT NULL, kind INTEGER NOT NULL, data BLOB NOT NULL,
        encryption INTEGER NOT NULL, algorithm INTEGER NOT NULL, nonce BLOB NOT NULL,
        key_check BLOB NOT NULL, u_kad BLOB, a_kad BLOB, kad_format INTEGER NOT NULL,
        raw_disabled INTEGER NOT NULL, PRIMARY KEY (barcode, number))""",
    "CREATE INDEX encrypted ON objects (barcode, number) WHERE encryption > 0",
    "CREATE INDEX filemarks ON objects (barcode, number) WHERE kind = 1",
)


@dataclass(frozen=True, slots=True)
class MediumObject:
    """A block or a filemark as it lies on the tape.

    ``data`` is what was recorded: for an encrypted block the ciphertext, and the tag after it.
    ``algorithm`` is the security algorithm code, ``key_check`` tells a wrong key from damage.
    """

    kind: int = BLOCK
    data: bytes = b""
    encryption: int = CLEAR
    algorithm: int = 0
    nonce: bytes = b""
    key_check: bytes = b""
    u_kad: bytes | None = None
    a_kad: bytes | None = None
    kad_format: int = 0
    raw_disabled: int = 0

    @property
    def is_block(self) -> bool:
        """Whether it is a block, and no filemark."""
        return self.kind == BLOCK

    @property
    def is_encrypted(self) -> bool:
        """Whether the block was written in an encrypting mode."""
        return self.encryption != CLEAR


class Tape:
    """The logical objects of all cartridges, by barcode and logical object number."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def end(self, barcode: str) -> int:
        """Return the number that the next object to be appended gets."""
        return self._number("SELECT max(number) + 1 FROM objects WHERE barcode = ?", barcode) or 0

    def get(self, barcode: str, number: int) -> MediumObject | None:
        """Return the object with this number; None at the end of data."""
        row = self._connection.execute(
            "SELECT kind, data, encryption, algorithm, nonce, key_check, u_kad, a_kad, kad_format, "
            "raw_disabled FROM objects WHERE barcode = ? AND number = ?",
            (barcode, number),
        ).fetchone()
        return None if row is None else MediumObject(*row)

    def put(self, barcode: str, number: int, one: MediumObject) -> None:
        """Write an object; whatever followed it is lost."""
        self.cut(barcode, number)
        self._connection.execute(
            "INSERT INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (barcode, number, *astuple(one)),
        )

    def cut(self, barcode: str, number: int) -> None:
        """Remove the object with this number and all that follow it."""
        self._connection.execute(
            "DELETE FROM objects WHERE barcode = ? AND number >= ?", (barcode, number)
        )

    def damage(self, barcode: str, number: int) -> None:
        """Flip the last bit of a block."""
        (data,) = self._connection.execute(
            "SELECT data FROM objects WHERE barcode = ? AND number = ?", (barcode, number)
        ).fetchone()
        self._connection.execute(
            "UPDATE objects SET data = ? WHERE barcode = ? AND number = ?",
            (data[:-1] + bytes((data[-1] ^ 1,)), barcode, number),
        )

    def first_encrypted(self, barcode: str) -> int | None:
        """Return the number of the first encrypted block."""
        return self._number(
            "SELECT min(number) FROM objects WHERE barcode = ? AND encryption > 0", barcode
        )

    def first_clear(self, barcode: str) -> int | None:
        """Return the number of the first block in clear after the first encrypted one."""
        return self._number(
            "SELECT min(number) FROM objects WHERE barcode = ?1 AND kind = 0 AND encryption = 0 "
            "AND number > (SELECT min(number) FROM objects WHERE barcode = ?1 AND encryption > 0)",
            barcode,
        )

    def next_filemark(self, barcode: str, number: int) -> int | None:
        """Return the number of the first filemark at or after ``number``."""
        return self._number(
            "SELECT min(number) FROM objects WHERE barcode = ? AND kind = 1 AND number >= ?",
            barcode,
            number,
        )

    def last_filemark(self, barcode: str, number: int) -> int | None:
        """Return the number of the last filemark before ``number``."""
        return self._number(
            "SELECT max(number) FROM objects WHERE barcode = ? AND kind = 1 AND number < ?",
            barcode,
            number,
        )

    def used_bytes(self, barcode: str) -> int:
        """Return how much is recorded."""
        found = self._number("SELECT sum(length(data)) FROM objects WHERE barcode = ?", barcode)
        return found or 0

    def _number(self, statement: str, *values: str | int) -> int | None:
        (found,) = self._connection.execute(statement, values).fetchone()
        return None if found is None else int(found)
