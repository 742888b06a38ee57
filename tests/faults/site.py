"""An installation whose token fails on demand, used for a long time by one process."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hwkm import config as configuration
from hwkm.envelope import Envelope
from hwkm.installation import Installation
from hwkm.manager import Caller
from hwkm.recipients import open_envelope
from hwkm.token.pin import PinReader
from hwkm.tokens import Tokens

from .faulty import Faulty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hwkm.keys import VolumeKey
    from hwkm.manager import Handout, KeyManager
    from tests.getkey.home import Home

CALLER = Caller("tester", "7")
OLD = "Vol-Old"
"""A volume that was labelled before anything failed."""


def put_in_front(home: Home, module: Path) -> None:
    """Put the module that fails on demand between hwkm and SoftHSM."""
    text = home.config.read_text()
    found = re.search(r"module-path=([^&\"]+)", text)
    assert found is not None, text
    with Faulty.opened(home.path / "faults"):
        pass  # the module wants it to be there
    names = f'FAULTS_MODULE = "{found[1]}", FAULTS_STATE = "{home.path / "faults"}", '
    text = text.replace(found[0], f"module-path={module}")
    home.config.write_text(text.replace("environment = { ", "environment = { " + names))


@dataclass(frozen=True, slots=True)
class Site:
    """The parts of an installation, as the agent's process that owns the token holds them."""

    folder: Path
    faulty: Faulty
    tokens: Tokens
    manager: KeyManager

    def label(self, volume: str) -> Handout:
        """Make a key of a volume."""
        return self.manager.label(volume, CALLER)

    def read(self, volume: str, label: bytes | None = None) -> Handout:
        """Ask for the key of a volume."""
        return self.manager.read(volume, label, CALLER)

    def open_alone(self, label: bytes) -> VolumeKey:
        """Open the envelope of a label by the token alone, as on a bare machine."""
        return open_envelope(Envelope.parse(label), self.tokens.identities({})).key

    def count(self, statement: str, *values: object) -> int:
        """Return the one number that the keystore answers."""
        with closing(sqlite3.connect(self.folder / "keystore.db")) as connection:
            number: int = connection.execute(statement, values).fetchone()[0]
        return number

    def given(self) -> int:
        """Return how many keys were given, by the keystore."""
        return self.count(
            "SELECT count(*) FROM event WHERE outcome = 'ok' AND operation IN ('label', 'read')"
        )

    def generations(self, volume: str) -> int:
        """Return how many keys of a volume are on record."""
        return self.count(
            "SELECT count(*) FROM generation JOIN volume USING (volume_id) WHERE name = ?", volume
        )


@contextmanager
def opened(
    config: Path, reload_seconds: float = 0, clock: Callable[[], float] = time.monotonic
) -> Iterator[Site]:
    """Open the installation of a configuration file for a long time."""
    with Faulty.opened(config.with_name("faults")) as faulty:
        installation = Installation(
            configuration.load(config), PinReader(), reload_seconds=reload_seconds
        )
        access = replace(installation.access, clock=clock)
        keystore = installation.keystore(keep=True)
        with Tokens(installation.config, access) as tokens:
            yield Site(config.parent, faulty, tokens, installation.manager(tokens, keystore))
            faulty.heal()
        keystore.close()
