"""A sg driver that stands in for ioctl SG_IO alone: it reads and writes the caller's memory.

It lays out ``struct sg_io_hdr`` (include/scsi/sg.h) on its own, tells open files apart as the
kernel does, and keeps the data-out of each one in a reserve buffer, which it hands back as the
real driver does: whatever a short data-in leaves of it.
"""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwkm.scsi.linux import SgHeader

# interface_id, dxfer_direction, cmd_len, mx_sb_len, iovec_count, dxfer_len, dxferp, cmdp, sbp,
# timeout, flags, pack_id, usr_ptr; then, from the kernel: status, masked_status, msg_status,
# sb_len_wr, host_status, driver_status, resid, duration, info
DOWN = struct.Struct("@iiBBHIPPPIIiP")
UP = struct.Struct("@BBBBHHiII")
HEADER = struct.Struct("@iiBBHIPPPIIiPBBBBHHiII0P")

TO_DEVICE, FROM_DEVICE = -2, -3


@dataclass(frozen=True)
class Reply:
    """What the device does with one command."""

    data: bytes = b""
    status: int = 0
    host_status: int = 0
    driver_status: int = 0
    sense: bytes = b""
    error: int = 0


@dataclass(frozen=True)
class Seen:
    """One command as it came through the ioctl."""

    file: int
    cdb: bytes
    direction: int
    length: int
    data_out: bytes
    timeout: int
    header: SgHeader


@dataclass
class SgDriver:
    """Answers ioctl SG_IO on descriptors of any regular file."""

    answer: Callable[[bytes], Reply] = lambda cdb: Reply()
    seen: list[Seen] = field(default_factory=list)
    reserve: dict[int, bytes] = field(default_factory=dict)

    def __call__(self, descriptor: int, header: SgHeader) -> None:
        assert ctypes.sizeof(header) == HEADER.size
        raw = bytes(header)
        magic, direction, cdb_length, sense_room, iovec, length, data, cdb_at, sense_at, *rest = (
            DOWN.unpack_from(raw)
        )
        assert (magic, iovec) == (ord("S"), 0)
        file = self.identify(descriptor)
        cdb = ctypes.string_at(cdb_at, cdb_length)
        data_out = ctypes.string_at(data, length) if direction == TO_DEVICE else b""
        self.seen.append(Seen(file, cdb, direction, length, data_out, rest[0], header))
        if data_out:
            self.reserve[file] = data_out
        reply = self.answer(cdb)
        if reply.error:
            raise OSError(reply.error, os.strerror(reply.error))
        moved = length
        if direction == FROM_DEVICE:
            moved = min(len(reply.data), length)
            stale = self.reserve.get(file, b"").ljust(length, b"\0")[:length]
            ctypes.memmove(data, reply.data[:moved] + stale[moved:], length)
        sense = reply.sense[:sense_room]
        ctypes.memmove(sense_at, sense, len(sense))
        up = (reply.status, 0, 0, len(sense), reply.host_status, reply.driver_status)
        UP.pack_into(ctypes.cast(ctypes.addressof(header), _BYTES).contents, DOWN.size, *up,
                     length - moved, 0, 0)  # fmt: skip

    def identify(self, descriptor: int) -> int:
        """Return a number for the open file behind a descriptor, by which its offset then marks it.

        A descriptor's number says nothing: it is used again as soon as it is closed.
        """
        mark = os.lseek(descriptor, 0, os.SEEK_CUR)
        if not mark:
            mark = os.lseek(descriptor, 1 + max((seen.file for seen in self.seen), default=0), 0)
        return mark

    def leaks(self, key: bytes) -> list[bytes]:
        """Return the CDBs of data-in commands on open files that had carried ``key`` before."""
        carriers: set[int] = set()
        found = []
        for seen in self.seen:
            if key in seen.data_out:
                carriers.add(seen.file)
            if seen.direction == FROM_DEVICE and seen.file in carriers:
                found.append(seen.cdb)
        return found


_BYTES = ctypes.POINTER(ctypes.c_char * HEADER.size)
