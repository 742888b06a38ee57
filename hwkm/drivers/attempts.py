"""The memory of keys that did not open what is on a cartridge, so that the drive stays usable.

After ten reads in a row with wrong keys some drives take no key at all until the cartridge is
unloaded (HP LTO-4: sense 7/26/10). Keys are counted here, across processes, and two before that
limit no more is handed to the drive.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.drivers.lock import file_name
from hwkm.errors import DeviceError, ParseError, PolicyError
from hwkm.scsi.attributes import AttributeId, parse_attributes
from hwkm.scsi.commands import read_attribute

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hwkm.scsi.inventory import Cartridge, DriveIdentity
    from hwkm.scsi.transport import Transport

DRIVE_LIMIT = 10
MARGIN = 2
MAX_ATTEMPTS = DRIVE_LIMIT - MARGIN

LOAD_BYTES = 32
"""SHA-256 of what tells one load of one cartridge from all others."""
FILE_BYTES = LOAD_BYTES + 1
"""The file has a fixed size and its blocks are reserved before the first try, so that a full disk
can't keep one from being counted."""


class TooManyKeysError(PolicyError):
    """So many keys did not open the cartridge that another might lock the drive."""


@dataclass(frozen=True, slots=True)
class AttemptGuard:
    """Counts the keys that were tried on one load of a cartridge in one drive.

    ``loads`` is how often the cartridge was loaded, out of its chip: unloading it makes the drive
    forget wrong keys, and so does this. 0 where the chip does not say.
    """

    directory: Path
    drive_serial: str
    cartridge: str
    loads: int = 0

    @property
    def path(self) -> Path:
        """Where the count of this drive is kept."""
        return self.directory / f"tried-keys-{file_name(self.drive_serial)}"

    def count(self) -> int:
        """Return how many keys were tried on this load without opening anything.

        :raises PolicyError: if that can't be read.
        """
        with self._file() as descriptor:
            return self._read(descriptor)

    def reserve(self) -> None:
        """Count one more key, before it goes to the drive.

        :raises TooManyKeysError: if it would be one too many; it was not counted then.
        :raises PolicyError: if it can't be counted.
        """
        with self._file() as descriptor:
            tried = self._read(descriptor)
            if tried >= MAX_ATTEMPTS:
                raise TooManyKeysError(
                    f"{tried} keys were tried on this load of the cartridge and opened nothing; "
                    f"after {DRIVE_LIMIT} the drive may take none at all",
                    hint="Unload the cartridge and load it again: that makes the drive forget",
                )
            self._write(descriptor, tried + 1)

    def harmless(self) -> None:
        """Take the last one back: there was nothing on the tape that it could fail to open."""
        with self._file() as descriptor:
            self._write(descriptor, max(0, self._read(descriptor) - 1))

    def opened(self) -> None:
        """Forget all: a key opened the next block."""
        with self._file() as descriptor:
            self._write(descriptor, 0)

    @contextmanager
    def _file(self) -> Iterator[int]:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.posix_fallocate(descriptor, 0, FILE_BYTES)
            yield descriptor
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            os.close(descriptor)

    def _unwritable(self, error: OSError) -> PolicyError:
        return PolicyError(
            f"no key is tried, because {self.path} can't be written: {error.strerror}",
            hint="Wrong keys could not be counted, and a loop could lock the drive",
        )

    def _load(self) -> bytes:
        return hashlib.sha256(f"{self.cartridge}\0{self.loads}".encode()).digest()

    def _read(self, descriptor: int) -> int:
        data = os.pread(descriptor, FILE_BYTES, 0)
        return data[LOAD_BYTES] if data[:LOAD_BYTES] == self._load() else 0

    def _write(self, descriptor: int, tried: int) -> None:
        os.pwrite(descriptor, self._load() + bytes((tried,)), 0)


def attempt_guard(
    transport: Transport, directory: Path, drive: DriveIdentity, cartridge: Cartridge
) -> AttemptGuard:
    """Return the count of keys that were tried on this load of the cartridge."""
    identity = "\0".join((cartridge.manufacturer, cartridge.serial, cartridge.barcode))
    return AttemptGuard(directory, drive.serial, identity, _loads(transport))


def _loads(transport: Transport) -> int:
    """Return how often the cartridge was loaded, as its chip says; 0 if it does not."""
    try:
        attributes = parse_attributes(transport.execute(read_attribute()))
    except (DeviceError, ParseError):
        return 0
    found = (one.number for one in attributes if one.id == AttributeId.LOAD_COUNT)
    return next(found, 0)
