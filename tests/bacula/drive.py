"""An emulated tape drive beside the Storage Daemon, which has no tape here: its own is a file.

So the Storage Daemon never writes to it; the tests do that with the Storage Daemon's own blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.scsi.commands import read_block, write_block, write_filemarks
from hwkm.scsi.emulator import Drive, EmulatorTransport
from hwkm.scsi.emulator.store import opened
from hwkm.scsi.emulator.stream import patient, read_file, to_the_beginning

from .chroot import STORAGE, STORAGE_ENV
from .keymanager import HWKM

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hwkm.scsi.emulator import MediumObject

    from .chroot import Chroot

FOLDER = "/srv/drives"
FILE = f"{FOLDER}/lto9"
DEVICE = f"emulator:{FILE}"
FIRST, OTHER = "L90001L9", "L90002L9"
A_KAD = "1"


class TapeDrive:
    """The drive, as the Storage Daemon's user has it in the chroot."""

    def __init__(self, chroot: Chroot) -> None:
        self._chroot = chroot
        self._file = chroot.path(FILE)

    def create(self) -> None:
        """Make the drive, with a cartridge in it."""
        self._chroot.run(["install", "-d", "-m", "0700", "-o", "bacula", "-g", "tape", FOLDER])
        self._emulator("create", "--profile", "hpe-lto-9", "--cartridge", FIRST)

    def _emulator(self, verb: str, *words: str) -> None:
        self._chroot.run([HWKM, "emulator", verb, FILE, *words], user=STORAGE, env=STORAGE_ENV)

    def lie(self, name: str, *, on: bool) -> None:
        """Let the drive lie, or be honest again."""
        self._emulator("lie", name, *([] if on else ["--off"]))

    def insert(self, barcode: str) -> None:
        """Put another cartridge in the place of the one in the drive."""
        Drive(self._file).insert(barcode)

    def restore(self) -> None:
        """Let the drive be honest again, with the other cartridge in it, and without a key."""
        drive = Drive(self._file)
        for name in drive.lies():
            drive.tell_lie(name, on=False)
        drive.insert(OTHER)

    # what the drive itself knows, whatever it says

    def held(self) -> bytes | None:
        """Return the A-KAD of the key in the drive, None if there is none."""
        shared = Drive(self._file).state()["shared"]
        return bytes.fromhex(shared["kads"][A_KAD]) if shared and shared["key"] else None

    @property
    def key(self) -> bytes:
        """The key in the drive."""
        with opened(self._file) as (state, _):
            assert state.shared is not None
            return state.shared.key

    def on_tape(self) -> list[MediumObject]:
        """Return what lies on the first cartridge, filemarks left out."""
        return [one for one in Drive(self._file).blocks(FIRST) if one.is_block]

    # the tape driver's part

    def write(self, label: bytes, blocks: Iterable[bytes]) -> None:
        """Write a volume from the beginning of the tape: the label is a file of its own."""
        host = EmulatorTransport(self._file)
        to_the_beginning(host)
        patient(host, write_block(label))
        patient(host, write_filemarks(1))
        for block in blocks:
            patient(host, write_block(block))
        patient(host, write_filemarks(1))

    def read(self) -> list[bytes]:
        """Read what :meth:`write` wrote.

        :raises CheckConditionError: if the drive refuses a block.
        """
        host = EmulatorTransport(self._file)
        to_the_beginning(host)
        return [*read_file(host), *read_file(host)]

    def read_label(self, size: int) -> bytes:
        """Read the first block, of ``size`` bytes.

        :raises CheckConditionError: if the drive refuses it.
        """
        host = EmulatorTransport(self._file)
        to_the_beginning(host)
        return patient(host, read_block(size))
