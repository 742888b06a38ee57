"""LOG SENSE: device status, TapeAlert and volume statistics (SSC-5, section 8.3; ADC-4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.scsi.emulator.data import is_worm, write_protected
from hwkm.scsi.emulator.mam import BARCODE, MAKER
from hwkm.scsi.emulator.refusal import invalid_cdb

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwkm.scsi.emulator.device import Device
    from hwkm.scsi.emulator.state import Cartridge

BINARY, BINARY_LIST, ASCII = 0x40, 0x43, 0x41
"""Control byte of log parameters whose values can't be set: DU 0, FORMAT AND LINKING."""

TAPE_ALERT_CONTROL = 0xC0
FLAGS = 64
WRITE_PROTECT_FLAG = 0x09
READ_ONLY_FORMAT_FLAG = 0x11
NO_POSITION = 0xFFFF_FFFF_FFFF
ENCRYPTION_PARAMETERS_PRESENT = 0x10


def log_sense(device: Device, cdb: bytes) -> bytes:
    """Return a log page, cut to the allocation length.

    :raises Refusal: if there is no such page.
    """
    page, subpage = cdb[2] & 0x3F, cdb[3]
    if page not in _PAGES:
        raise invalid_cdb(2, 5)
    if subpage:
        raise invalid_cdb(3)
    body = _PAGES[page](device)
    return (bytes((page, 0)) + len(body).to_bytes(2) + body)[: int.from_bytes(cdb[7:9])]


def _supported(_device: Device) -> bytes:
    return bytes(sorted(_PAGES))


def _device_status(device: Device) -> bytes:
    cartridge = device.cartridge
    protected = cartridge is not None and write_protected(device, cartridge)
    first = (0x11 if cartridge is None else 0x31) | protected << 3
    second = 0 if cartridge is None else 0x17
    present = ENCRYPTION_PARAMETERS_PRESENT if any(one.key for one in device.sets()) else 0
    return (
        _parameter(0x0000, BINARY_LIST, bytes((first, second, 0, present)))
        + _parameter(0x0001, BINARY_LIST, (500).to_bytes(2))
        + _parameter(0x0002, BINARY_LIST, bytes(8))
        + _parameter(0x0003, BINARY_LIST, bytes(12))
    )


def _alerts(device: Device) -> set[int]:
    cartridge = device.cartridge
    if cartridge is None or not write_protected(device, cartridge):
        return set()
    return {WRITE_PROTECT_FLAG if cartridge.write_protected else READ_ONLY_FORMAT_FLAG}


def _alert_bits(device: Device) -> bytes:
    bits = sum(1 << (FLAGS - flag) for flag in _alerts(device))
    return _parameter(0x0000, BINARY_LIST, bits.to_bytes(8))


def _alert_flags(device: Device) -> bytes:
    raised = _alerts(device)
    return b"".join(
        _parameter(flag, TAPE_ALERT_CONTROL, bytes((flag in raised,)))
        for flag in range(1, FLAGS + 1)
    )


def _volume(device: Device) -> bytes:
    cartridge = device.cartridge
    if cartridge is None:
        return _parameter(0x0000, BINARY, bytes((0,)))
    return _parameter(0x0000, BINARY, bytes((1,))) + _of_cartridge(device, cartridge)


def _of_cartridge(device: Device, cartridge: Cartridge) -> bytes:
    kind, tape = device.medium(cartridge), device.tape
    protected, worm = write_protected(device, cartridge), is_worm(device, cartridge)
    return (
        _text(0x0040, cartridge.serial, 32)
        + _text(0x0042, _barcode(cartridge), 32)
        + _text(0x0043, MAKER, 8)
        + _text(0x0045, kind.personality, 9)
        + _parameter(0x0080, BINARY, bytes((protected,)))
        + _parameter(0x0081, BINARY, bytes((worm,)))
        + _position(0x0200, tape.first_encrypted(cartridge.barcode))
        + _position(0x0201, tape.first_clear(cartridge.barcode))
    )


def _barcode(cartridge: Cartridge) -> str:
    """Return the barcode that the chip holds; the label outside is for libraries to read."""
    written = cartridge.attributes.get(BARCODE)
    return written.value.decode("ascii", "replace").strip() if written else ""


def _parameter(number: int, control: int, value: bytes) -> bytes:
    return number.to_bytes(2) + bytes((control, len(value))) + value


def _text(number: int, value: str, length: int) -> bytes:
    return _parameter(number, ASCII, value.encode().ljust(length)[:length])


def _position(number: int, found: int | None) -> bytes:
    """Return a parameter with a record for partition 0 (SSC-5: its length byte excludes itself)."""
    value = NO_POSITION if found is None else found
    return _parameter(number, BINARY_LIST, bytes((9, 0, 0, 0)) + value.to_bytes(6))


_PAGES: dict[int, Callable[[Device], bytes]] = {
    0x00: _supported,
    0x11: _device_status,
    0x12: _alert_bits,
    0x17: _volume,
    0x2E: _alert_flags,
}
