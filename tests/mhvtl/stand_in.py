"""A stand-in for mhvtl, made from what was measured on it, for machines that have none.

It answers as the real one did, byte for byte where bytes are known: its faults are mhvtl's. It
shares no code with hwkm's emulated drives. Tests that hold on it need not hold on mhvtl.
"""

from __future__ import annotations

import fcntl
import pickle
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hwkm.scsi.completion import Completion, HostStatus, Port, Status
from tests.mhvtl.models import A_KAD, MODELS, U_KAD, Model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.scsi.transport import Command

PREFIX = "stand-in:"
KEY_BYTES = 32
MAX_PAGE_BYTES = 255
UNREADABLE, READABLE, PLAIN, NO_BLOCK = 6, 5, 3, 2
DISABLE, EXTERNAL, ENCRYPT = 0, 1, 2
DECRYPT, MIXED = 2, 3
PAGES = "0000 000e 0000 0001 0010 0011 0012 0020 0021"
MANAGEMENT = "0012 000c 01 07 00 07 0000000000000000"
TEXTS = {0x0803: 160, 0x0807: 80, 0x0808: 160}
STORED = frozenset({0x0800, 0x0801, 0x0806, *TEXTS})
"""Attributes that are kept. What is written to others is taken, and forgotten."""

FILEMARK_FLAG, ILI_FLAG = 0x80, 0x20


@dataclass
class Item:
    """A block, or a filemark where ``data`` is None; ``key`` is what it was encrypted with."""

    data: bytes | None
    key: bytes | None = None
    kad: tuple[int, bytes] | None = None


@dataclass
class Memory:
    """All that it remembers."""

    model: str
    serial: str
    barcode: str = ""
    suits: bool = True
    key: bytes = b""
    kad: tuple[int, bytes] | None = None
    encryption: int = DISABLE
    decryption: int = DISABLE
    counter: int = 0
    position: int = 0
    loads: int = 0
    wrote_plain: bool = False
    crashed: bool = False
    tape: list[Item] = field(default_factory=list)
    encrypted_format: bool = False
    attributes: dict[int, bytes] = field(default_factory=dict)


class Refused(Exception):  # noqa: N818  # it is how a command ends
    def __init__(
        self, key: int, asc: int, ascq: int, pointer: str = "", *, more: int = 0, data: bytes = b""
    ) -> None:
        super().__init__()
        specific = bytes.fromhex(pointer).ljust(3, b"\0")
        head = bytes((0xF0, 0, key)) + more.to_bytes(4, signed=True) + b"\x58" + bytes(4)
        self.sense = (head + bytes((asc, ascq, 0)) + specific).ljust(96, b"\0")
        self.data = data


class Crashed(Exception):  # noqa: N818  # as above
    """The daemon is gone: nothing is answered any more."""


def create(path: Path, model: Model, barcode: str = "HWK001L5", *, suits: bool = True) -> str:
    """Make one in a file; return its name. ``suits``: the cartridge can be encrypted."""
    memory = Memory(model.name, f"XYZZY_{model.name.upper()}", barcode, suits, loads=1)
    path.write_bytes(pickle.dumps(memory))
    return f"{PREFIX}{path}"


def open_stand_in(name: str) -> Port:
    """What takes the place of ``open_device``."""
    return StandIn(Path(name.removeprefix(PREFIX)))


class StandIn(Port):
    def __init__(self, path: Path) -> None:
        self.name = f"{PREFIX}{path}"
        self._path = path

    def close(self) -> None:
        """Nothing is open."""

    def complete(self, command: Command) -> Completion:
        with self._memory() as memory:
            try:
                data = _Command(memory, command.cdb, command.exposed()).run()
            except Refused as refusal:
                status, cut = Status.CHECK_CONDITION, refusal.data[: command.allocation]
                return Completion(status=status, sense=refusal.sense, data=cut)
            except Crashed:
                return Completion(host_status=HostStatus.TIME_OUT)
        return Completion(data=data[: command.allocation])

    @contextmanager
    def _memory(self) -> Iterator[Memory]:
        with self._path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            memory = pickle.load(file)
            yield memory
            file.seek(0)
            file.truncate()
            pickle.dump(memory, file)


class _Command:
    def __init__(self, memory: Memory, cdb: bytes, data: bytes) -> None:
        self.memory = memory
        self.cdb = cdb
        self.data = data
        self.model = next(one for one in MODELS if one.name == memory.model)

    def run(self) -> bytes:
        if self.memory.crashed:
            raise Crashed
        known = {
            0x00: self.test_unit_ready, 0x01: self.rewind, 0x08: self.read, 0x0A: self.write,
            0x10: self.write_filemarks, 0x11: self.space, 0x12: self.inquiry,
            0x1B: self.load_unload, 0x2B: self.locate, 0x34: self.read_position,
            0x4D: self.log_sense, 0x5A: self.mode_sense, 0x8C: self.read_attribute,
            0x8D: self.write_attribute,
            0xA2: self.spin, 0xB5: self.spout,
        }  # fmt: skip
        if self.cdb[0] not in known:
            raise Refused(5, 0x20, 0, "c00000")
        return known[self.cdb[0]]()

    # Who it is

    def inquiry(self) -> bytes:
        if not self.cdb[1]:
            texts = (self.model.vendor, 8), (self.model.product, 16), (self.model.revision, 4)
            names = b"".join(text.ljust(length).encode() for text, length in texts)
            return (bytes.fromhex("0180050240000002") + names).ljust(69, b"\0")
        if self.cdb[2] == 0x80:
            serial = self.memory.serial.encode()
            return bytes((1, 0x80, 0, len(serial))) + serial
        raise Refused(5, 0x24, 0, "c00002")

    def read_attribute(self) -> bytes:
        self._mounted()
        memory, first = self.memory, int.from_bytes(self.cdb[8:10])
        known = {
            0x0003: (0x80, memory.loads.to_bytes(8)),
            0x0400: (0x81, b"linuxVTL"),
            0x0401: (0x81, f"{memory.barcode}_1795490944".encode().ljust(32, b"\0")),
            0x0408: (0x80, b"\0"),
            0x0800: (0x01, b"vtl-1.8 "),
            0x0801: (0x01, bytes(32)),
            0x0806: (0x01, memory.barcode.encode().ljust(31) + b"\0"),
            **{one: (2, bytes(length)) for one, length in TEXTS.items()},
        }
        for one, value in memory.attributes.items():
            known[one] = (known[one][0], value)
        known = dict(sorted(known.items()))
        if first not in known and first:
            raise Refused(5, 0x24, 0, "c00008")
        shown = {one: known[one] for one in known if one >= first}
        if self.cdb[1] & 0x1F == 1:
            body = b"".join(one.to_bytes(2) for one in shown)
        elif self.cdb[1] & 0x1F == 0:
            body = b"".join(
                one.to_bytes(2) + bytes((flags,)) + len(value).to_bytes(2) + value
                for one, (flags, value) in shown.items()
            )
        else:
            raise Refused(5, 0x24, 0, "c00001")
        return len(body).to_bytes(4) + body

    def write_attribute(self) -> bytes:
        """Keep what can be kept; nothing is ever refused, and nothing deleted."""
        self._mounted()
        rest = self.data[4:]
        while len(rest) >= 5:
            number, length = int.from_bytes(rest[:2]), int.from_bytes(rest[3:5])
            value, rest = rest[5 : 5 + length], rest[5 + length :]
            if number in STORED and value:
                self.memory.attributes[number] = value
        return b""

    def log_sense(self) -> bytes:
        page = self.cdb[2] & 0x3F
        if page == 0x2E:
            flags = b"".join(bytes((0, one, 0xC0, 1, 0)) for one in range(1, 65))
            return b"\x2e\0" + len(flags).to_bytes(2) + flags
        if page == 0x11:
            return bytes.fromhex("1100000800000304 00000001")
        raise Refused(5, 0x24, 0, "c00002")

    def mode_sense(self) -> bytes:
        protected = 0x80 if self.memory.barcode and not self.memory.suits else 0
        pages = {
            (0x10, 0): bytes.fromhex("100e00000000006440001800000000 80".replace(" ", "")),
            (0x25, 0): bytes.fromhex("251e000000010100").ljust(32, b"\0"),
            (0x30, 0x20): bytes.fromhex("300700000003010100"),
        }
        page = pages.get((self.cdb[2] & 0x3F, self.cdb[3]))
        if page is None:
            raise Refused(5, 0x24, 0, "c00002")
        body = bytes((0, protected, 0, 0, 0, 8)) + bytes(8) + page
        return len(body).to_bytes(2) + body

    # The cartridge

    def _mounted(self) -> None:
        if not self.memory.barcode or self.memory.position < 0:
            raise Refused(2, 0x3A, 0)

    def test_unit_ready(self) -> bytes:
        self._mounted()
        return b""

    def load_unload(self) -> bytes:
        """Unload; or load again, where mhvtl needs a changer. Keys stay, nobody is told."""
        load = self.cdb[4] & 1
        self.memory.loads += load
        self.memory.position = 0 if load else -1
        return b""

    def rewind(self) -> bytes:
        self._mounted()
        self.memory.position = 0
        return b""

    def read_position(self) -> bytes:
        self._mounted()
        here = self.memory.position
        return bytes((0x80 if not here else 0, 0, 0, 0)) + here.to_bytes(4) * 2 + bytes(8)

    def locate(self) -> bytes:
        self._mounted()
        target, end = int.from_bytes(self.cdb[3:7]), len(self.memory.tape)
        self.memory.position = min(target, end)
        if target > end:
            raise Refused(8, 0, 5)
        return b""

    def space(self) -> bytes:
        self._mounted()
        count = int.from_bytes(self.cdb[2:5], signed=True)
        if self.cdb[1] & 7 or count < 0:
            raise Refused(5, 0x24, 0, "c00001")
        for left in range(count, 0, -1):
            item = self._next()
            if item is None:
                raise Refused(8, 0, 5, more=left)
            self.memory.position += 1
            if item.data is None:
                raise Refused(FILEMARK_FLAG, 0, 1, more=left)
        return b""

    def _next(self) -> Item | None:
        memory = self.memory
        return memory.tape[memory.position] if memory.position < len(memory.tape) else None

    def write_filemarks(self) -> bytes:
        self._mounted()
        count = int.from_bytes(self.cdb[2:5])
        if count:
            self._writable()
        for _ in range(count):
            self._put(Item(None))
        return b""

    def write(self) -> bytes:
        self._mounted()
        self._writable()
        memory, data = self.memory, self.data[: int.from_bytes(self.cdb[2:5])]
        encrypting = memory.encryption == ENCRYPT
        if self.model.first_block_is_plain and not memory.position:
            memory.encrypted_format, encrypting = encrypting, False
        elif self.model.first_block_is_plain and encrypting and not memory.encrypted_format:
            raise Refused(7, 0x27, 0)
        self._put(Item(data, memory.key, memory.kad) if encrypting else Item(data))
        memory.wrote_plain = not encrypting
        return b""

    def _writable(self) -> None:
        if self.model.encrypts and not self.memory.suits:
            raise Refused(7, 0x27, 0)

    def _put(self, item: Item) -> None:
        del self.memory.tape[self.memory.position :]
        self.memory.tape.append(item)
        self.memory.position += 1

    def read(self) -> bytes:
        self._mounted()
        length, item = int.from_bytes(self.cdb[2:5]), self._next()
        if item is None:
            raise Refused(8, 0, 5, more=length)
        if item.data is None:
            self.memory.position += 1
            raise Refused(FILEMARK_FLAG, 0, 1, more=length)
        self._check_key(item)
        self.memory.position += 1
        if len(item.data) != length:
            left = length - len(item.data)
            raise Refused(ILI_FLAG, 0, 0, more=left, data=item.data[:length])
        return item.data

    def _check_key(self, item: Item) -> None:
        memory = self.memory
        if item.key is None:
            if memory.decryption == DECRYPT:
                raise Refused(7, 0x74, 2)
            return
        if memory.encryption == EXTERNAL or memory.decryption not in (DECRYPT, MIXED):
            raise Refused(7, 0x74, 1)
        if memory.wrote_plain:
            memory.crashed = True
            raise Crashed
        if item.key != memory.key or (self.model.kad_must_match and item.kad != memory.kad):
            raise Refused(7, 0x74, 3)

    # Keys

    def spin(self) -> bytes:
        if not self.model.encrypts:
            raise Refused(5, 0x20, 0, "c00000")
        protocol, page = self.cdb[1], int.from_bytes(self.cdb[2:4])
        if protocol == 0x00 and page == 0x0000:
            return bytes.fromhex("00000000000000020020")
        if protocol != 0x20:
            raise Refused(5, 0x24, 0, "c00001")
        pages = {
            0x0000: lambda: bytes.fromhex(PAGES),
            0x0001: lambda: bytes.fromhex("000100020010"),
            0x0010: self._capabilities,
            0x0011: lambda: bytes.fromhex("001100020000"),
            0x0012: lambda: bytes.fromhex(MANAGEMENT),
            0x0020: self._status,
            0x0021: self._next_block,
        }
        if page not in pages:
            raise Refused(5, 0x24, 0, "c00002")
        return pages[page]()[: int.from_bytes(self.cdb[6:10])]

    def _capabilities(self) -> bytes:
        mounted = bool(self.memory.barcode) and self.memory.position >= 0
        return self.model.capabilities(mounted=mounted, suits=self.memory.suits)

    def _status(self) -> bytes:
        memory = self.memory
        modes = bytes((0x21, memory.encryption, memory.decryption, 1))
        kad = b"" if memory.kad is None else _packed(memory.kad, 0)
        length = 0x20 + len(kad)  # 12 too many
        return b"\0\x20" + length.to_bytes(2) + modes + memory.counter.to_bytes(4) + bytes(12) + kad

    def _next_block(self) -> bytes:
        self._mounted()
        item = self._next()
        head = b"\0\x21\0\x0c" + self.memory.position.to_bytes(8)
        if item is None or item.data is None:
            return head + bytes((NO_BLOCK, 1, 0, 0))
        if item.key is None:
            return head + bytes((PLAIN, 1, 0, 0))
        status = READABLE if item.key == self.memory.key else UNREADABLE
        kad = b"" if item.kad is None else _packed(item.kad, 3 if item.kad[0] == A_KAD else 1)
        page = head + bytes((status, 1, 0, 0)) + kad
        return page[:2] + (len(page) - 4).to_bytes(2) + page[4:]

    def spout(self) -> bytes:
        if not self.model.encrypts:
            raise Refused(5, 0x20, 0, "c00000")
        if self.cdb[1] != 0x20:
            raise Refused(5, 0x24, 0, "c00001")
        data = self.data.ljust(20, b"\0")
        _check_head(data)
        end = 20 + int.from_bytes(data[18:20])
        kad = _first_kad(data[end:])
        memory, memory.decryption = self.memory, data[7]
        if self._bad(kad, data[6]):
            # A refused page is not without effect.
            memory.key, memory.kad, memory.encryption = b"", None, DISABLE
            raise Refused(5, 0x24, 0)
        memory.key, memory.kad, memory.encryption = data[20:end], kad, data[6]
        memory.counter += 1
        return b""

    def _bad(self, kad: tuple[int, bytes] | None, encryption: int) -> bool:
        if kad is None:
            return False
        most = self.model.limits[U_KAD if kad[0] == U_KAD else A_KAD]
        only_decrypts = encryption == DISABLE and not self.model.kad_without_encryption
        return len(kad[1]) > most or only_decrypts


def _check_head(data: bytes) -> None:
    length = int.from_bytes(data[2:4])
    wrong = (
        (data[:2] != b"\0\x10", 1),
        (length > MAX_PAGE_BYTES, 2),
        (length < 16, 3),
        (data[8] != 1, 8),
        (data[9] != 0, 9),
    )
    for is_wrong, at in wrong:
        if is_wrong:
            raise Refused(5, 0x26, 0, f"8000{at:02x}")


def _first_kad(data: bytes) -> tuple[int, bytes] | None:
    """Return the first KAD; the others are not looked at, and unknown types are ignored."""
    if len(data) < 4 or data[0] not in (U_KAD, A_KAD):
        return None
    length = int.from_bytes(data[2:4])
    return (data[0], data[4 : 4 + length].ljust(length, b"\0")) if length else None


def _packed(kad: tuple[int, bytes], authenticated: int) -> bytes:
    return bytes((kad[0], authenticated)) + len(kad[1]).to_bytes(2) + kad[1]
