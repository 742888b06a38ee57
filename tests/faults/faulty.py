"""The module that fails on demand (faults.c), from the outside: what it shall do, what it saw."""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).with_name("faults.c")

CODES = {
    "CKR_DEVICE_ERROR": 0x30,
    "CKR_GENERAL_ERROR": 0x05,
    "CKR_TOKEN_NOT_PRESENT": 0xE0,
    "CKR_SESSION_HANDLE_INVALID": 0xB3,
    "CKR_USER_NOT_LOGGED_IN": 0x101,
    "CKR_DEVICE_REMOVED": 0x32,
    "CKR_FUNCTION_FAILED": 0x06,
    "CKR_CRYPTOKI_NOT_INITIALIZED": 0x190,
}
FUNCTIONS = {
    "C_Initialize": 0,
    "C_Finalize": 1,
    "C_OpenSession": 12,
    "C_Login": 18,
    "C_Logout": 19,
    "C_FindObjects": 27,
    "C_Encrypt": 30,
    "C_Decrypt": 34,
    "C_Sign": 43,
    "C_GenerateRandom": 64,
}
"""Places in the function list of PKCS #11 v2.40, of those that the tests name."""


class Until(IntEnum):
    """How long calls go on failing."""

    ONCE = 0
    HEALED = 1
    RELOADED = 2


ALL, LOGINS, PIN_BYTES, WORD = 68, 64, 32, 8
FAIL_AT, CODE, UNTIL, AFTER = range(4)
CHOSEN = 4
COUNTED, FAILED = CHOSEN + ALL, CHOSEN + ALL + 1
CALLS = FAILED + 1
LOGIN_COUNT = CALLS + ALL
PINS = (LOGIN_COUNT + 1) * WORD
SIZE = PINS + LOGINS * PIN_BYTES


@dataclass(frozen=True, slots=True)
class Faulty:
    """The state that the module and the tests share."""

    shared: mmap.mmap

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Faulty]:
        """Open the file ``path``, made if it is missing: nothing fails yet."""
        with path.open("a+b") as file:
            file.truncate(SIZE)
            with mmap.mmap(file.fileno(), SIZE) as shared:
                yield cls(shared)

    def fail(
        self,
        code: int,
        at: int = 1,
        *functions: str,
        until: Until = Until.HEALED,
        after: bool = False,
    ) -> None:
        """Let the ``at``-th call of these functions, or of any, fail, and later ones ``until``.

        ``after``: the module does its work all the same.
        """
        chosen = [FUNCTIONS[name] for name in functions] or range(ALL)
        for index in range(ALL):
            self._put(CHOSEN + index, int(index in chosen))
        self._put(COUNTED, 0)
        self._put(FAILED, 0)
        for place, value in ((CODE, code), (UNTIL, until), (AFTER, after), (FAIL_AT, at)):
            self._put(place, int(value))

    def heal(self) -> None:
        """Let nothing fail from now on."""
        self._put(FAIL_AT, 0)

    @property
    def counted(self) -> int:
        """How many calls there were since :meth:`fail`, of those that can fail."""
        return self._get(COUNTED)

    @property
    def failed(self) -> int:
        """How many calls failed since :meth:`fail`."""
        return self._get(FAILED)

    def calls(self, name: str) -> int:
        """Return how often a function was called so far."""
        return self._get(CALLS + FUNCTIONS[name])

    def logins(self) -> Counter[str]:
        """Return how often each PIN was given to the token so far."""
        count = self._get(LOGIN_COUNT)
        assert count <= LOGINS, "the module forgot some"
        found = (PINS + number * PIN_BYTES for number in range(count))
        raw = (self.shared[at : at + PIN_BYTES] for at in found)
        return Counter(pin.rstrip(b"\0").decode() for pin in raw)

    def _put(self, place: int, value: int) -> None:
        struct.pack_into("=Q", self.shared, place * WORD, value)

    def _get(self, place: int) -> int:
        value: int = struct.unpack_from("=Q", self.shared, place * WORD)[0]
        return value
