"""Which drives of this machine are mhvtl's: for certain, and without doing anything to the others.

The kernel says which driver a SCSI host belongs to. Where it does not, an IBM drive of mhvtl's has
a mark in its vital product data, and what stands on the same SCSI host is mhvtl's too. INQUIRY is
the only command that is sent; it changes nothing in any device, and takes no event from anyone.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.errors import HwkmError
from hwkm.scsi.commands import inquiry
from hwkm.scsi.inventory import identify_drive
from hwkm.scsi.nodes import SYSFS, TapeNode, list_tape_devices
from hwkm.scsi.optional import if_known
from hwkm.scsi.worker import WorkerTransport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hwkm.scsi.inventory import DriveIdentity

DRIVER = "mhvtl"
UNKNOWN_DRIVERS = frozenset({"", "<NULL>", "(null)", "tcm_loopback"})
"""What the kernel says of a host that does not name its driver, or lets other programs stand behind
it."""
MARKED_PAGE, MARK = 0xC0, b"mhvtl"
_HOST = re.compile(r"host\d+")


@dataclass(frozen=True)
class Unit:
    """One device of mhvtl's: a drive or the changer."""

    node: TapeNode
    identity: DriveIdentity


def find_mhvtl(sysfs: Path = SYSFS) -> tuple[list[Unit], list[str]]:
    """Return mhvtl's drives and changers, and what was wrong with those that can't be used."""
    units, troubles = [], []
    for node in mhvtls_nodes(sysfs, is_marked):
        try:
            with closing(WorkerTransport(str(node.sg))) as transport:
                units.append(Unit(node, identify_drive(transport)))
        except HwkmError as error:
            troubles.append(str(error))
    return units, troubles


def mhvtls_nodes(sysfs: Path, marked: Callable[[TapeNode], bool]) -> list[TapeNode]:
    """Return the nodes of mhvtl's devices; ``marked`` asks a drive of a host without a name.

    A host whose driver has another name is somebody else's, and is not asked.
    """
    nodes = [(node, scsi_host(node, sysfs)) for node in list_tape_devices(sysfs)]
    drivers = {host: driver_of(host, sysfs) for _, host in nodes if host}
    hosts = {host for host, driver in drivers.items() if driver == DRIVER}
    asked = [(node, host) for node, host in nodes if drivers.get(host) in UNKNOWN_DRIVERS]
    hosts |= {host for node, host in asked if marked(node)}
    return [node for node, host in nodes if host in hosts]


def scsi_host(node: TapeNode, sysfs: Path) -> str:
    """Return the SCSI host that a device hangs on, as ``host3``; "" if sysfs does not show it."""
    device = (sysfs / "class" / "scsi_generic" / node.sg.name / "device").resolve()
    return next((one.name for one in device.parents if _HOST.fullmatch(one.name)), "")


def driver_of(host: str, sysfs: Path) -> str:
    """Return the name of the driver that made a SCSI host, "" if it does not say."""
    try:
        return (sysfs / "class" / "scsi_host" / host / "proc_name").read_text().strip()
    except OSError:
        return ""


def is_marked(node: TapeNode) -> bool:
    """Return whether a drive's vital product data say that it is mhvtl's."""
    if node.changer:
        return False
    try:
        with closing(WorkerTransport(str(node.sg))) as transport:
            page = if_known(transport, inquiry(MARKED_PAGE))
    except HwkmError:
        return False
    return page is not None and MARK in page
