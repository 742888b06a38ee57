"""MODE SENSE: write protection, and who manages keys (SSC-5, section 8.4; IBM's manuals)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.scsi.emulator.data import write_protected
from hwkm.scsi.emulator.refusal import invalid_cdb

if TYPE_CHECKING:
    from hwkm.scsi.emulator.device import Device

DISABLE_BLOCK_DESCRIPTORS = 0x08
WRITE_PROTECTED = 0x80
BUFFERED = 0x10
ALL_PAGES, ALL_SUBPAGES = 0x3F, 0xFF
SAVED = 3
"""PAGE CONTROL for values that this drive does not save."""

METHOD_3592_BYTE = 27

CONFIGURATION = bytes.fromhex("90 0E 00 00 00 00 01 2C 40 00 10 00 00 00 01 90")
"""Page 10h as an HPE LTO-9 drive gives it."""

CONFIGURATION_EXTENSION = bytes.fromhex("50 01 00 1C") + bytes(28)
"""Page 10h[01h]; VCELBRE is 0: what is appended need not be encrypted."""


def mode_sense(device: Device, cdb: bytes) -> bytes:
    """Return the mode pages that MODE SENSE(6) or (10) asks for, with their header.

    :raises Refusal: if there are none, or saved values are asked for.
    """
    wide = cdb[0] == 0x5A
    if cdb[2] >> 6 == SAVED:
        raise invalid_cdb(2, 7)
    pages = _pages(device, cdb[2] & 0x3F, cdb[3])
    descriptor = b"" if cdb[1] & DISABLE_BLOCK_DESCRIPTORS else _block_descriptor(device)
    length = int.from_bytes(cdb[7:9]) if wide else cdb[4]
    return (_header(device, len(descriptor), len(pages), wide=wide) + descriptor + pages)[:length]


def _pages(device: Device, page: int, subpage: int) -> bytes:
    have = _all_pages(device)
    if page == ALL_PAGES:
        return b"".join(have[key] for key in sorted(have) if subpage == ALL_SUBPAGES or not key[1])
    if page == 0 and not subpage:
        return b""  # for those who want the header only
    if (page, subpage) not in have:
        raise invalid_cdb(3 if any(page == one for one, _ in have) else 2, None)
    return have[page, subpage]


def _all_pages(device: Device) -> dict[tuple[int, int], bytes]:
    have = {(0x10, 0x00): CONFIGURATION, (0x10, 0x01): CONFIGURATION_EXTENSION}
    method = device.profile.method
    if method is None:
        return have
    if device.profile.family == "3592":
        page = bytes((0x25, 0x1E)).ljust(METHOD_3592_BYTE, b"\0") + bytes((method,))
        have[0x25, 0x00] = page.ljust(32, b"\0")
    else:
        have[0x30, 0x20] = bytes((0x70, 0x20, 0x00, 0x05, 0x00, method, 0x01, 0x01, 0x00))
    return have


def _block_descriptor(device: Device) -> bytes:
    cartridge = device.cartridge
    density = 0 if cartridge is None else device.medium(cartridge).density
    return bytes((density,)) + bytes(7)  # block length 0: blocks of variable length


def _header(device: Device, descriptor: int, pages: int, *, wide: bool) -> bytes:
    cartridge = device.cartridge
    protected = cartridge is not None and write_protected(device, cartridge)
    specific = BUFFERED | (WRITE_PROTECTED if protected else 0)
    if wide:
        rest = bytes((0, specific, 0, 0)) + descriptor.to_bytes(2)
        return (len(rest) + descriptor + pages).to_bytes(2) + rest
    return bytes((3 + descriptor + pages, 0, specific, descriptor))
