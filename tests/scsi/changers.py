"""A changer of two drives behind hwkm's transport, in the bytes of SMC-3."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hwkm.scsi.completion import Completion, Port

if TYPE_CHECKING:
    from hwkm.scsi.transport import Command

REFUSED = bytes.fromhex("70 00 05 00000000 0a 00000000 24 00 00 c0 00 06")
NOT_THERE = bytes.fromhex("70 00 05 00000000 0a 00000000 3b 0e 00 c0 00 04")
UNKNOWN = bytes.fromhex("70 00 05 00000000 0a 00000000 20 00 00 c0 00 00")

# INQUIRY of a changer: PDT 8, removable, SPC-3, 31 bytes more.
INQUIRY = bytes.fromhex("08 80 05 02 1f 00 00 00") + b"IBM     03584L32        0100"

# MODE SENSE(10), page 1Dh, Element Address Assignment: arm 1, slots 400h (40),
# import and export 300h (4), drives 100h (2).
ELEMENTS = bytes.fromhex("001a000000000000 1d12 0001 0001 0400 0028 0300 0004 0100 0002 0000")


def report(*pages: bytes) -> bytes:
    """READ ELEMENT STATUS data: first element, number of elements, bytes of what follows."""
    body = b"".join(pages)
    return bytes.fromhex("0100 0002 00") + len(body).to_bytes(3) + body


def page(kind: int, flags: int, length: int, *descriptors: bytes) -> bytes:
    body = b"".join(descriptors)
    return bytes([kind, flags]) + length.to_bytes(2) + b"\0" + len(body).to_bytes(3) + body


def tag(barcode: bytes) -> bytes:
    return barcode.ljust(32) + bytes(4)


# Drive 100h: full and accessible, from slot 402h; drive 101h: empty.
FULL = bytes.fromhex("0100 09 00 0000 000000 81 0402")
EMPTY = bytes.fromhex("0101 08 00 0000 000000 00 0000")
T10_SERIAL = b"IBM     ULT3580-TD8     0013AABBCC"
PLAIN_SERIAL = b"HU1927XYZ0"


def identifier(kind: int, text: bytes, code_set: int = 2, room: int = 34) -> bytes:
    return bytes([code_set, kind, 0, len(text)]) + text.ljust(room, b"\0")


WITH_SERIALS = report(
    page(
        4,
        0x80,
        12 + 36 + 38,
        FULL + tag(b"HWK006L8") + identifier(1, T10_SERIAL),
        EMPTY + bytes(36) + identifier(0, PLAIN_SERIAL),
    )
)
WITHOUT_SERIALS = report(
    page(4, 0x80, 12 + 36 + 4, FULL + tag(b"HWK006L8") + bytes(4), EMPTY + bytes(40))
)


@dataclass
class Changer(Port):
    """Answers what pyscsi asks a changer; an ``old`` one knows neither CURDATA nor DVCID."""

    old: bool = False
    name: str = "changer"
    moves: list[tuple[int, int]] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    closed: bool = False

    def close(self) -> None:
        self.closed = True

    def complete(self, command: Command) -> Completion:
        self.commands.append(command)
        cdb = command.cdb
        match cdb[0]:
            case 0x12:
                return self._data(command, INQUIRY)
            case 0x5A if cdb[2] & 0x3F == 0x1D:
                return self._data(command, ELEMENTS)
            case 0xB8 if self.old and cdb[6]:
                return Completion(status=2, driver_status=8, sense=REFUSED)
            case 0xB8:
                with_serials = cdb[6] & 0x01
                return self._data(command, WITH_SERIALS if with_serials else WITHOUT_SERIALS)
            case 0xA5:
                return self._move(int.from_bytes(cdb[4:6]), int.from_bytes(cdb[6:8]))
        return Completion(status=2, driver_status=8, sense=UNKNOWN)

    def _move(self, source: int, destination: int) -> Completion:
        if source == 0x0403:
            return Completion(status=2, driver_status=8, sense=NOT_THERE)
        self.moves.append((source, destination))
        return Completion()

    @staticmethod
    def _data(command: Command, data: bytes) -> Completion:
        return Completion(data=data[: command.allocation])
