"""Installations of hwkm on disk: opened and looked at, copied as a list of all that is in them."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hwkm import config as configuration
from hwkm.installation import Installation
from hwkm.token.pin import PinReader

from .workshop import Workshop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def opened(config: Path) -> Iterator[Workshop]:
    """Open the keystore and the only token of the installation that ``config`` belongs to."""
    installation = Installation(configuration.load(config), PinReader())
    with installation.tokens(writable=True) as tokens:
        yield Workshop(installation.keystore().open(), tokens.session())


def everything(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return mode, time and content of every file and folder below ``folder``, and itself."""
    found = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found
