"""INQUIRY: who the device is (SPC-5; SSC-5 for page B0h)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique

from hwkm.errors import ParseError

STANDARD_BYTES = 36
"""Length of the standard data up to PRODUCT REVISION LEVEL; every device gives them."""

DESIGNATOR_HEAD_BYTES = 4


@unique
class VitalPage(IntEnum):
    """Vital product data pages that hwkm reads."""

    UNIT_SERIAL_NUMBER = 0x80
    DEVICE_IDENTIFICATION = 0x83
    SEQUENTIAL_CAPABILITIES = 0xB0


@unique
class DeviceType(IntEnum):
    """Peripheral device types that matter here."""

    TAPE = 0x01
    CHANGER = 0x08


@unique
class CodeSet(IntEnum):
    """What the bytes of a designator are (SPC-5, CODE SET)."""

    BINARY = 1
    ASCII = 2
    UTF_8 = 3


@unique
class DesignatorType(IntEnum):
    """How a designator is made up (SPC-5, DESIGNATOR TYPE)."""

    VENDOR_SPECIFIC = 0
    T10_VENDOR_ID = 1
    EUI_64 = 2
    NAA = 3
    RELATIVE_TARGET_PORT = 4
    TARGET_PORT_GROUP = 5
    LOGICAL_UNIT_GROUP = 6
    MD5 = 7
    SCSI_NAME = 8
    PROTOCOL_SPECIFIC_PORT = 9
    UUID = 0xA


@unique
class Association(IntEnum):
    """What a designator names (SPC-5, ASSOCIATION)."""

    LOGICAL_UNIT = 0
    TARGET_PORT = 1
    TARGET_DEVICE = 2


@dataclass(frozen=True, slots=True)
class Inquiry:
    """The standard INQUIRY data; texts without the spaces that fill them up."""

    device_type: int
    vendor: str
    product: str
    revision: str

    @classmethod
    def parse(cls, data: bytes) -> Inquiry:
        """Return what ``data`` says.

        :raises ParseError: if it is shorter than 36 bytes.
        """
        if len(data) < STANDARD_BYTES:
            raise ParseError(f"INQUIRY gave {len(data)} bytes instead of {STANDARD_BYTES}")
        return cls(data[0] & 0x1F, text(data[8:16]), text(data[16:32]), text(data[32:36]))

    @property
    def is_tape(self) -> bool:
        """Whether it is a tape drive."""
        return self.device_type == DeviceType.TAPE


@dataclass(frozen=True, slots=True)
class Designator:
    """One name of the device out of page 83h. Values no standard knows are kept as numbers."""

    code_set: int
    type: int
    association: int
    identifier: bytes


@dataclass(frozen=True, slots=True)
class SequentialCapabilities:
    """Page B0h: ``worm`` says whether the drive can handle WORM media at all."""

    worm: bool

    @classmethod
    def parse(cls, data: bytes) -> SequentialCapabilities:
        """Return what page B0h says.

        :raises ParseError: if it is another page or empty.
        """
        body = _vital_body(data, VitalPage.SEQUENTIAL_CAPABILITIES)
        if not body:
            raise ParseError("the page B0h is empty")
        return cls(bool(body[0] & 0x01))


def text(data: bytes) -> str:
    """Return a field of ASCII without its filling of spaces or NULs; odd bytes as ``?``."""
    kept = data.strip(b" \0")
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "?" for byte in kept)


def unit_serial(data: bytes) -> str:
    """Return the drive's serial number out of page 80h.

    :raises ParseError: if it is another page.
    """
    return text(_vital_body(data, VitalPage.UNIT_SERIAL_NUMBER))


def parse_designators(data: bytes) -> tuple[Designator, ...]:
    """Return the designators of page 83h in their order; one that is cut off is left out.

    :raises ParseError: if it is another page.
    """
    body = _vital_body(data, VitalPage.DEVICE_IDENTIFICATION)
    found = []
    while len(body) >= DESIGNATOR_HEAD_BYTES:
        end = DESIGNATOR_HEAD_BYTES + body[3]
        if end > len(body):
            break
        found.append(
            Designator(
                code_set=body[0] & 0x0F,
                type=body[1] & 0x0F,
                association=body[1] >> 4 & 0x03,
                identifier=body[DESIGNATOR_HEAD_BYTES:end],
            )
        )
        body = body[end:]
    return tuple(found)


def _vital_body(data: bytes, page: VitalPage) -> bytes:
    """Return what follows the head of a vital product data page, cut to what is there."""
    if len(data) < 4 or data[1] != page:
        raise ParseError(f"the answer is not the vital product data page {page:02X}h")
    return data[4 : 4 + int.from_bytes(data[2:4])]
