"""All modules by name, for tests that run on each of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from . import TokenUnderTest, p11kit, softhsm, tpm

Starter = Callable[[Path], AbstractContextManager[TokenUnderTest]]

STARTERS: dict[str, Starter] = {
    "softhsm": softhsm.running,
    "p11kit": p11kit.running,
    "tpm": tpm.running,
}
