"""From a device's name, as people give it, to a way to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hwkm.errors import DeviceError
from hwkm.scsi.linux import SgTransport
from hwkm.scsi.nodes import sg_node

if TYPE_CHECKING:
    from hwkm.scsi.completion import Port

EMULATOR = "emulator:"
ISCSI = "iscsi://"


def open_device(name: str) -> Port:
    """Open ``emulator:FILE``, or a tape drive's node (see :mod:`hwkm.scsi.nodes`).

    :raises DeviceAccessError: if it is not there, or may not be used.
    :raises DeviceError: if there is no way to such a device.
    """
    if name.startswith(EMULATOR):
        # Real drives need nothing of it.
        from hwkm.scsi.emulator import EmulatorTransport
        from hwkm.scsi.emulator.store import refuse_strangers

        path = Path(name.removeprefix(EMULATOR))
        refuse_strangers(path)
        return EmulatorTransport(path)
    if name.startswith(ISCSI):
        raise DeviceError(
            f"{name}: hwkm itself does not speak iSCSI",
            hint="Log in with the system's initiator (iscsiadm), and give the drive's /dev/sgN",
        )
    return SgTransport(sg_node(Path(name)))
