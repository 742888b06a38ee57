"""REWIND, SPACE, LOCATE, READ POSITION, LOAD UNLOAD, and what a demount does to keys (SSC-5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.scsi.emulator.refusal import (
    EOM,
    FILEMARK,
    Reason,
    Refusal,
    invalid_cdb,
)

if TYPE_CHECKING:
    from hwkm.scsi.emulator.device import Device

BLOCKS, FILEMARKS, END_OF_DATA = 0, 1, 3
"""CODE of SPACE(6)."""

CHANGE_PARTITION = 0x02
LOAD = 0x01
HOLD = 0x08
BOP = 0x80
TOO_LARGE = 0x02
MAX_32_BIT = 0xFFFF_FFFF


def rewind(device: Device, _cdb: bytes) -> bytes:
    """Go to the beginning.

    :raises Refusal: if no cartridge is ready.
    """
    device.mounted()
    device.state.position = 0
    return b""


def space(device: Device, cdb: bytes) -> bytes:
    """Move over blocks or filemarks, backwards if the count is negative.

    :raises Refusal: where something else stops it; the count that is left is the information.
    """
    barcode, count = device.mounted().barcode, int.from_bytes(cdb[2:5], signed=True)
    code = cdb[1] & 0x0F
    if code == BLOCKS:
        _space_blocks(device, barcode, count)
    elif code == FILEMARKS:
        _space_filemarks(device, barcode, count)
    elif code == END_OF_DATA:
        device.state.position = device.tape.end(barcode)
    else:
        raise invalid_cdb(1, 3)
    return b""


def locate(device: Device, cdb: bytes) -> bytes:
    """Go to a logical object, by LOCATE(10) or LOCATE(16).

    :raises Refusal: 8/00/05 if it is beyond the end of data, where the tape then stands.
    """
    ten = cdb[0] == 0x2B
    target = int.from_bytes(cdb[3:7] if ten else cdb[4:12])
    partition = cdb[8] if ten else cdb[3]
    if cdb[1] & CHANGE_PARTITION and partition:
        raise invalid_cdb(8 if ten else 3)
    end = device.tape.end(device.mounted().barcode)
    device.state.position = min(target, end)
    if target > end:
        raise Refusal(Reason.END_OF_DATA)
    return b""


def read_position(device: Device, cdb: bytes) -> bytes:
    """Return the short form, 20 bytes.

    :raises Refusal: if another form is asked for, or no cartridge is ready.
    """
    if cdb[1] & 0x1F:
        raise invalid_cdb(1, 4)
    device.mounted()
    here = device.state.position
    flags = (BOP if not here else 0) | (TOO_LARGE if here > MAX_32_BIT else 0)
    number = min(here, MAX_32_BIT).to_bytes(4)
    return bytes((flags, 0, 0, 0)) + number + number + bytes(8)


def load_unload(device: Device, cdb: bytes) -> bytes:
    """Make the cartridge inside ready, or take it from the heads.

    :raises Refusal: if there is no cartridge inside.
    """
    state = device.state
    if not state.inside or state.gone:
        raise Refusal(Reason.NO_MEDIUM)
    if not cdb[4] & LOAD or cdb[4] & HOLD:
        demount(device)
    elif not state.mounted:
        mount(device)
        for _, nexus in device.others():
            nexus.attend(Reason.MEDIUM_CHANGED)
    return b""


def mount(device: Device) -> None:
    """Make the cartridge inside ready, at its beginning."""
    state = device.state
    state.mounted, state.position, state.wrong_keys = True, 0, 0
    state.cartridges[state.inside].loads += 1


def demount(device: Device) -> None:
    """Take the cartridge from the heads; keys that were set with CKOD go."""
    state = device.state
    if not state.mounted:
        return
    state.mounted, state.position, state.wrong_keys = False, 0, 0
    for parameters in list(device.sets()):
        if parameters.ckod:
            device.drop(parameters)


def _space_blocks(device: Device, barcode: str, count: int) -> None:
    state, step = device.state, 1 if count > 0 else -1
    for left in range(abs(count), 0, -1):
        at = state.position if step > 0 else state.position - 1
        if at < 0:
            raise Refusal(Reason.BEGINNING_DETECTED, flags=EOM, information=left)
        one = device.tape.get(barcode, at)
        if one is None:
            raise Refusal(Reason.END_OF_DATA, information=left)
        state.position += step
        if not one.is_block:
            raise Refusal(Reason.FILEMARK_DETECTED, flags=FILEMARK, information=left)


def _space_filemarks(device: Device, barcode: str, count: int) -> None:
    state, tape = device.state, device.tape
    for left in range(abs(count), 0, -1):
        if count > 0:
            found = tape.next_filemark(barcode, state.position)
            if found is None:
                state.position = tape.end(barcode)
                raise Refusal(Reason.END_OF_DATA, information=left)
            state.position = found + 1
        else:
            found = tape.last_filemark(barcode, state.position)
            if found is None:
                state.position = 0
                raise Refusal(Reason.BEGINNING_DETECTED, flags=EOM, information=left)
            state.position = found
