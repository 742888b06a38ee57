"""READ ATTRIBUTE and WRITE ATTRIBUTE: the chip in the cartridge (SPC-5, sections 6.17 and 6.47)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hwkm.scsi.emulator.data import is_worm
from hwkm.scsi.emulator.refusal import Reason, Refusal, invalid_cdb, invalid_list
from hwkm.scsi.emulator.state import Attribute

if TYPE_CHECKING:
    from hwkm.scsi.emulator.device import Device

VALUES, LIST, VOLUME_LIST, PARTITION_LIST, SUPPORTED = 0, 1, 2, 3, 5
"""SERVICE ACTION of READ ATTRIBUTE."""

BINARY, ASCII, TEXT = 0, 1, 2
READ_ONLY = 0x80
HEAD_BYTES = 5
LIST_HEAD_BYTES = 4
MIB = 1 << 20
MAKER = "HWKM-EMU"
WORM_TYPE = 0x80
BARCODE = 0x0806
NO_POSITION = (1 << 64) - 1

WRITABLE = {
    0x0800: (ASCII, 8), 0x0801: (ASCII, 32), 0x0802: (ASCII, 8), 0x0803: (TEXT, 160),
    0x0804: (ASCII, 12), 0x0805: (BINARY, 1), 0x0806: (ASCII, 32), 0x0807: (TEXT, 80),
    0x0808: (TEXT, 160), 0x080B: (ASCII, 16), 0x080C: (BINARY, 1023), 0x0820: (BINARY, 36),
    0x0821: (BINARY, 36),
}  # fmt: skip
"""The host's attributes: format and greatest length."""


class Shown(NamedTuple):
    """An attribute as the drive gives it out."""

    value: bytes
    format: int
    read_only: bool = True


def read_attribute(device: Device, cdb: bytes) -> bytes:
    """Return the cartridge's attributes, or their ids, from the given one on.

    :raises Refusal: if no cartridge is ready, or the service action is unknown.
    """
    found = _attributes(device)
    first, length = int.from_bytes(cdb[8:10]), int.from_bytes(cdb[10:14])
    action = cdb[1] & 0x1F
    if action == VALUES:
        body = b"".join(_pack(n, one) for n, one in sorted(found.items()) if n >= first)
    elif action in (LIST, SUPPORTED):
        ids = {*found, *WRITABLE} if action == SUPPORTED else {*found}
        body = b"".join(n.to_bytes(2) for n in sorted(ids) if n >= first)
    elif action in (VOLUME_LIST, PARTITION_LIST):
        return bytes((0, 2, 0, 1))[:length]  # volume or partition 0, the only one
    else:
        raise invalid_cdb(1, 4)
    return (len(body).to_bytes(LIST_HEAD_BYTES) + body)[:length]


def write_attribute(device: Device, cdb: bytes, data: bytes) -> bytes:
    """Take attributes of the host's; all of them or, if one is wrong, none.

    The length in front may count itself or not: programs do both, and drives take both.

    :raises Refusal: if no cartridge is ready, or an attribute can't be written so.
    """
    cartridge = device.mounted()
    data = data[: int.from_bytes(cdb[10:14])]
    if not data:
        return b""
    if len(data) < LIST_HEAD_BYTES:
        raise Refusal(Reason.LIST_LENGTH)
    said = int.from_bytes(data[:LIST_HEAD_BYTES])
    if said not in (len(data), len(data) - LIST_HEAD_BYTES):
        raise invalid_list(0)
    for number, attribute in _parse(data).items():
        if attribute.value:
            cartridge.attributes[number] = attribute
        else:
            cartridge.attributes.pop(number, None)
    return b""


def _parse(data: bytes) -> dict[int, Attribute]:
    found, at = {}, LIST_HEAD_BYTES
    while at < len(data):
        head = data[at : at + HEAD_BYTES]
        end = at + HEAD_BYTES + int.from_bytes(head[3:5])
        if len(head) < HEAD_BYTES or end > len(data):
            raise invalid_list(at)
        number, value = int.from_bytes(head[:2]), data[at + HEAD_BYTES : end]
        if number not in WRITABLE:
            raise invalid_list(at)
        form, most = WRITABLE[number]
        if head[2] != form:
            raise invalid_list(at + 2)
        if len(value) > most:
            raise invalid_list(at + 3)
        found[number] = Attribute(form, value)
        at = end
    return found


def _pack(number: int, one: Shown) -> bytes:
    flags = one.format | (READ_ONLY if one.read_only else 0)
    return number.to_bytes(2) + bytes((flags,)) + len(one.value).to_bytes(2) + one.value


def _attributes(device: Device) -> dict[int, Shown]:
    written = device.mounted().attributes
    hosts = {number: Shown(one.value, one.format, False) for number, one in written.items()}
    return _drives(device) | _makers(device) | hosts


def _drives(device: Device) -> dict[int, Shown]:
    """Return what the drive keeps in the chip."""
    cartridge, tape = device.mounted(), device.tape
    kind = device.medium(cartridge)
    left = max(0, kind.capacity - tape.used_bytes(cartridge.barcode) // MIB)
    drive = device.profile.vendor.ljust(8) + device.state.serial.ljust(32)
    return {
        0x0000: _number(left, 8),
        0x0001: _number(kind.capacity, 8),
        0x0003: _number(cartridge.loads, 8),
        0x0006: _number(kind.density, 1),
        0x020A: _ascii(drive, 40),
        0x0224: _position(tape.first_encrypted(cartridge.barcode)),
        0x0225: _position(tape.first_clear(cartridge.barcode)),
    }


def _makers(device: Device) -> dict[int, Shown]:
    """Return what the maker of the cartridge wrote."""
    cartridge = device.mounted()
    kind = device.medium(cartridge)
    return {
        0x0400: _ascii(MAKER, 8),
        0x0401: _ascii(cartridge.serial, 32),
        0x0405: _number(kind.density, 1),
        0x0406: _ascii("20250102", 8),
        0x0408: _number(WORM_TYPE if is_worm(device, cartridge) else 0, 1),
        0x0409: _number(0, 2),
    }


def _number(value: int, length: int) -> Shown:
    return Shown(value.to_bytes(length), BINARY)


def _ascii(value: str, length: int) -> Shown:
    return Shown(value.encode().ljust(length), ASCII)


def _position(number: int | None) -> Shown:
    return _number(NO_POSITION if number is None else number, 8)
