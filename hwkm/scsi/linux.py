"""Commands to a device through Linux's /dev/sgN: ioctl SG_IO, version 3 (include/scsi/sg.h).

The sg driver keeps the data-out of a command in a buffer of its descriptor, and hands that buffer
back with the next data-in that comes shorter than asked for: the key in clear. So a command with a
key gets a descriptor of its own, which is closed at once, and data-in is cut to what came.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hwkm.scsi.completion import Completion, HostStatus, Port
from hwkm.scsi.transport import DeviceAccessError, OutcomeUnknownError, TransportError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hwkm.scsi.transport import Command

SG_IO = 0x2285
INTERFACE_ID = ord("S")
NO_DATA, TO_DEVICE, FROM_DEVICE = -1, -2, -3
SENSE_BYTES = 252
"""The most sense that SPC-5 allows."""

OPEN_FLAGS = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC
"""Without O_RDWR only root may send most commands; without O_NONBLOCK open waits for a holder."""

_GROUP = (
    "Put the user into the group that owns the node, tape; no capability is needed. "
    "A systemd unit needs SupplementaryGroups=tape, DeviceAllow=char-sg rw and no PrivateDevices"
)
_GONE = "See whether the drive has power and is connected, and what lsscsi -g lists now"
_NOT_SG = "Give a tape drive's node: /dev/sgN, /dev/nstN or one in /dev/tape/by-id"
_REASONS = {
    errno.EACCES: ("this user is not allowed to", _GROUP),
    errno.EPERM: ("this user is not allowed to", _GROUP),
    errno.ENOENT: ("there is no such device", _GONE),
    errno.ENODEV: ("the device is gone", _GONE),
    errno.ENXIO: ("the device is gone", _GONE),
    errno.EBUSY: ("another program holds it for itself", "Find it with fuser, and let it end"),
    errno.ENOTTY: ("it is no SCSI device", _NOT_SG),
    errno.EINVAL: ("it is no SCSI device", _NOT_SG),
    errno.EISDIR: ("it is a directory", _NOT_SG),
}


class SgHeader(ctypes.Structure):
    """``struct sg_io_hdr``: one command on its way down and up, 88 bytes on 64-bit systems."""

    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),  # in milliseconds
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


def sg_io(descriptor: int, header: SgHeader) -> None:
    """Hand one command to the kernel and wait for its end; other threads go on meanwhile.

    :raises OSError: with EINTR, the command may have been executed all the same.
    """
    fcntl.ioctl(descriptor, SG_IO, header)


class SgTransport(Port):
    """The way to one device through its sg node."""

    def __init__(self, node: Path) -> None:
        """Open ``node``, which sends no command to the device and never waits.

        :raises DeviceAccessError: if it can't be opened.
        """
        self.name = str(node)
        # While this descriptor is open, the kernel gives the node's number to no other device.
        self._descriptor = self._open()

    def complete(self, command: Command) -> Completion:
        """Run ``command`` and return how it ended.

        :raises DeviceAccessError: if the system forbids it, or the device is gone.
        :raises OutcomeUnknownError: if a signal interrupted it.
        """
        if self._descriptor < 0:
            raise TransportError(f"{self.name} was closed before {command.name}")
        if command.is_secret:
            with self._own_descriptor() as descriptor:
                return self._run(descriptor, command)
        return self._run(self._descriptor, command)

    def close(self) -> None:
        """Give the device up; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @contextmanager
    def _own_descriptor(self) -> Iterator[int]:
        """Open the device once more, for one command only."""
        descriptor = self._open()
        try:
            if not os.path.sameopenfile(descriptor, self._descriptor):
                raise DeviceAccessError(f"{self.name} has become another node", hint=_GONE)
            yield descriptor
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        try:
            return os.open(self.name, OPEN_FLAGS)
        except OSError as error:
            raise self._no_access("can't be opened", error) from error

    def _run(self, descriptor: int, command: Command) -> Completion:
        request = _Request(command)
        try:
            sg_io(descriptor, request.header)
            return request.completion()
        except InterruptedError as error:
            raise OutcomeUnknownError(
                f"{self.name}: {command.name} was interrupted by a signal; the drive may have "
                "executed it",
                hint="Read the drive's state again before anything else",
            ) from error
        except OSError as error:
            raise self._no_access(f"takes no {command.name}", error) from error
        finally:
            request.wipe()

    def _no_access(self, what: str, error: OSError) -> DeviceAccessError:
        why, hint = _REASONS.get(error.errno or 0, (str(error.strerror), _GONE))
        return DeviceAccessError(f"{self.name} {what}: {why}", hint=hint)


class _Request:
    """One command in memory of our own, laid out as the kernel wants it."""

    def __init__(self, command: Command) -> None:
        data_out = command.exposed()
        length = len(data_out) or command.allocation
        self._data = ctypes.create_string_buffer(length + 1)
        ctypes.memmove(self._data, data_out, len(data_out))
        self._sense = ctypes.create_string_buffer(SENSE_BYTES)
        self._cdb = ctypes.create_string_buffer(command.cdb, len(command.cdb))
        self._allocation = command.allocation
        direction = FROM_DEVICE if command.allocation else TO_DEVICE
        self.header = SgHeader(
            interface_id=INTERFACE_ID,
            dxfer_direction=direction if length else NO_DATA,
            cmd_len=len(command.cdb),
            mx_sb_len=SENSE_BYTES,
            dxfer_len=length,
            dxferp=ctypes.cast(self._data, ctypes.c_void_p),
            cmdp=ctypes.cast(self._cdb, ctypes.c_void_p),
            sbp=ctypes.cast(self._sense, ctypes.c_void_p),
            timeout=round(command.seconds * 1000),
        )

    def completion(self) -> Completion:
        """Return how it ended, with no byte of data that the device did not send."""
        header = self.header
        arrived = header.dxfer_len - header.resid if header.host_status == HostStatus.OK else 0
        return Completion(
            status=header.status,
            host_status=header.host_status,
            driver_status=header.driver_status,
            sense=ctypes.string_at(self._sense, min(header.sb_len_wr, SENSE_BYTES)),
            data=ctypes.string_at(self._data, max(0, min(arrived, self._allocation))),
        )

    def wipe(self) -> None:
        """Overwrite the data: it may be a key, or hold one that the driver had kept."""
        ctypes.memset(self._data, 0, len(self._data))
