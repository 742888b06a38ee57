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


POWER_CYCLE = "Power-cycle the drive: that takes every key out"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What all reports have: ``cartridge`` is None if none was loaded.

    ``counter`` is the key instance counter: another value later means that somebody set another
    key. ``key_format`` is how a key went over, ``plain`` or ``wrapped``; "" if none did.
    """

    drive: DriveIdentity
    cartridge: Cartridge | None
    counter: int
    at: int
    checks: tuple[Check, ...]
    key_format: str = ""

    @property
    def encrypted(self) -> bool:
        """Whether it was shown that there is encryption with the key; see each kind of report."""
        return all_ok(self.checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport(_Report):
    """A key was put into a drive and read back: whether what is written now is encrypted with it.

    ``key_id`` is the name that goes with every block. ``wrapping_key`` is the SHA-256 of the
    drive's page 0031h where the key went over wrapped. ``quirks`` are those that the drive has
    shown.
    """

    cartridge: Cartridge
    key_id: bytes
    wrapping_key: bytes | None = None
    quirks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldReport(_Report):
    """Whether a drive encrypts with the key called ``key_id``, by what it says of itself."""

    key_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ProveReport(_Report):
    """Whether a block on the tape was encrypted with the key called ``key_id``.

    ``block`` is its logical object number, None if none was found.
    """

    cartridge: Cartridge
    key_id: bytes
    block: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearReport(_Report):
    """A key was taken out of a drive; ``held`` are the names of the one that was in it.

    It is ``encrypted`` if a key may still be in force.
    """

    held: tuple[bytes, ...]

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
            hint=first if out else POWER_CYCLE,
        )
        self.report = report
        self.cleared = out


class WrappingKeyChangedError(DeviceError):
    """The drive's public key is not the one on record: another drive may pose as it."""
