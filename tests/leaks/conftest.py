"""What the gate's tests share with those of the Encryption Command."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.getkey.conftest import _copy_of, base, home, labelled, shim_module, shimmed

from .gate import Gate

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["_copy_of", "base", "home", "labelled", "shim_module", "shimmed"]

_numbers = itertools.count()


@pytest.fixture
def gate(base: Path) -> Gate:
    folder = base / f"gate-{next(_numbers)}"
    folder.mkdir()
    folder.chmod(0o711)
    return Gate(folder)
