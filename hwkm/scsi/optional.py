"""Asking for what a device need not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.scsi.transport import CheckConditionError

if TYPE_CHECKING:
    from hwkm.scsi.transport import Command, Transport


def if_known(transport: Transport, command: Command) -> bytes | None:
    """Run a command that an old drive may not know; None then. All else is raised."""
    try:
        return transport.execute(command)
    except CheckConditionError as error:
        if error.sense.is_unknown_request:
            return None
        raise
