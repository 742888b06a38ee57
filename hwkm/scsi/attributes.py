"""Medium auxiliary memory: the attributes in a cartridge's chip (SPC-5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import TYPE_CHECKING

from hwkm.errors import ParseError
from hwkm.scsi.inquiry import text

if TYPE_CHECKING:
    from collections.abc import Iterable

LENGTH_BYTES = 4
"""Length of the field that says how much follows it."""

HEAD_BYTES = 5
READ_ONLY = 0x80
FORMAT_MASK = 0x03

NO_POSITION = frozenset({0xFFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFE, 2**64 - 1, 2**64 - 2})
"""Positions that mean "none" or "not known", written with 6 or with 8 bytes."""


@unique
class AttributeFormat(IntEnum):
    """How the value of an attribute is to be read."""

    BINARY = 0
    ASCII = 1
    TEXT = 2


@unique
class AttributeId(IntEnum):
    """Attribute ids: 0000h the drive's, 0400h the maker's, 0800h the host's."""

    REMAINING_CAPACITY = 0x0000
    MAXIMUM_CAPACITY = 0x0001
    TAPE_ALERT_FLAGS = 0x0002
    LOAD_COUNT = 0x0003
    MAM_SPACE_REMAINING = 0x0004
    FORMATTED_DENSITY_CODE = 0x0006
    INITIALIZATION_COUNT = 0x0007
    VOLUME_IDENTIFIER = 0x0008
    VOLUME_CHANGE_REFERENCE = 0x0009
    LAST_LOAD_DRIVE = 0x020A
    FIRST_ENCRYPTED_BLOCK = 0x0224
    FIRST_UNENCRYPTED_BLOCK = 0x0225
    MEDIUM_MANUFACTURER = 0x0400
    MEDIUM_SERIAL_NUMBER = 0x0401
    MEDIUM_DENSITY_CODE = 0x0405
    MEDIUM_MANUFACTURE_DATE = 0x0406
    MEDIUM_TYPE = 0x0408
    MEDIUM_TYPE_INFORMATION = 0x0409
    APPLICATION_VENDOR = 0x0800
    APPLICATION_NAME = 0x0801
    APPLICATION_VERSION = 0x0802
    USER_MEDIUM_TEXT_LABEL = 0x0803
    DATE_TIME_LAST_WRITTEN = 0x0804
    TEXT_LOCALIZATION = 0x0805
    BARCODE = 0x0806
    OWNING_HOST = 0x0807
    MEDIA_POOL = 0x0808
    APPLICATION_FORMAT_VERSION = 0x080B
    VOLUME_COHERENCY_INFORMATION = 0x080C
    MEDIUM_GUID = 0x0820
    MEDIA_POOL_GUID = 0x0821
    UNIQUE_CARTRIDGE_IDENTITY = 0x1000
    VOLUME_LOCK_STATE = 0x1623


@unique
class MediumType(IntEnum):
    """Values of MEDIUM_TYPE (SPC-5)."""

    DATA = 0x00
    CLEANING = 0x01
    WORM = 0x80


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute; ids and formats that no standard knows are kept as numbers."""

    id: int
    value: bytes
    format: int = AttributeFormat.BINARY
    read_only: bool = False

    @property
    def text(self) -> str:
        """The value as ASCII, without the spaces or NULs that fill it up."""
        return text(self.value)

    @property
    def number(self) -> int:
        """The value as an unsigned integer, big-endian."""
        return int.from_bytes(self.value)


def parse_attributes(data: bytes) -> tuple[Attribute, ...]:
    """Return the attributes of READ ATTRIBUTE, VALUES; one that is cut off is left out.

    :raises ParseError: if not even the length of the list is there.
    """
    body = _body(data)
    found = []
    while len(body) >= HEAD_BYTES:
        end = HEAD_BYTES + int.from_bytes(body[3:5])
        if end > len(body):
            break
        found.append(
            Attribute(
                id=int.from_bytes(body[:2]),
                value=body[HEAD_BYTES:end],
                format=body[2] & FORMAT_MASK,
                read_only=bool(body[2] & READ_ONLY),
            )
        )
        body = body[end:]
    return tuple(found)


def parse_attribute_list(data: bytes) -> tuple[int, ...]:
    """Return the ids of READ ATTRIBUTE, LIST or SUPPORTED.

    :raises ParseError: if not even the length of the list is there.
    """
    body = _body(data)
    return tuple(int.from_bytes(body[at : at + 2]) for at in range(0, len(body) - 1, 2))


def position(value: bytes) -> int | None:
    """Return the logical object number in ``value``; None if there is none or it is not known."""
    number = int.from_bytes(value)
    return None if not value or number in NO_POSITION else number


def pack_attributes(attributes: Iterable[Attribute]) -> bytes:
    """Return the parameter list of WRITE ATTRIBUTE; an empty value deletes its attribute.

    The length in front does not count itself, as SPC-5 has it; drives take it either way.

    :raises ValueError: if an id or the length of a value does not fit two bytes.
    """
    body = b"".join(_pack(one) for one in attributes)
    return len(body).to_bytes(LENGTH_BYTES) + body


def _pack(one: Attribute) -> bytes:
    if not 0 <= one.id <= 0xFFFF or len(one.value) > 0xFFFF:
        raise ValueError("an attribute's id and its value's length have two bytes")
    flags = one.format & FORMAT_MASK | (READ_ONLY if one.read_only else 0)
    return one.id.to_bytes(2) + bytes((flags,)) + len(one.value).to_bytes(2) + one.value


def _body(data: bytes) -> bytes:
    if len(data) < LENGTH_BYTES:
        raise ParseError(f"READ ATTRIBUTE gave {len(data)} bytes, not even a length")
    return data[LENGTH_BYTES : LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES])]
