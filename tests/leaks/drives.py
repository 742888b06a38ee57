"""An emulated drive beside an installation, with all of hwkm's processes under the gate.

The drive's file holds the key, as a drive does; that is all that may. So it stands where the gate
does not look.
"""

from __future__ import annotations

import io
import os
import shlex
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.scsi.emulator import Drive, EmulatorTransport
from hwkm.scsi.emulator.store import opened
from hwkm.scsi.emulator.stream import to_the_beginning, write_file
from tests.getkey import process

if TYPE_CHECKING:
    from pathlib import Path

    from .test_leaks import Watched

CARTRIDGE = "L80001L8"
BLOCK_BYTES = 4096
KEY_BYTES = 32

CHANGER = """#!/bin/sh
case $2 in
    load) exec {hwkm} emulator insert {drive} {cartridge} ;;
    unload) exec {hwkm} emulator eject {drive} ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Station:
    """A drive, and the installation that gives it keys."""

    watched: Watched
    path: Path

    @property
    def device(self) -> str:
        return f"emulator:{self.path}"

    @property
    def drive(self) -> Drive:
        return Drive(self.path)

    def run(self, command: str, *words: str) -> process.Run:
        """Run ``hwkm drive COMMAND`` on the drive."""
        return self.watched.hwkm("drive", command, self.device, *words)

    def works(self, command: str, *words: str) -> process.Run:
        """The same; it must go well."""
        run = self.run(command, *words)
        assert run.status == 0, (command, run)
        return run

    def change(self, operation: str) -> process.Run:
        """Let the Changer Command's wrapper move the cartridge."""
        script = self.path.with_name("mtx-changer")
        hwkm = shlex.join(process.command().words)
        script.write_text(CHANGER.format(hwkm=hwkm, drive=self.path, cartridge=CARTRIDGE))
        script.chmod(0o755)
        words = (str(script), "/dev/sch0", operation, "1", self.device, "0")
        return self.watched.hwkm("drive", "changer", "--", *words)

    def key(self) -> bytes:
        """Return the key that the drive holds; b"" if it holds none."""
        with opened(self.path) as (state, _):
            sets = (state.shared, *(nexus.local for nexus in state.nexuses.values()))
            return next((one.key for one in sets if one is not None and one.key), b"")

    def learn_key(self) -> bytes:
        """Let the gate look for the key in the drive, in all that it has seen and will see."""
        key = self.key()
        assert len(key) == KEY_BYTES, "the drive holds no key"
        self.watched.gate.learn("key in the drive", key)
        return key

    def write(self) -> None:
        """Write something to the tape, and go back to its beginning."""
        with closing(EmulatorTransport(self.path)) as host:
            write_file(host, io.BytesIO(os.urandom(4 * BLOCK_BYTES)), BLOCK_BYTES)
            to_the_beginning(host)
