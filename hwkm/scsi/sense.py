"""Sense data: why a device refused a command, or what it has to report (SPC-5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique

from hwkm.errors import ParseError

FIXED_CURRENT = 0x70
FIXED_DEFERRED = 0x71
DESCRIPTOR_CURRENT = 0x72
DESCRIPTOR_DEFERRED = 0x73

HEADER_BYTES = 8
"""Bytes up to ADDITIONAL SENSE LENGTH, in both formats."""

INFORMATION_DESCRIPTOR = 0x00
SENSE_KEY_SPECIFIC_DESCRIPTOR = 0x02
STREAM_COMMANDS_DESCRIPTOR = 0x04


INVALID_COMMAND, INVALID_FIELD_IN_CDB, MEDIUM_NOT_PRESENT = 0x20, 0x24, 0x3A
"""ADDITIONAL SENSE CODE of what is asked for by name here."""


@unique
class SenseKey(IntEnum):
    """Sense keys (SPC-5)."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    VENDOR_SPECIFIC = 0x9
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    VOLUME_OVERFLOW = 0xD
    MISCOMPARE = 0xE
    COMPLETED = 0xF


@dataclass(frozen=True, slots=True)
class FieldPointer:
    """The field that a device objects to: a byte of the CDB or of the data sent with it.

    ``bit`` is the field's most significant bit, 7 to 0; None if the device does not say.
    """

    in_cdb: bool
    byte: int
    bit: int | None = None


@dataclass(frozen=True, slots=True)
class Sense:
    """Decoded sense data. Keys and codes that no standard knows are kept as they came.

    ``deferred`` means that an earlier command failed, not this one. ``information`` is signed, as
    SSC-5 counts in it: for ILI the requested length minus the block's. ``raw`` is what was parsed.
    """

    key: int
    asc: int
    ascq: int
    deferred: bool = False
    information: int | None = None
    field_pointer: FieldPointer | None = None
    filemark: bool = False
    eom: bool = False
    ili: bool = False
    raw: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> Sense:
        """Return the sense data in ``data``, of fixed or descriptor format.

        Whatever is cut off counts as zero or as not there.

        :raises ParseError: if the format is another, or not even the sense key is there.
        """
        code = data[0] & 0x7F if data else 0
        if code in (FIXED_CURRENT, FIXED_DEFERRED) and len(data) > 2:
            return _parse_fixed(_clamped(data))
        if code in (DESCRIPTOR_CURRENT, DESCRIPTOR_DEFERRED) and len(data) > 1:
            return _parse_descriptors(_clamped(data))
        raise ParseError(
            f"{len(data)} bytes that start with {data[:1].hex() or '--'}h are no sense"
        )

    @property
    def code(self) -> tuple[int, int, int]:
        """Sense key, additional sense code and its qualifier."""
        return self.key, self.asc, self.ascq

    @property
    def number(self) -> str:
        """The code as it is usually printed: ``5/26/00``, in hexadecimal."""
        return f"{self.key:X}/{self.asc:02X}/{self.ascq:02X}"

    @property
    def is_unit_attention(self) -> bool:
        """Whether the device reports an event, and has not run the command."""
        return self.key == SenseKey.UNIT_ATTENTION

    @property
    def is_unknown_request(self) -> bool:
        """Whether the device does not know this command, or this page (5/20/00, 5/24/00)."""
        codes = (INVALID_COMMAND, INVALID_FIELD_IN_CDB)
        return not self.deferred and self.code in [(SenseKey.ILLEGAL_REQUEST, c, 0) for c in codes]

    @property
    def is_no_medium(self) -> bool:
        """Whether no cartridge is loaded (2/3A/xx)."""
        return self.matches(SenseKey.NOT_READY, MEDIUM_NOT_PRESENT)

    def matches(self, key: int, asc: int, ascq: int | None = None) -> bool:
        """Return whether this is the given code; with ``ascq`` None any qualifier will do."""
        return (self.key, self.asc) == (key, asc) and ascq in (None, self.ascq)


def _clamped(data: bytes) -> bytes:
    """Cut ``data`` to the length that it gives for itself, if it got that far."""
    return data[: HEADER_BYTES + data[7]] if len(data) >= HEADER_BYTES else data


def _parse_fixed(data: bytes) -> Sense:
    full = data.ljust(18, b"\0")
    information = int.from_bytes(full[3:7], signed=True) if data[0] & 0x80 else None
    return Sense(
        key=_key(full[2]),
        asc=full[12],
        ascq=full[13],
        deferred=data[0] & 0x7F == FIXED_DEFERRED,
        information=information if len(data) >= 7 else None,
        field_pointer=_field_pointer(_key(full[2]), full[15:18]),
        filemark=bool(full[2] & 0x80),
        eom=bool(full[2] & 0x40),
        ili=bool(full[2] & 0x20),
        raw=data,
    )


def _parse_descriptors(data: bytes) -> Sense:
    full = data.ljust(HEADER_BYTES, b"\0")
    found = _descriptors(data[HEADER_BYTES:])
    flags = found.get(STREAM_COMMANDS_DESCRIPTOR, b"").ljust(2, b"\0")[1]
    return Sense(
        key=_key(full[1]),
        asc=full[2],
        ascq=full[3],
        deferred=data[0] & 0x7F == DESCRIPTOR_DEFERRED,
        information=_information(found.get(INFORMATION_DESCRIPTOR, b"")),
        field_pointer=_field_pointer(
            _key(full[1]), found.get(SENSE_KEY_SPECIFIC_DESCRIPTOR, b"")[2:5].ljust(3, b"\0")
        ),
        filemark=bool(flags & 0x80),
        eom=bool(flags & 0x40),
        ili=bool(flags & 0x20),
        raw=data,
    )


def _descriptors(data: bytes) -> dict[int, bytes]:
    """Return what follows the two-byte head of each descriptor, by type; the first one counts."""
    found: dict[int, bytes] = {}
    while len(data) >= 2:
        end = 2 + data[1]
        found.setdefault(data[0], data[2:end])
        data = data[end:]
    return found


def _information(body: bytes) -> int | None:
    """Return INFORMATION out of its descriptor (SPC-5), if it is valid."""
    if len(body) < 10 or not body[0] & 0x80:
        return None
    return int.from_bytes(body[2:10], signed=True)


def _key(byte: int) -> int:
    number = byte & 0x0F
    return SenseKey(number) if number in set(SenseKey) else number


def _field_pointer(key: int, specific: bytes) -> FieldPointer | None:
    """Return the field pointer out of SENSE KEY SPECIFIC (SPC-5)."""
    if key != SenseKey.ILLEGAL_REQUEST or not specific[0] & 0x80:
        return None
    bit = specific[0] & 0x07 if specific[0] & 0x08 else None
    return FieldPointer(bool(specific[0] & 0x40), int.from_bytes(specific[1:3]), bit)
