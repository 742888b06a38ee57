"""A drive under test, reached as hwkm reaches any drive: a process that holds it, and TapeDriver.

An emulated drive, a stand-in and /dev/sgN differ in what ``open`` opens, and in nothing above it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hwkm.drivers.tape import TapeDriver
from hwkm.keys import Cipher, SecretBytes, VolumeKey
from hwkm.scsi.commands import (
    locate,
    read_block,
    read_position,
    rewind,
    security_protocol_in,
    security_protocol_out,
    write_block,
    write_filemarks,
)
from hwkm.scsi.encryption import KeyRequest
from hwkm.scsi.pages.capabilities import ConfigurationPrevented
from hwkm.scsi.pages.kad import Kad, KadType
from hwkm.scsi.pages.status import DecryptionMode, EncryptionMode
from hwkm.scsi.read_position import Position
from hwkm.scsi.transport import CheckConditionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hwkm.drivers.report import LoadReport
    from hwkm.scsi.encryption import TapeEncryption
    from hwkm.scsi.pages.capabilities import Algorithm
    from hwkm.scsi.pages.next_block import NextBlockStatus
    from hwkm.scsi.pages.set_encryption import SetDataEncryption
    from hwkm.scsi.pages.status import EncryptionStatus
    from hwkm.scsi.sense import Sense
    from hwkm.scsi.transport import Transport

KEY = VolumeKey(Cipher.AES_256_GCM, bytes(range(32)))
OTHER_KEY = VolumeKey(Cipher.AES_256_GCM, bytes(range(32, 64)))
KEY_ID = b"HWKMTEST0001"
OTHER_ID = b"HWKMTEST0002"
VOLUME = "Scratch"

BLOCK_BYTES = 32768
LABEL = b"VOL1 scratch tape of hwkm's tests".ljust(80)
BLOCKS = tuple(bytes((number,)) * BLOCK_BYTES for number in (1, 2))
FIRST = 1
"""Where BLOCKS begin. What a block at the very beginning becomes differs between drives: a 3592
leaves it clear, for it takes it for a label."""

CANT_DECRYPT, UNENCRYPTED, INCORRECT_KEY = "7/74/01", "7/74/02", "7/74/03"


def usable(session: TapeEncryption) -> Algorithm | None:
    """Return what the drive itself can encrypt the cartridge with, at a host's bidding.

    Not only AES-256-GCM, which is all that hwkm's volumes use.
    """
    found = session.capabilities() if session.pages() else None
    if found is None or found.configuration_prevented == ConfigurationPrevented.PREVENTED:
        return None
    good = [one for one in found.algorithms if one.in_hardware and one.valid_for_volume]
    return max(good, key=lambda one: one.is_aes_256_gcm, default=None)


@dataclass
class Station:
    """The drive at ``device``, opened.

    ``sort`` is ``emulated``, ``stand-in``, ``mhvtl`` or ``real``. ``tape`` is its /dev/nstN, None
    without one. ``reopen`` opens it once more, as another program of this host does; ``other_host``
    opens the way of a second host. ``reload`` takes the cartridge out and puts it back in; None
    where nothing can.
    """

    name: str
    sort: str
    serial: str
    transport: Transport
    runtime: Path
    reopen: Callable[[], Transport]
    tape: Path | None = None
    other_host: Callable[[], Transport] | None = None
    reload: Callable[[Station], None] | None = None
    driver: TapeDriver = field(init=False)

    def __post_init__(self) -> None:
        self.driver = TapeDriver(self.transport, self.runtime)

    @property
    def session(self) -> TapeEncryption:
        return self.driver.session

    # The tape, as a job uses it

    def write(self, *blocks: bytes) -> None:
        for block in blocks:
            self.session.transport.execute(write_block(block))

    def filemark(self) -> None:
        self.session.transport.execute(write_filemarks(1))

    def write_tape(self) -> None:
        """Write a label, BLOCKS and a filemark from the beginning on."""
        self.rewind()
        self.write(LABEL, *BLOCKS)
        self.filemark()
        self.rewind()

    def blank(self) -> None:
        """Leave nothing on the tape but a filemark."""
        self.rewind()
        self.filemark()
        self.rewind()

    def read(self, length: int = BLOCK_BYTES) -> bytes:
        return self.session.transport.execute(read_block(length))

    def read_at(self, number: int, length: int = BLOCK_BYTES) -> bytes:
        self.locate(number)
        return self.read(length)

    def rewind(self) -> None:
        self.session.transport.execute(rewind())

    def locate(self, number: int) -> None:
        self.session.transport.execute(locate(number))

    def position(self) -> int:
        return Position.parse(self.session.transport.execute(read_position())).block

    # Keys

    def load(self, key: VolumeKey = KEY, key_id: bytes = KEY_ID) -> LoadReport:
        return self.driver.load(key, key_id, VOLUME)

    def request(
        self,
        key: VolumeKey = KEY,
        name: bytes = KEY_ID,
        decryption: DecryptionMode = DecryptionMode.MIXED,
    ) -> KeyRequest:
        algorithm = self.algorithm()
        kind = KadType.A_KAD if algorithm.max_akad >= len(name) else KadType.U_KAD
        return KeyRequest(
            key=key, algorithm=algorithm, kads=(Kad(kind, name),), decryption_mode=decryption
        )

    def set_key(
        self,
        key: VolumeKey = KEY,
        name: bytes = KEY_ID,
        decryption: DecryptionMode = DecryptionMode.MIXED,
    ) -> SetDataEncryption:
        """Set a key with one KAD, whatever algorithm the drive has."""
        return self.session.set_key(self.request(key, name, decryption))

    def algorithm(self) -> Algorithm:
        found = usable(self.session)
        assert found is not None
        return found

    def status(self) -> EncryptionStatus:
        return self.session.status()

    def next_block(self) -> NextBlockStatus:
        found = self.session.next_block()
        assert found is not None
        return found

    def counter(self) -> int:
        return self.status().key_instance_counter

    def spin(self, page: int, protocol: int = 0x20) -> bytes:
        return self.session.transport.execute(security_protocol_in(protocol, page))

    def spout(self, page: bytes | bytearray, protocol: int = 0x20) -> None:
        """Send a page put together by hand, to page code 0010h."""
        command = security_protocol_out(protocol, 0x0010, SecretBytes(bytes(page)))
        self.session.transport.execute(command)

    def page(self, *kads: Kad) -> bytearray:
        """Return the page that sets KEY, to be spoilt."""
        request = self.request()
        page = request.page()
        if kads:
            page = type(page)(
                scope=page.scope,
                encryption_mode=EncryptionMode.ENCRYPT,
                decryption_mode=DecryptionMode.DECRYPT,
                algorithm_index=page.algorithm_index,
                key=KEY,
                kads=kads,
            )
        return bytearray(page.pack().expose())


def refusal(call: Callable[[], object]) -> Sense:
    """Return the sense with which the drive refuses."""
    try:
        call()
    except CheckConditionError as error:
        return error.sense
    raise AssertionError("it was not refused")
