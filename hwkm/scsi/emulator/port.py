"""The way to an emulated drive: the same as to a real one, for all that is above it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hwkm.scsi.completion import Completion, Port
from hwkm.scsi.emulator.device import Device
from hwkm.scsi.emulator.server import serve
from hwkm.scsi.emulator.store import opened
from hwkm.scsi.transport import DeviceAccessError

if TYPE_CHECKING:
    import os

    from hwkm.scsi.transport import Command

DEFAULT_NEXUS = "host-1"


class EmulatorTransport(Port):
    """A host's way to the drive in a file.

    ``nexus`` names the host, or rather the I_T nexus: the drive keeps scopes, locks, unit
    attentions and reservations apart by it.

    :raises DeviceAccessError: if there is no emulated drive in that file.
    """

    def __init__(self, path: str | os.PathLike[str], nexus: str = DEFAULT_NEXUS) -> None:
        self._path: Path | None = Path(path)
        self._nexus = nexus
        self.name = f"emulator:{path}"
        with opened(self._path) as (state, tape):
            Device(state, tape, nexus)  # from now on it hears of what happens to the drive

    def complete(self, command: Command) -> Completion:
        """Run ``command`` and return how it ended.

        :raises DeviceAccessError: if this was closed, or the file is gone.
        """
        if self._path is None:
            raise DeviceAccessError(f"{self.name} is closed", hint="Open it again")
        with opened(self._path) as (state, tape):
            end = serve(Device(state, tape, self._nexus), command.cdb, command.exposed())
        # The transport cuts what a device sends to what there is room for.
        data = end.data[: command.allocation]
        return Completion(status=end.status, sense=end.sense, data=data)

    def close(self) -> None:
        """Give the drive up. Like an unplugged host it takes nothing with it."""
        self._path = None
