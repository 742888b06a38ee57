"""What every way to a SCSI device offers: one method, and the errors it raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hwkm.errors import DeviceError
from hwkm.keys import SecretBytes

if TYPE_CHECKING:
    from hwkm.scsi.sense import Sense

DEFAULT_SECONDS = 60.0
"""What IBM gives SECURITY PROTOCOL IN and OUT (GA32-0928, Annex A); 5 s is too short while a
drive loads or rewinds."""

MAX_ALLOCATION = 65535
"""The most bytes hwkm ever asks for with one command."""


@dataclass(frozen=True, slots=True)
class Command:
    """One SCSI command: a CDB of 6 to 16 bytes, and what is transferred with it.

    ``data_out`` goes to the device; it is a :class:`SecretBytes` where it can hold a key.
    ``allocation`` is how many bytes the device may return, as the CDB says too. One of the two
    is empty. ``seconds`` is how long the command may take.
    """

    name: str
    cdb: bytes
    data_out: bytes | SecretBytes = b""
    allocation: int = 0
    seconds: float = DEFAULT_SECONDS

    def __post_init__(self) -> None:
        if len(self.data_out) and self.allocation:
            raise ValueError("a command transfers in one direction only")
        if not 6 <= len(self.cdb) <= 16 or not 0 <= self.allocation <= MAX_ALLOCATION:
            raise ValueError("the CDB or the allocation length is out of range")

    @property
    def is_secret(self) -> bool:
        """Whether a key may go to the device with it."""
        return isinstance(self.data_out, SecretBytes)

    def exposed(self) -> bytes:
        """Return the bytes that go to the device; for transports only."""
        return self.data_out.expose() if isinstance(self.data_out, SecretBytes) else self.data_out


class Transport(Protocol):
    """A way to one device."""

    @property
    def name(self) -> str:
        """How people call the device: ``/dev/sg3``, ``emulator:drive.db``."""

    def execute(self, command: Command) -> bytes:
        """Run ``command``; return data-in, cut to what was transferred.

        :raises CheckConditionError: with the decoded sense, if the device refused it.
        :raises TransportError: or one of its kinds, if it did not get there and back.
        """

    def close(self) -> None:
        """Give the device up; afterwards nothing can be executed."""


class TransportError(DeviceError):
    """A command did not get to the device and back; host and driver status are Linux's."""

    def __init__(
        self, message: str, *, hint: str = "", host_status: int = 0, driver_status: int = 0
    ) -> None:
        super().__init__(message, hint=hint)
        self.host_status = host_status
        self.driver_status = driver_status


class CommandTimeoutError(TransportError):
    """The device did not answer in time. What the command did is not known."""


class OutcomeUnknownError(TransportError):
    """The command was interrupted, and may have been executed all the same: read back."""


class DeviceAccessError(TransportError):
    """The device can't be opened, or the system forbids the command."""


class NoTapeDriveError(DeviceAccessError):
    """What is named is certainly no tape drive."""


class StatusError(DeviceError):
    """The device ended a command with a status other than GOOD and CHECK CONDITION (SAM-5, 5.3)."""

    def __init__(self, message: str, status: int, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class BusyError(StatusError):
    """BUSY or TASK SET FULL: to be tried again later."""


class ReservationConflictError(StatusError):
    """Another host has reserved the device."""


class CheckConditionError(DeviceError):
    """The device refused a command, or has something to report; ``sense`` says what."""

    def __init__(self, message: str, sense: Sense, *, hint: str = "", data: bytes = b"") -> None:
        super().__init__(message, hint=hint)
        self.sense = sense
        self.data = data
