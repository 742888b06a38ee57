"""INQUIRY and vital product data: who the drive says it is (SPC-5, sections 6.7 and 7.7)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from hwkm.scsi.emulator.refusal import invalid_cdb

if TYPE_CHECKING:
    from hwkm.scsi.emulator.device import Device

TAPE = 0x01
EVPD = 0x01
PAGES = (0x00, 0x80, 0x83, 0xB0)
STANDARD_HEAD = bytes.fromhex("01 80 06 12 41 01 10 02")
STANDARD_BYTES = 70
SERIAL_BYTES = 10
WORM_CAPABLE = 0x01
ASCII_T10_VENDOR = bytes((0x02, 0x01, 0x00))
BINARY_NAA = bytes((0x01, 0x03, 0x00))
HPE_NAA = "500143"
IBM_NAA = "500507"


def inquiry(device: Device, cdb: bytes) -> bytes:
    """Return the standard data, or the vital product data page that the CDB asks for.

    :raises Refusal: if there is no such page.
    """
    length = int.from_bytes(cdb[3:5])
    if not cdb[1] & EVPD:
        if cdb[2]:
            raise invalid_cdb(2)
        return _standard(device)[:length]
    if cdb[2] not in PAGES:
        raise invalid_cdb(2)
    body = {
        0x00: lambda: bytes(PAGES),
        0x80: lambda: device.state.serial.encode().rjust(SERIAL_BYTES),
        0x83: lambda: _designators(device),
        0xB0: lambda: bytes((WORM_CAPABLE, 0)),
    }[cdb[2]]()
    return (bytes((TAPE, cdb[2])) + len(body).to_bytes(2) + body)[:length]


def designator(device: Device) -> bytes:
    """Return the identifier of the logical unit: vendor, product and serial number."""
    return _names(device) + device.state.serial.encode()


def _names(device: Device) -> bytes:
    return device.profile.vendor.ljust(8).encode() + device.profile.product.ljust(16).encode()


def _standard(device: Device) -> bytes:
    data = STANDARD_HEAD + _names(device) + device.profile.revision.ljust(4).encode()
    return data.ljust(STANDARD_BYTES, b"\0")


def _designators(device: Device) -> bytes:
    name = designator(device)
    naa = _naa(device)
    return ASCII_T10_VENDOR + bytes((len(name),)) + name + BINARY_NAA + bytes((len(naa),)) + naa


def _naa(device: Device) -> bytes:
    """Return a name of eight bytes that the serial number alone decides."""
    serial = device.state.serial
    maker = HPE_NAA if device.profile.vendor.startswith("HP") else IBM_NAA
    try:
        return bytes.fromhex(maker + serial.rjust(10, "0"))
    except ValueError:
        digest = hashlib.sha256(serial.encode()).hexdigest()
        return bytes.fromhex(maker + digest[:10])
