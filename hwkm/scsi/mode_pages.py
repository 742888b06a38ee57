"""Mode pages: write protection, and who manages the drive's keys.

MODE SENSE(10) and its head: SPC-5; page 10h[01h]: SSC-5. Pages 25h (IBM 3592) and 30h[20h] (IBM
LTO) are vendor pages; the values of their method bytes are those that IBM's own software uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum, unique

from hwkm.errors import ParseError

HEAD_BYTES = 8
"""Length of MODE SENSE(10)'s head."""

WRITE_PROTECT = 0x80
"""WP of DEVICE-SPECIFIC PARAMETER."""

PAGE_CODE_MASK = 0x3F
HAS_SUBPAGE = 0x40

VCELBRE_BYTE = 8
METHOD_BYTE_3592 = 27
METHOD_BYTE_LTO = 5


@unique
class ModePage(IntEnum):
    """Mode pages that hwkm reads."""

    DEVICE_CONFIGURATION = 0x10
    READ_WRITE_CONTROL_3592 = 0x25
    VENDOR_LTO = 0x30


CONFIGURATION_EXTENSION = 0x01
"""Subpage of DEVICE_CONFIGURATION."""

ENCRYPTION_MODE = 0x20
"""Subpage of VENDOR_LTO."""


@unique
class KeyManager(StrEnum):
    """Who gives the drive its keys: IBM's encryption methods."""

    NONE = "none"
    APPLICATION = "application"
    LIBRARY = "library"
    SYSTEM = "system"
    CONTROLLER = "controller"
    INTERNAL = "internal"
    CUSTOM = "custom"
    UNKNOWN = "unknown"


_METHODS_3592 = {
    0x00: KeyManager.NONE,
    0x10: KeyManager.SYSTEM,
    0x1F: KeyManager.CONTROLLER,
    0x50: KeyManager.APPLICATION,
    0x60: KeyManager.LIBRARY,
    0x70: KeyManager.INTERNAL,
    0xFF: KeyManager.CUSTOM,
}
_METHODS_LTO = {
    0x00: KeyManager.NONE,
    0x01: KeyManager.LIBRARY,
    0x02: KeyManager.SYSTEM,
    0x03: KeyManager.APPLICATION,
    0x04: KeyManager.CUSTOM,
}


@dataclass(frozen=True, slots=True)
class ModeData:
    """The answer to MODE SENSE(10). ``density`` is None without block descriptor.

    ``pages`` is whatever follows the block descriptors.
    """

    medium_type: int
    write_protected: bool
    density: int | None
    pages: bytes

    @classmethod
    def parse(cls, data: bytes) -> ModeData:
        """Return what ``data`` says, cut to what is there.

        :raises ParseError: if it is shorter than its head.
        """
        if len(data) < HEAD_BYTES:
            raise ParseError(f"MODE SENSE gave {len(data)} bytes instead of {HEAD_BYTES} and more")
        body = data[HEAD_BYTES : 2 + int.from_bytes(data[:2])]
        descriptors = int.from_bytes(data[6:8])
        return cls(
            medium_type=data[2],
            write_protected=bool(data[3] & WRITE_PROTECT),
            density=body[0] if descriptors and body else None,
            pages=body[descriptors:],
        )

    def page(self, code: int, subpage: int = 0) -> bytes:
        """Return one page from its page code on, cut to what is there; b"" if it is not there."""
        rest = self.pages
        while len(rest) >= 4:
            length = 4 + int.from_bytes(rest[2:4]) if rest[0] & HAS_SUBPAGE else 2 + rest[1]
            found = rest[1] if rest[0] & HAS_SUBPAGE else 0
            if (rest[0] & PAGE_CODE_MASK, found) == (code, subpage):
                return rest[:length]
            rest = rest[length:]
        return b""


def encryption_required(data: ModeData) -> bool | None:
    """Return VCELBRE of page 10h[01h]: appends to a tape with encrypted blocks must be encrypted.

    None if the drive does not say.
    """
    byte = _byte(data, (ModePage.DEVICE_CONFIGURATION, CONFIGURATION_EXTENSION), VCELBRE_BYTE)
    return None if byte is None else bool(byte & 0x01)


def key_manager_lto(data: ModeData) -> KeyManager:
    """Return who manages the keys of an IBM LTO drive, out of page 30h[20h]."""
    byte = _byte(data, (ModePage.VENDOR_LTO, ENCRYPTION_MODE), METHOD_BYTE_LTO)
    return KeyManager.UNKNOWN if byte is None else _METHODS_LTO.get(byte, KeyManager.UNKNOWN)


def key_manager_3592(data: ModeData) -> KeyManager:
    """Return who manages the keys of an IBM 3592 drive, out of page 25h."""
    byte = _byte(data, (ModePage.READ_WRITE_CONTROL_3592, 0), METHOD_BYTE_3592)
    return KeyManager.UNKNOWN if byte is None else _METHODS_3592.get(byte, KeyManager.UNKNOWN)


def _byte(data: ModeData, page: tuple[int, int], offset: int) -> int | None:
    found = data.page(*page)
    return found[offset] if offset < len(found) else None
