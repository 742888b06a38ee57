"""What was done with a drive and what it said then: enough to be kept as a proof.

``at`` is in seconds since 1970-01-01 UTC. No report holds key bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.checks import Check, Status, all_ok
from hwkm.errors import DeviceError

if TYPE_CHECKING:
    from hwkm.scsi.inventory import Cartridge, DriveIdentity


@dataclass(frozen=True, slots=True)
class LoadReport:
    """A key was put into a drive and read back.

    ``key_id`` is the name that goes with every block. ``key_format`` is how the key went over,
    ``plain`` or ``wrapped``; ``wrapping_key`` is then the SHA-256 of the drive's page 0031h.
    ``counter`` is the key instance counter: another value later means that somebody set another
    key. ``quirks`` are those that the drive has shown.
    """

    drive: DriveIdentity
    cartridge: Cartridge
    key_id: bytes
    key_format: str
    counter: int
    at: int
    checks: tuple[Check, ...]
    wrapping_key: bytes | None = None
    quirks: tuple[str, ...] = ()

    @property
    def encrypted(self) -> bool:
        """Whether what is written now is encrypted with this key."""
        return all_ok(self.checks)


@dataclass(frozen=True, slots=True)
class HoldReport:
    """Whether a drive encrypts with the key called ``key_id``, by what it says of itself."""

    drive: DriveIdentity
    cartridge: Cartridge | None
    key_id: bytes
    counter: int
    at: int
    checks: tuple[Check, ...]
    key_format: str = ""

    @property
    def encrypted(self) -> bool:
        """Whether it does."""
        return all_ok(self.checks)


@dataclass(frozen=True, slots=True)
class ProveReport:
    """A look at what is on the tape; ``block`` is the logical object, None if none was found."""

    drive: DriveIdentity
    cartridge: Cartridge
    key_id: bytes
    counter: int
    at: int
    block: int | None
    checks: tuple[Check, ...]
    key_format: str = ""

    @property
    def encrypted(self) -> bool:
        """Whether that block was encrypted with the key."""
        return all_ok(self.checks)


@dataclass(frozen=True, slots=True)
class ClearReport:
    """A key was taken out of a drive; ``held`` are the names of the one that was in it.

    ``cartridge`` is None if none was loaded.
    """

    drive: DriveIdentity
    cartridge: Cartridge | None
    held: tuple[bytes, ...]
    counter: int
    at: int
    checks: tuple[Check, ...]
    key_format: str = ""

    @property
    def cleared(self) -> bool:
        """Whether the drive says that it holds no key."""
        return all_ok(self.checks)

    @property
    def encrypted(self) -> bool:
        """Whether a key may be in force."""
        return not self.cleared


class NotEncryptedError(DeviceError):
    """A drive does not encrypt with the key it was given, or can't be shown to; ``report`` has all.

    Unless the text says otherwise, it holds no key.
    """

    def __init__(self, report: LoadReport, *, cleared: tuple[Check, ...]) -> None:
        wrong = next((one for one in report.checks if one.status is Status.FAIL), None)
        what = f"check {wrong.name!r}: {wrong.detail}" if wrong else "not read back"
        out = all_ok(cleared)
        end = "the drive holds no key" if out else "THE DRIVE MAY STILL HOLD THE KEY"
        first = wrong.advice if wrong and wrong.advice else "See hwkm drive status"
        super().__init__(
            f"drive {report.drive.serial or report.drive.product}: not encrypted, {what}; {end}",
            hint=first if out else "Power-cycle the drive: that takes every key out",
        )
        self.report = report
        self.cleared = out


class WrappingKeyChangedError(DeviceError):
    """The drive's public key is not the one on record: another drive may pose as it."""
