"""A Storage Daemon with a tape drive: it calls the Encryption Command in Bacula's orders.

The drive is an emulated one. On the tape are blocks laid out as Bacula's, the label first; what
reads them is the independent reader of tests/bacula.
"""

from __future__ import annotations

import struct
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.scsi import commands
from hwkm.scsi.emulator import Drive, EmulatorTransport
from hwkm.scsi.transport import CheckConditionError
from tests.bacula import volume as bacula

from .home import VOLUME, Answer, Home

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.scsi.transport import Command
    from tests.getkey.process import Run

CARTRIDGE = "L90001L9"
BLOCK_BYTES = 1024
CHECKSUM, VOLUME_ENCRYPTED = 1, 2
A_KAD = "1"


@dataclass(frozen=True, slots=True)
class StorageDaemon:
    """A Storage Daemon whose drive is the emulated one at ``path``."""

    home: Home
    path: Path
    volume: str = VOLUME

    @property
    def device(self) -> str:
        """What %a stands for."""
        return f"emulator:{self.path}"

    @property
    def drive(self) -> Drive:
        """The drive, for what no host can do or see."""
        return Drive(self.path)

    def ask(self, operation: str, wrapped: bytes = b"", *more: str) -> Answer:
        """Call the Encryption Command."""
        options = ("--device", self.device, "--job", "7", *more)
        return self.home.getkey(operation, self.volume, wrapped, options=options)

    def label(self, *more: str) -> Answer:
        """Label the tape: LABEL, and if a key is given, the label block goes to the beginning."""
        answer = self.ask("LABEL", b"", *more)
        if answer.reply is not None:
            given = answer.reply
            self.run(commands.rewind())
            self.append(label_block(self.volume, given.wrapped, given.master_id))
            self.run(commands.write_filemarks(1))
        return answer

    def mount(self) -> Answer:
        """Mount the tape: its label block is read, then READ."""
        return self.ask("READ", self.label_on_tape().wrapped_key)

    def label_on_tape(self) -> bacula.Label:
        """Read the label; the tape then stands before the data."""
        self.run(commands.rewind())
        scratch = self.home.path / "label-block"
        scratch.write_bytes(self.read())
        self.run(commands.locate(2))
        return bacula.label(scratch)

    def append(self, *blocks: bytes) -> None:
        """Write blocks where the tape stands, each filled up to BLOCK_BYTES."""
        for block in blocks:
            self.run(commands.write_block(block.ljust(BLOCK_BYTES, b"\0")))

    def read(self) -> bytes:
        """Read the block before which the tape stands."""
        return self.run(commands.read_block(BLOCK_BYTES))

    def run(self, command: Command) -> bytes:
        """Run a command on the drive, as the operating system's tape driver does."""
        with closing(EmulatorTransport(self.path)) as port:
            return port.execute(command)

    def hwkm(self, verb: str, *words: str) -> Run:
        """Run ``hwkm drive VERB`` on the drive."""
        return self.home.hwkm("drive", verb, self.device, *words)

    def held(self) -> bytes | None:
        """Return the A-KAD of the key in the drive, None if there is no key."""
        shared = self.drive.state()["shared"]
        if shared is None or not shared["key"]:
            return None
        return bytes.fromhex(shared["kads"][A_KAD])

    def key_ids(self) -> list[bytes]:
        """Return the key ids of the volume's generations, the oldest first."""
        rows = self.home.query(
            "SELECT key_id FROM generation JOIN volume USING (volume_id) "
            "WHERE name = ? ORDER BY generation",
            self.volume,
        )
        return [row[0] for row in rows]

    def proofs(self) -> list[tuple[str, int, str]]:
        """Return kind, outcome and job of all that the drive was seen to do."""
        rows = self.home.query("SELECT kind, encrypted, job FROM proof ORDER BY proof_id")
        return [(row[0], row[1], row[2]) for row in rows]


def refusal(daemon: StorageDaemon) -> str:
    """Return the sense code with which the drive refuses to read the next block, or "read"."""
    try:
        daemon.read()
    except CheckConditionError as error:
        return error.sense.number
    return "read"


def label_block(volume: str, wrapped: bytes, master_id: bytes) -> bytes:
    """Return the first block of a volume as Bacula 15 lays it out (its serialisation, BB03)."""
    when = 1_795_000_000
    names = (volume, "", "Default", "Backup", "LTO-9", "OBFUSCATED", "sd", "15.0.3", "now", "")
    record = b"".join(
        (
            b"Bacula 1.0 immortal\n\0",
            struct.pack(">IQQdd", 11, when, when, 0.0, 0.0),
            *(name.encode() + b"\0" for name in names),
            struct.pack(">QIII", 0, 0, 0, 0),
            *(len(one).to_bytes(4) + one for one in (wrapped, master_id)),
            bytes(4),
        )
    )
    payload = struct.pack(">iiI", -1, 0, len(record)) + record
    length = bacula.HEADER.size + len(payload)
    options = CHECKSUM | VOLUME_ENCRYPTED
    return bacula.HEADER.pack(options, length, 0, b"BB03", 1, when, 0) + payload
