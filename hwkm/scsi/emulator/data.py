"""READ, WRITE, WRITE FILEMARKS and ERASE, with blocks of variable length (SSC-5, section 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.scsi.emulator.blocks import encryption_mode, give_out, record
from hwkm.scsi.emulator.cartridges import can_write
from hwkm.scsi.emulator.refusal import FILEMARK as FILEMARK_FLAG
from hwkm.scsi.emulator.refusal import ILI, Reason, Refusal, invalid_cdb
from hwkm.scsi.emulator.tape import CLEAR, FILEMARK, MediumObject

if TYPE_CHECKING:
    from hwkm.scsi.emulator.device import Device
    from hwkm.scsi.emulator.state import Cartridge

FIXED = 0x01
SILI = 0x02
MAX_FILEMARKS = 4096
"""More at once would only fill the file."""


def read(device: Device, cdb: bytes) -> bytes:
    """Return the next block, and move beyond it.

    :raises Refusal: at a filemark (passed), at the end of data, for a block of another length (with
        what there is of it), or if the block may not be given out (not passed).
    """
    if cdb[1] & FIXED:
        raise invalid_cdb(1, 0)
    length = int.from_bytes(cdb[2:5])
    one = device.next_object()
    if not length:
        return b""
    if one is None:
        raise Refusal(Reason.END_OF_DATA, information=length)
    if not one.is_block:
        device.state.position += 1
        raise Refusal(Reason.FILEMARK_DETECTED, flags=FILEMARK_FLAG, information=length)
    data = give_out(device, one)
    device.state.position += 1
    if len(data) != length and not cdb[1] & SILI:
        left = length - len(data)
        raise Refusal(Reason.WRONG_LENGTH, flags=ILI, information=left, data=data[:length])
    return data[:length]


def write(device: Device, cdb: bytes, data: bytes) -> bytes:
    """Write one block; whatever followed on the tape is lost.

    :raises Refusal: if the cartridge or the parameters in force don't allow it.
    """
    if cdb[1] & FIXED:
        raise invalid_cdb(1, 0)
    length = int.from_bytes(cdb[2:5])
    cartridge = _writable(device)
    if not length:
        return b""
    if len(data) < length:
        raise invalid_cdb(2)
    _check_lock(device)
    one = _recorded(device, cartridge, data[:length])
    _append(device, cartridge, one)
    return b""


def write_filemarks(device: Device, cdb: bytes) -> bytes:
    """Write filemarks; none at all means to flush the buffer, and this drive has none.

    :raises Refusal: if the cartridge does not allow it, or it is more than 4096.
    """
    count = int.from_bytes(cdb[2:5])
    if not count:
        device.mounted()
        return b""
    if count > MAX_FILEMARKS:
        raise invalid_cdb(2)
    cartridge = _writable(device)
    for _ in range(count):
        _append(device, cartridge, MediumObject(kind=FILEMARK))
    return b""


def erase(device: Device, _cdb: bytes) -> bytes:
    """Erase all from here on.

    :raises Refusal: if the cartridge does not allow it.
    """
    cartridge = _writable(device)
    device.tape.cut(cartridge.barcode, device.state.position)
    return b""


def write_protected(device: Device, cartridge: Cartridge) -> bool:
    """Return whether the cartridge can't be written on in this drive."""
    kind = device.medium(cartridge)
    return cartridge.write_protected or not can_write(device.profile, kind)


def is_worm(device: Device, cartridge: Cartridge) -> bool:
    """Return whether the cartridge takes each block only once."""
    return cartridge.worm or device.lies("worm")


def _writable(device: Device) -> Cartridge:
    cartridge = device.mounted()
    if write_protected(device, cartridge):
        raise Refusal(Reason.WRITE_PROTECTED)
    here = device.state.position
    if is_worm(device, cartridge) and here < device.tape.end(cartridge.barcode):
        raise Refusal(Reason.WORM_OVERWRITE)
    return cartridge


def _check_lock(device: Device) -> None:
    locked_at = device.nexus.locked_at
    if locked_at is None or device.lies("lock-ignored"):
        return
    if device.parameters.counter != locked_at:
        raise Refusal(Reason.COUNTER_CHANGED)


def _recorded(device: Device, cartridge: Cartridge, data: bytes) -> MediumObject:
    encrypting = encryption_mode(device.parameters) != CLEAR
    if encrypting and not device.medium(cartridge).encrypts:
        raise Refusal(Reason.PARAMETERS_NOT_USEABLE)
    if device.profile.label_is_plain:
        # A 3592 decides at the first block for the whole tape, and keeps that block itself clear.
        if not device.state.position:
            cartridge.encrypted_format = encrypting
            return MediumObject(data=data)
        if encrypting and not cartridge.encrypted_format:
            raise Refusal(Reason.WRITE_PROTECTED)
    return record(device, data)


def _append(device: Device, cartridge: Cartridge, one: MediumObject) -> None:
    device.tape.put(cartridge.barcode, device.state.position, one)
    device.state.position += 1
