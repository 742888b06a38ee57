"""How one SCSI command ended, and what that means: data, or a typed error.

A command's end has four parts that all count: the SAM status, Linux's host status and driver
status, and the sense data. A status of 0 alone is no success: Linux reports a timeout so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import TYPE_CHECKING

from hwkm.errors import ParseError
from hwkm.scsi.sense import Sense, SenseKey
from hwkm.scsi.sense_text import refused
from hwkm.scsi.transport import (
    BusyError,
    CommandTimeoutError,
    ReservationConflictError,
    StatusError,
    TransportError,
)

if TYPE_CHECKING:
    from hwkm.scsi.transport import Command

DRIVER_SENSE = 0x08
"""Only says that there is sense data (Linux, include/scsi/sg.h)."""


@unique
class Status(IntEnum):
    """Status codes (SAM-5, section 5.3.1)."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40


@unique
class HostStatus(IntEnum):
    """What the host adapter says (Linux, include/scsi/scsi_status.h)."""

    OK = 0x00
    NO_CONNECT = 0x01
    BUS_BUSY = 0x02
    TIME_OUT = 0x03
    BAD_TARGET = 0x04
    ABORT = 0x05
    PARITY = 0x06
    ERROR = 0x07
    RESET = 0x08
    BAD_INTR = 0x09
    PASSTHROUGH = 0x0A
    SOFT_ERROR = 0x0B
    IMM_RETRY = 0x0C
    REQUEUE = 0x0D
    TRANSPORT_DISRUPTED = 0x0E
    TRANSPORT_FAILFAST = 0x0F


@dataclass(frozen=True, slots=True)
class Completion:
    """How a command ended. ``data`` is what the device transferred, cut to that length."""

    status: int = Status.GOOD
    host_status: int = HostStatus.OK
    driver_status: int = 0
    sense: bytes = b""
    data: bytes = b""


class Port(ABC):
    """A transport that reaches a device itself, and does not pass commands on to another."""

    name: str

    @abstractmethod
    def complete(self, command: Command) -> Completion:
        """Run ``command`` and return how it ended.

        :raises DeviceAccessError: if the device can't be opened, or the system forbids it.
        :raises OutcomeUnknownError: if it was interrupted, and may have been executed.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the device up."""

    def execute(self, command: Command) -> bytes:
        """Run ``command``; return data-in, cut to what was transferred.

        :raises CheckConditionError, TransportError, StatusError: as :func:`checked` does.
        """
        return checked(self.name, command, self.complete(command))


def checked(device: str, command: Command, end: Completion) -> bytes:
    """Return the data of a command that succeeded.

    :raises CommandTimeoutError: if there was no answer in time.
    :raises TransportError: if the host adapter or the driver had any other trouble.
    :raises CheckConditionError: with the decoded sense.
    :raises BusyError, ReservationConflictError, StatusError: by status.
    """
    _check_the_way(device, command, end)
    if end.status == Status.CHECK_CONDITION or _has_sense(end):
        return _check_sense(device, command, end)
    _check_status(device, command, end.status)
    return end.data


def _check_the_way(device: str, command: Command, end: Completion) -> None:
    driver = end.driver_status & 0x0F
    if end.host_status == HostStatus.TIME_OUT:
        raise CommandTimeoutError(
            f"{device}: {command.name} was not answered within {command.seconds:g} s",
            hint="The drive hangs or is busy: see its display and the kernel's log, then try again",
            host_status=end.host_status,
            driver_status=end.driver_status,
        )
    if end.host_status != HostStatus.OK or driver not in (0, DRIVER_SENSE):
        raise TransportError(
            f"{device}: {command.name} failed on the way to the drive: {_host_word(end)}",
            hint="Check cable, host adapter and the kernel's log; the drive may be gone",
            host_status=end.host_status,
            driver_status=end.driver_status,
        )


def _host_word(end: Completion) -> str:
    known = end.host_status in set(HostStatus)
    word = HostStatus(end.host_status).name if known else "unknown"
    return f"host status {end.host_status:02x}h ({word}), driver status {end.driver_status:02x}h"


def _has_sense(end: Completion) -> bool:
    return bool(end.driver_status & DRIVER_SENSE) and bool(end.sense)


def _check_sense(device: str, command: Command, end: Completion) -> bytes:
    try:
        sense = Sense.parse(end.sense)
    except ParseError as error:
        raise StatusError(
            f"{device}: {command.name} was refused without a reason ({error})",
            end.status,
            hint="Try again; if it stays so, reset the drive",
        ) from error
    # A command that recovered an error has done its work, but an earlier command's error has not.
    if sense.key in (SenseKey.NO_SENSE, SenseKey.RECOVERED_ERROR) and _is_harmless(sense):
        return end.data
    raise refused(device, command, sense, end.data)


def _is_harmless(sense: Sense) -> bool:
    return not (sense.deferred or sense.filemark or sense.eom or sense.ili)


def _check_status(device: str, command: Command, status: int) -> None:
    what = f"{device}: {command.name}"
    if status in (Status.GOOD, Status.CONDITION_MET):
        return
    if status in (Status.BUSY, Status.TASK_SET_FULL):
        raise BusyError(f"{what}: the drive is busy", status, hint="Try again later")
    if status == Status.RESERVATION_CONFLICT:
        raise ReservationConflictError(
            f"{what}: another host has reserved the drive",
            status,
            hint="Find the host that holds the reservation (sg_persist -s), and let it release it",
        )
    raise StatusError(f"{what} ended with status {status:02x}h", status, hint="Try again")
