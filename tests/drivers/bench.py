"""A drive on the bench: an emulated one, hwkm's driver for it, and a job that reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.drivers.tape import TapeDriver
from hwkm.keys import Cipher, SecretBytes, VolumeKey
from hwkm.scsi.commands import (
    locate,
    read_block,
    read_position,
    rewind,
    security_protocol_out,
    write_block,
    write_filemarks,
)
from hwkm.scsi.completion import Completion, Port, Status
from hwkm.scsi.emulator import DEFAULT_NEXUS, Drive, EmulatorTransport
from hwkm.scsi.transport import CheckConditionError, OutcomeUnknownError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hwkm.drivers.report import LoadReport
    from hwkm.scsi.transport import Command

KEY = VolumeKey(Cipher.AES_256_GCM, bytes(range(32)))
OTHER_KEY = VolumeKey(Cipher.AES_256_GCM, bytes(range(32, 64)))
KEY_ID = b"HWKM00000001"
OTHER_ID = bytes.fromhex("00 11 22 33 44 55 66 77 88 99 AA 00")
VOLUME = "Vol001"
BARCODE = "HWK001L8"

SPIN, SPOUT, READ = 0xA2, 0xB5, 0x08
CHANGED = (6, 0x28, 0x00)
MODE_CHANGED = (6, 0x2A, 0x01)


@dataclass
class Bench:
    """``transport`` is the job's way to the drive; the driver may have another one."""

    path: Path
    drive: Drive
    transport: EmulatorTransport
    driver: TapeDriver

    def load(
        self, key: VolumeKey = KEY, key_id: bytes = KEY_ID, pinned: bytes | None = None
    ) -> LoadReport:
        return self.driver.load(key, key_id, VOLUME, pinned=pinned)

    def through(self, port: Port) -> Bench:
        """Let the driver go through another port to the drive."""
        self.driver = TapeDriver(port, self.path.parent)
        return self

    def write(self, *blocks: bytes) -> None:
        for block in blocks:
            self.transport.execute(write_block(block))

    def filemark(self) -> None:
        self.transport.execute(write_filemarks(1))

    def read(self, length: int = 5) -> bytes:
        return self.transport.execute(read_block(length))

    def rewind(self) -> None:
        self.transport.execute(rewind())

    def locate(self, block: int) -> None:
        self.transport.execute(locate(block))

    def position(self) -> int:
        return int.from_bytes(self.transport.execute(read_position())[4:8])

    def spout(self, page: str, nexus: str = DEFAULT_NEXUS) -> None:
        """Send a page put together by hand."""
        data = SecretBytes(bytes.fromhex(page))
        EmulatorTransport(self.path, nexus).execute(security_protocol_out(0x20, 0x0010, data))

    @property
    def holds_a_key(self) -> bool:
        shared = self.drive.state()["shared"]
        return shared is not None and bool(shared["key"])

    @property
    def objects(self) -> tuple[bytes, ...]:
        return tuple(one.data for one in self.drive.blocks(BARCODE))


OTHER_HOSTS_KEY = "00 10 00 30 40 00 02 03 01 00 00 00 00 00 00 00 00 00 00 20" + "5A" * 32


class Between(Port):
    """A port to an emulated drive with something in between; counts commands."""

    def __init__(self, path: Path) -> None:
        self.inner = EmulatorTransport(path)
        self.name = self.inner.name
        self.sent: list[Command] = []

    def complete(self, command: Command) -> Completion:
        self.sent.append(command)
        return self.inner.complete(command)

    def close(self) -> None:
        self.inner.close()

    @property
    def codes(self) -> list[int]:
        return [command.cdb[0] for command in self.sent]


class Attentive(Between):
    """Has an event to report before every command."""

    def __init__(self, path: Path, code: tuple[int, int, int]) -> None:
        super().__init__(path)
        self._code = code
        self._due = True

    def complete(self, command: Command) -> Completion:
        self._due, due = not self._due, self._due
        if due and command.cdb[0] != 0x12:
            return check(self._code)
        return super().complete(command)


class Interfering(Between):
    """Does something once, after so many commands."""

    def __init__(self, path: Path, commands: int, what: Callable[[], None]) -> None:
        super().__init__(path)
        self._commands = commands
        self._what = what

    def complete(self, command: Command) -> Completion:
        end = super().complete(command)
        if len(self.sent) == self._commands:
            self._what()
        return end


class Interrupted(Between):
    """Runs the command that sets a key, or does not, and says that nobody knows."""

    def __init__(self, path: Path, *, runs: bool) -> None:
        super().__init__(path)
        self._runs = runs

    def complete(self, command: Command) -> Completion:
        if not sets_a_key(command):
            return super().complete(command)
        if self._runs:
            super().complete(command)
        raise OutcomeUnknownError("interrupted")


class LikeMhvtl(Between):
    """Shows the drive as mhvtl does: its status page, one KAD, no CKOD, and no events.

    PAGE LENGTH of page 0020h is 12 too many, its scopes are always LOCAL, byte 12 is zero.
    """

    def complete(self, command: Command) -> Completion:
        if sets_a_key(command):
            page = bytearray(command.exposed())
            page[4], page[5] = 0x40, 0
            start = 20 + int.from_bytes(page[18:20])
            if len(page) > start:
                del page[start + 4 + int.from_bytes(page[start + 2 : start + 4]) :]
            page[2:4] = (len(page) - 4).to_bytes(2)
            command = security_protocol_out(0x20, 0x0010, SecretBytes(bytes(page)))
        end = super().complete(command)
        if command.cdb[:4] == b"\xa2\x20\x00\x20" and end.status == Status.GOOD:
            data = end.data
            length = int.from_bytes(data[2:4]) + 12
            shown = data[:2] + length.to_bytes(2) + b"\x21" + data[5:12] + b"\0" + data[13:]
            return Completion(data=shown)
        return end


class Sleepy(Between):
    """Can't tell what the next block is until it has read one."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._awake = False

    def complete(self, command: Command) -> Completion:
        end = super().complete(command)
        self._awake = self._awake or command.cdb[0] == READ
        if command.cdb[:4] == b"\xa2\x20\x00\x21" and not self._awake:
            return Completion(data=bytes.fromhex("0021000C") + end.data[4:12] + b"\1\0\0\0")
        return end


def sets_a_key(command: Command) -> bool:
    return command.cdb[0] == SPOUT and command.exposed()[6:8] != b"\0\0"


def check(code: tuple[int, int, int]) -> Completion:
    sense = bytes((0x70, 0, code[0], 0, 0, 0, 0, 10, 0, 0, 0, 0, code[1], code[2], 0, 0, 0, 0))
    return Completion(status=Status.CHECK_CONDITION, sense=sense)


def refusal(call: Callable[[], object]) -> str:
    """Return the sense code with which the drive refuses."""
    try:
        call()
    except CheckConditionError as error:
        return error.sense.number
    return "good"
