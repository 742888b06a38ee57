"""What a media changer says about its drives, and moving a cartridge (SMC-3), through pyscsi."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyscsi.pyscsi.scsi_cdb_movemedium import MoveMedium
from pyscsi.pyscsi.scsi_cdb_readelementstatus import ReadElementStatus
from pyscsi.pyscsi.scsi_enum_command import smc
from pyscsi.pyscsi.scsi_enum_readelementstatus import ELEMENT_TYPE

from hwkm.errors import ParseError
from hwkm.scsi.pyscsi_adapter import PyscsiDevice
from hwkm.scsi.transport import MAX_ALLOCATION, CheckConditionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.scsi.transport import Transport

HEADER_BYTES = 8
DESCRIPTOR_BYTES = 12
TAG_BYTES = 36
TAG_TEXT_BYTES = 32
INVALID_FIELD_IN_CDB = (0x05, 0x24, 0x00)

_TEXT_CODE_SETS = (2, 3)
_VENDOR_SPECIFIC, _T10_VENDOR = 0, 1
_VENDOR_AND_PRODUCT_BYTES = 24


@dataclass(frozen=True, slots=True)
class DriveElement:
    """One drive of a changer.

    ``serial`` and ``barcode`` are "" where the changer does not say; ``source`` is the address of
    the element that the cartridge came from, None if not known.
    """

    address: int
    loaded: bool
    serial: str
    barcode: str
    source: int | None


def read_drives(transport: Transport) -> tuple[DriveElement, ...]:
    """Ask a changer for its drives, without letting it move anything if it can do so.

    :raises ParseError: if the answer is malformed.
    :raises DeviceError: if the changer refuses, or can't be reached.
    """
    try:
        return parse_drives(_element_status(transport, curdata=1, dvcid=1))
    except CheckConditionError as error:
        if error.sense.code != INVALID_FIELD_IN_CDB:
            raise
    # A changer from before SMC-3 knows neither bit.
    return parse_drives(_element_status(transport, curdata=0, dvcid=0))


def move_medium(transport: Transport, source: int, destination: int) -> None:
    """Let a changer move a cartridge from element ``source`` to ``destination``, by any arm.

    :raises DeviceError: if the changer refuses, or can't be reached.
    """
    PyscsiDevice(transport).execute(MoveMedium(smc.MOVE_MEDIUM, 0, source, destination))


def parse_drives(data: bytes) -> tuple[DriveElement, ...]:
    """Return the drives in the data of READ ELEMENT STATUS; descriptors cut short are left out.

    :raises ParseError: if a descriptor has no room for what it must hold.
    """
    end = HEADER_BYTES + int.from_bytes(data[5:8])
    return tuple(
        drive for page, length in _pages(data[HEADER_BYTES:end]) for drive in _drives(page, length)
    )


def _element_status(transport: Transport, *, curdata: int, dvcid: int) -> bytes:
    command = ReadElementStatus(
        smc.READ_ELEMENT_STATUS,
        start=0,
        num=0xFFFF,
        element_type=ELEMENT_TYPE.DATA_TRANSFER,
        voltag=1,
        curdata=curdata,
        dvcid=dvcid,
        alloclen=MAX_ALLOCATION,
    )
    return PyscsiDevice(transport).transferred(command)


def _pages(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield each page of drives, cut to whole descriptors, and the length of one of those."""
    while len(data) >= HEADER_BYTES:
        length = int.from_bytes(data[2:4])
        end = HEADER_BYTES + int.from_bytes(data[5:8])
        body = data[HEADER_BYTES:end]
        if data[0] & 0x0F == ELEMENT_TYPE.DATA_TRANSFER and body:
            # pyscsi's decoder believes every length, and never ends where this one is 0.
            if length < _tail(data[1]):
                raise ParseError(f"an element descriptor of {length} bytes is too short")
            body = body[: len(body) // length * length]
            yield data[:5] + len(body).to_bytes(3) + body, length
        data = data[end:]


def _tail(flags: int) -> int:
    """Return where an element descriptor's identifier begins, given its page's second byte."""
    return DESCRIPTOR_BYTES + TAG_BYTES * (bool(flags & 0x80) + bool(flags & 0x40))


def _drives(page: bytes, length: int) -> Iterator[DriveElement]:
    report = bytes(5) + len(page).to_bytes(3) + page
    (decoded,) = ReadElementStatus.unmarshall_datain(report)["element_status_pages"]
    for number, fields in enumerate(decoded["element_descriptors"]):
        start = HEADER_BYTES + number * length
        yield _drive(fields, page[start + _tail(page[1]) : start + length])


def _drive(fields: dict[str, Any], identifier: bytes) -> DriveElement:
    tag = bytes(fields.get("primary_volume_tag", b""))
    return DriveElement(
        address=fields["element_address"],
        loaded=bool(fields["full"]),
        serial=_serial(identifier),
        barcode=_text(tag[:TAG_TEXT_BYTES]),
        source=fields["source_storage_element_address"] if fields["svalid"] else None,
    )


def _serial(identifier: bytes) -> str:
    """Return the serial number in a device identifier (SMC-3, DVCID), which pyscsi leaves out."""
    if len(identifier) < 4 or identifier[0] & 0x0F not in _TEXT_CODE_SETS:
        return ""
    text = identifier[4 : 4 + identifier[3]]
    kind = identifier[1] & 0x0F
    if kind == _T10_VENDOR:
        return _text(text[_VENDOR_AND_PRODUCT_BYTES:])
    return _text(text) if kind == _VENDOR_SPECIFIC else ""


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace").strip(" \0")
