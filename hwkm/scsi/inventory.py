"""Which drive this is, and which cartridge is in it.

A cartridge is known by its maker's serial number, which nobody can change; the barcode in its chip
was written by a library or a host, and is a hint only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.scsi.attributes import Attribute, AttributeId, MediumType, parse_attributes, position
from hwkm.scsi.commands import inquiry, log_sense, mode_sense, read_attribute, test_unit_ready
from hwkm.scsi.inquiry import Association, Inquiry, VitalPage, parse_designators, unit_serial
from hwkm.scsi.logs import LogPage, VolumeStatistics
from hwkm.scsi.mode_pages import (
    ENCRYPTION_MODE,
    KeyManager,
    ModeData,
    ModePage,
    key_manager_3592,
    key_manager_lto,
)
from hwkm.scsi.optional import if_known
from hwkm.scsi.transport import CheckConditionError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hwkm.scsi.transport import Transport

MEDIA_SUFFIX_CHARACTERS = 2
"""Libraries print barcodes with or without the medium's type at the end: Z20001L9, Z20001."""

VOLUME_CHARACTERS = 6


@dataclass(frozen=True, slots=True)
class DriveIdentity:
    """A tape drive. ``serial`` is "" if it gives none.

    ``designator`` is the identifier of the first designator of the logical unit in page 83h, which
    goes into the label of wrapped keys; b"" if there is none.
    """

    vendor: str
    product: str
    revision: str
    serial: str = ""
    designator: bytes = b""


@dataclass(frozen=True, slots=True)
class Cartridge:
    """A cartridge: "" and None where the drive does not say.

    ``first_encrypted`` and ``first_clear`` are logical objects: the first encrypted block, and the
    first block after it that is not; None if there is none, too. ``sources`` says who was asked.
    """

    serial: str = ""
    barcode: str = ""
    manufacturer: str = ""
    worm: bool | None = None
    write_protected: bool | None = None
    first_encrypted: int | None = None
    first_clear: int | None = None
    sources: tuple[str, ...] = ()


def identify_drive(transport: Transport) -> DriveIdentity:
    """Ask the device for its names.

    :raises CheckConditionError: if it refuses INQUIRY itself, or has something else to report.
    :raises ParseError: if an answer is no answer to what was asked.
    """
    standard = Inquiry.parse(transport.execute(inquiry()))
    # A page that it does not have is refused, or (old mhvtl) given with nothing in it.
    serial = if_known(transport, inquiry(VitalPage.UNIT_SERIAL_NUMBER))
    names = if_known(transport, inquiry(VitalPage.DEVICE_IDENTIFICATION))
    return DriveIdentity(
        vendor=standard.vendor,
        product=standard.product,
        revision=standard.revision,
        serial=unit_serial(serial) if serial else "",
        designator=_unit_designator(names) if names else b"",
    )


def identify_cartridge(transport: Transport) -> Cartridge | None:
    """Ask the drive which cartridge is loaded; None if none is.

    The chip is asked first, the page Volume Statistics second.

    :raises CheckConditionError: if the drive is not ready, or has something else to report, such as
        a change of medium: then it is to be asked again.
    :raises ParseError: if an answer is no answer to what was asked.
    """
    try:
        transport.execute(test_unit_ready())
        chip = if_known(transport, read_attribute())
        statistics = if_known(transport, log_sense(LogPage.VOLUME_STATISTICS))
        mode = if_known(transport, mode_sense(ModePage.DEVICE_CONFIGURATION))
    except CheckConditionError as error:
        if error.sense.is_no_medium:
            return None
        raise
    return _cartridge(chip, statistics, mode)


def key_manager(transport: Transport) -> KeyManager:
    """Ask an IBM drive who manages its keys; UNKNOWN for other drives.

    :raises CheckConditionError: if the drive has something else to report.
    :raises ParseError: if an answer is no answer to what was asked.
    """
    answer = if_known(transport, mode_sense(ModePage.VENDOR_LTO, ENCRYPTION_MODE))
    found = KeyManager.UNKNOWN if answer is None else key_manager_lto(ModeData.parse(answer))
    if found is not KeyManager.UNKNOWN:
        return found
    return _key_manager_3592(transport)


def is_3592(transport: Transport) -> bool:
    """Find out whether this is an IBM 3592, by the encryption method in its mode page 25h.

    :raises CheckConditionError, ParseError: as :func:`key_manager` does.
    """
    return _key_manager_3592(transport) is not KeyManager.UNKNOWN


def _key_manager_3592(transport: Transport) -> KeyManager:
    answer = if_known(transport, mode_sense(ModePage.READ_WRITE_CONTROL_3592))
    return KeyManager.UNKNOWN if answer is None else key_manager_3592(ModeData.parse(answer))


def same_cartridge(one: Cartridge, other: Cartridge) -> bool:
    """Return whether both are surely the same: by serial number, or by barcode if none has one."""
    if one.serial or other.serial:
        return (one.manufacturer, one.serial) == (other.manufacturer, other.serial)
    return bool(one.barcode) and one.barcode == other.barcode


def conflicts(cartridge: Cartridge, expected_barcode: str) -> str:
    """Return how the cartridge's barcode contradicts the one that was expected; "" if not at all.

    A barcode that is not known contradicts nothing.
    """
    if not expected_barcode or not cartridge.barcode:
        return ""
    if _same_barcode(cartridge.barcode, expected_barcode):
        return ""
    return f"the cartridge's chip says {cartridge.barcode} instead of {expected_barcode}"


def _same_barcode(one: str, other: str) -> bool:
    short, long = sorted((one.strip().upper(), other.strip().upper()), key=len)
    if len(short) == VOLUME_CHARACTERS and len(long) == VOLUME_CHARACTERS + MEDIA_SUFFIX_CHARACTERS:
        return long.startswith(short)
    return short == long


def _unit_designator(page: bytes) -> bytes:
    names = parse_designators(page)
    unit = (one.identifier for one in names if one.association == Association.LOGICAL_UNIT)
    return next(unit, b"")


def _cartridge(chip: bytes | None, statistics: bytes | None, mode: bytes | None) -> Cartridge:
    held = {} if chip is None else {one.id: one for one in parse_attributes(chip)}
    stats = VolumeStatistics() if statistics is None else VolumeStatistics.parse(statistics)
    head = None if mode is None else ModeData.parse(mode)
    first = _position(held, AttributeId.FIRST_ENCRYPTED_BLOCK)
    clear = _position(held, AttributeId.FIRST_UNENCRYPTED_BLOCK)
    return Cartridge(
        serial=_text(held, AttributeId.MEDIUM_SERIAL_NUMBER) or stats.serial,
        barcode=_text(held, AttributeId.BARCODE) or stats.barcode,
        manufacturer=_text(held, AttributeId.MEDIUM_MANUFACTURER) or stats.manufacturer,
        worm=_either(_worm(held), stats.worm),
        write_protected=_either(stats.write_protected, head.write_protected if head else None),
        first_encrypted=stats.first_encrypted if first is None else first,
        first_clear=stats.first_clear if clear is None else clear,
        sources=_sources(chip, statistics, mode),
    )


def _sources(chip: bytes | None, statistics: bytes | None, mode: bytes | None) -> tuple[str, ...]:
    asked = {"chip (MAM)": chip, "log page 17h": statistics, "mode parameters": mode}
    return tuple(name for name, answer in asked.items() if answer is not None)


def _text(held: Mapping[int, Attribute], wanted: AttributeId) -> str:
    return held[wanted].text if wanted in held else ""


def _position(held: Mapping[int, Attribute], wanted: AttributeId) -> int | None:
    return position(held[wanted].value) if wanted in held else None


def _worm(held: Mapping[int, Attribute]) -> bool | None:
    kind = held.get(AttributeId.MEDIUM_TYPE)
    return kind.number == MediumType.WORM if kind is not None and kind.value else None


def _either(one: bool | None, other: bool | None) -> bool | None:
    """Return whether any source says yes; None if none says anything."""
    known = [said for said in (one, other) if said is not None]
    return any(known) if known else None
