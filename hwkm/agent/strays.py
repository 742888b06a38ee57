"""Keys that nobody counts on, taken out of drives: when the agent starts, and after an ended job.

A crash can leave one: a drive without CKOD keeps its key over an unload, and would encrypt the next
cartridge with it. Each drive is looked at by a process of its own.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from hwkm.agent import children
from hwkm.agent.hardening import harden
from hwkm.bacula import DRIVE_MARGIN_SECONDS
from hwkm.deliveries import Deliveries, open_drive
from hwkm.errors import HwkmError
from hwkm.manager import Caller
from hwkm.privileges import user_name
from hwkm.scsi.devices import EMULATOR
from hwkm.scsi.nodes import list_tape_devices, tapes_in_use
from hwkm.service import OwnTokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwkm.installation import Installation
    from hwkm.log import Log

SECONDS = 120.0
"""How long a drive may take; one that takes longer is left as it is."""
JOB_SECONDS = 60.0
"""The same, for a drive whose job was ended."""


class Left(NamedTuple):
    """What the log says of a key that was left in a drive: it was taken out, or it stays."""

    taken_out: str
    stays: str


BY_A_CARTRIDGE = Left(
    "held the key of a cartridge that is not in it: taken out",
    "HOLDS THE KEY of a cartridge that is not in it",
)
BY_A_JOB = Left(
    "held a key that was not on record as loaded: taken out",
    "HOLDS A KEY that is not on record as loaded",
)


def drives_of(installation: Installation) -> Sequence[str]:
    """Return the drives to look at: those configured, or all of the machine's; or none."""
    if not OwnTokens(installation).uses_drives():
        return ()
    named = installation.config.agent.drives
    if named is not None:
        return named
    return [str(node.sg) for node in list_tape_devices() if not node.changer]


def free(drives: Sequence[str]) -> list[str]:
    """Return those drives that may be looked at: while a program has a tape open, emulated ones.

    What a drive has to report of a reset is for that program, which would write on in clear if it
    were not told.
    """
    in_use = tapes_in_use()
    return [device for device in drives if device.startswith(EMULATOR) or not in_use]


async def clear(installation: Installation, log: Log) -> None:
    """Look at all drives at once."""
    drives = drives_of(installation)
    looked_at = free(drives)
    if len(looked_at) < len(drives):
        log.info("a tape is in use: no drive is looked at for a key that was left in it")
    await asyncio.gather(
        *(look_after(device, installation, log, SECONDS, BY_A_CARTRIDGE) for device in looked_at)
    )


async def look_after(
    device: str, installation: Installation, log: Log, seconds: float, left: Left
) -> None:
    """Take out what is left in one drive, in a process of its own that has so many seconds."""
    deadline = time.monotonic() + seconds
    try:
        child = children.fork(lambda _link: _look(device, installation, log, deadline, left), log)
    except OSError as error:
        log.error(f"drive {device} was not looked at: {error.strerror}")
        return
    child.link.close()
    end = children.see_to(child)
    await asyncio.wait([end], timeout=seconds + DRIVE_MARGIN_SECONDS)
    child.kill()


def _look(device: str, installation: Installation, log: Log, deadline: float, left: Left) -> None:
    harden()
    deliveries = Deliveries.of(installation, Caller(user_name()))
    runtime_dir = installation.config.runtime_dir
    try:
        with open_drive(device, runtime_dir, deadline=deadline) as driver:
            report = deliveries.clear_stray(driver)
            alarm = deliveries.alarm(driver)
    except HwkmError as error:
        log.warning(f"drive {device} was not looked at: {error.diagnostics()}")
        return
    if alarm is not None:
        log.error(f"drive {device}: {alarm.diagnostics()}")
    if report is None:
        return
    if report.cleared:
        log.warning(f"drive {device} {left.taken_out}")
    else:
        log.error(f"drive {device} {left.stays}")
