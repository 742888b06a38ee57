"""A host that talks to an emulated drive in bytes put together by hand, without hwkm's encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.keys import SecretBytes
from hwkm.scsi.completion import Status
from hwkm.scsi.emulator import DEFAULT_NEXUS, Drive, EmulatorTransport
from hwkm.scsi.transport import Command

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.scsi.completion import Completion

KEY = bytes(range(32))
OTHER_KEY = bytes(range(32, 64))
LABEL = b"HWKM:0123456789AB"
KEY_ID = b"HWKM00000001"

PUBLIC, LOCAL, ALL = 0x00, 0x20, 0x40
LOCK = 0x01
CKOD, CKORP, CKORL = 0x04, 0x02, 0x01


def kad(kind: int, value: bytes) -> bytes:
    return bytes((kind, 0)) + len(value).to_bytes(2) + value


def page(
    key: bytes = KEY,
    kads: bytes = b"",
    *,
    scope: int = ALL,
    flags: int = 0,
    modes: tuple[int, int] = (2, 2),
    index: int = 1,
    key_format: int = 0,
    kad_format: int = 0,
) -> bytes:
    body = bytes((scope, flags, *modes, index, key_format, kad_format)) + bytes(7)
    body += len(key).to_bytes(2) + key + kads
    return b"\x00\x10" + len(body).to_bytes(2) + body


CLEAR = page(b"", modes=(0, 0))


class Host:
    """One host. ``code`` of what it gets is (key, asc, ascq); (0,) is GOOD."""

    def __init__(self, path: Path, nexus: str = DEFAULT_NEXUS) -> None:
        self.path = path
        self.drive = Drive(path)
        self.transport = EmulatorTransport(path, nexus)

    def run(self, cdb: str | bytes, data: bytes = b"", *, room: int = 65535) -> Completion:
        raw = bytes.fromhex(cdb) if isinstance(cdb, str) else cdb
        return self.transport.complete(
            Command("test", raw, SecretBytes(data), allocation=0 if data else room)
        )

    def good(self, cdb: str | bytes, data: bytes = b"") -> bytes:
        end = self.run(cdb, data)
        assert end.status == Status.GOOD, end.sense.hex(" ")
        return end.data

    def refusal(self, cdb: str | bytes, data: bytes = b"") -> tuple[str, str]:
        """Return the sense code, and SENSE KEY SPECIFIC, both in hexadecimal."""
        end = self.run(cdb, data)
        assert end.status == Status.CHECK_CONDITION
        sense = end.sense
        return code(end), sense[15:18].hex()

    def spin(self, number: int, protocol: int = 0x20) -> bytes:
        return self.good(
            bytes((0xA2, protocol)) + number.to_bytes(2) + bytes.fromhex("0000000020000000")
        )

    def set(self, data: bytes) -> Completion:
        return self.run(spout_cdb(data), data)

    def status(self) -> bytes:
        return self.spin(0x0020)

    def next_block(self) -> bytes:
        return self.spin(0x0021)

    def write(self, data: bytes) -> Completion:
        return self.run(b"\x0a\x00" + len(data).to_bytes(3) + b"\x00", data)

    def read(self, length: int = 5) -> Completion:
        return self.run(b"\x08\x00" + length.to_bytes(3) + b"\x00")

    def filemarks(self, count: int = 1) -> Completion:
        return self.run(b"\x10\x00" + count.to_bytes(3) + b"\x00")

    def rewind(self) -> None:
        self.good("01 00 00 00 00 00")

    def position(self) -> int:
        return int.from_bytes(self.good("34 00 00 00 00 00 00 00 00 00")[4:8])

    def ready(self) -> Completion:
        return self.run("00 00 00 00 00 00")


def spout_cdb(data: bytes) -> bytes:
    return bytes.fromhex("B5 20 00 10 00 00") + len(data).to_bytes(4) + bytes(2)


def code(end: Completion) -> str:
    """Return how a command ended: "good", "7/74/03" or the name of the status."""
    if end.status == Status.CHECK_CONDITION:
        return f"{end.sense[2] & 0x0F:X}/{end.sense[12]:02X}/{end.sense[13]:02X}"
    return Status(end.status).name.lower()
