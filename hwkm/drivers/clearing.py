"""Taking a key out of a drive, and reading back that it is out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.checks import Check, fail, ok, warn
from hwkm.drivers.report import POWER_CYCLE
from hwkm.errors import DeviceError, ParseError

if TYPE_CHECKING:
    from hwkm.scsi.encryption import TapeEncryption
    from hwkm.scsi.pages.status import EncryptionStatus

NO_KEY = "no key in force"
_STILL_THERE = f"{POWER_CYCLE}; then see hwkm drive status"


def take_out(session: TapeEncryption) -> tuple[Check, ...]:
    """Clear the key, whatever cartridge is loaded, and judge by what the drive then says."""
    refusal = ""
    with session.any_cartridge():
        try:
            before = session.status()
            session.clear()
        except (DeviceError, ParseError) as error:
            # Sent or not, refused or not: only the drive's status tells what came of it.
            refusal = str(error)
        try:
            after = session.status()
        except (DeviceError, ParseError) as error:
            return (fail(NO_KEY, f"it is not known: {refusal or error}", _STILL_THERE),)
    if not after.is_clear:
        return (
            fail(NO_KEY, refusal or "the drive took the order and keeps the key", _STILL_THERE),
        )
    if refusal:
        advice = "Nothing needs to be done: there is no key in it"
        return (
            warn(NO_KEY, f"the drive shows none, but refused to be cleared: {refusal}", advice),
        )
    return ok(NO_KEY, "both modes are DISABLE"), _counter(before, after)


def _counter(before: EncryptionStatus, after: EncryptionStatus) -> Check:
    name, was, now = "key instance counter", before.key_instance_counter, after.key_instance_counter
    if was != now:
        return ok(name, f"{was} became {now}")
    advice = "Power-cycle the drive if you must be sure; a counter that never moves guards nothing"
    return warn(name, f"it stays at {now} though the parameters were set", advice)
