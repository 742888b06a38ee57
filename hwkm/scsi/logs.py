"""Log pages: the cartridge's story, alerts, and whether the drive waits for a key.

Volume Statistics (17h) and TapeAlert (2Eh, 12h): SSC-5; DT Device Status (11h): ADC-3; how log
pages are made up: SPC-5.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique

from hwkm.errors import ParseError
from hwkm.scsi.attributes import position
from hwkm.scsi.inquiry import text

HEAD_BYTES = 4
"""Length of a log page's head, and of each parameter's."""

PAGE_CODE_MASK = 0x3F
PARTITION_HEAD_BYTES = 4

ENCRYPTION_PARAMETERS_PRESENT = 0x10
ENCRYPTION_SERVICE_REQUESTED = 0x08
"""EPP and ESR: bits of byte 3 of the very high frequency data."""

ALERT_FLAGS = 64


@unique
class LogPage(IntEnum):
    """Log pages that hwkm reads. Reading TAPE_ALERT clears the flags; the response does not."""

    DEVICE_STATUS = 0x11
    TAPE_ALERT_RESPONSE = 0x12
    VOLUME_STATISTICS = 0x17
    TAPE_ALERT = 0x2E


@unique
class VolumeParameter(IntEnum):
    """Parameters of the page Volume Statistics."""

    SERIAL_NUMBER = 0x0040
    LOT = 0x0041
    BARCODE = 0x0042
    MANUFACTURER = 0x0043
    LICENCE_CODE = 0x0044
    PERSONALITY = 0x0045
    WRITE_PROTECT = 0x0080
    WORM = 0x0081
    FIRST_ENCRYPTED = 0x0200
    FIRST_UNENCRYPTED = 0x0201


@unique
class StatusParameter(IntEnum):
    """Parameters of the page Device Status."""

    VERY_HIGH_FREQUENCY_DATA = 0x0000
    ENCRYPTION_CONTROL_STATUS = 0x0002
    KEY_MANAGEMENT_ERROR = 0x0003


ALERT_NAMES = {
    0x01: "read warning",
    0x02: "write warning",
    0x03: "hard error",
    0x04: "medium",
    0x05: "read failure",
    0x06: "write failure",
    0x07: "medium at the end of its life",
    0x08: "not data grade",
    0x09: "write protected",
    0x0A: "removal prevented",
    0x0B: "cleaning cartridge",
    0x0C: "unsupported format",
    0x0D: "mechanical cartridge failure, recoverable",
    0x0E: "mechanical cartridge failure",
    0x0F: "cartridge memory failure",
    0x10: "forced eject",
    0x11: "read-only format",
    0x12: "tape directory corrupted at load",
    0x13: "medium near the end of its life",
    0x14: "clean now",
    0x15: "clean soon",
    0x16: "cleaning cartridge expired",
    0x17: "not a valid cleaning cartridge",
    0x1A: "cooling fan failure",
    0x1B: "power supply failure",
    0x1E: "drive hardware failure, reset needed",
    0x1F: "drive hardware failure",
    0x20: "interface failure",
    0x21: "eject the cartridge and try again",
    0x22: "firmware download failed",
    0x24: "temperature out of range",
    0x25: "voltage out of range",
    0x26: "failure predicted",
    0x27: "diagnostics required",
    0x32: "statistics lost",
    0x33: "tape directory invalid at unload",
    0x34: "tape system area write failure",
    0x35: "tape system area read failure",
    0x36: "no start of data",
    0x37: "load failure",
    0x38: "unload failure",
    0x39: "library interface failure",
    0x3A: "firmware failure",
    0x3B: "WORM integrity check failed",
    0x3C: "WORM overwrite attempted",
    0x3D: "encryption policy violation",
}
"""What the TapeAlert flags mean (SSC-5), by number."""


@dataclass(frozen=True, slots=True)
class VolumeStatistics:
    """Page 17h: the cartridge in the drive. Texts are "" and the others None if not given.

    ``first_encrypted`` and ``first_clear`` are logical objects of partition 0: the first encrypted
    block, and the first block after it that is not; None also if there is none.
    """

    serial: str = ""
    lot: str = ""
    barcode: str = ""
    manufacturer: str = ""
    personality: str = ""
    write_protected: bool | None = None
    worm: bool | None = None
    first_encrypted: int | None = None
    first_clear: int | None = None
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> VolumeStatistics:
        """Return what page 17h says.

        :raises ParseError: if it is another page.
        """
        found, problems = _parameters(data, LogPage.VOLUME_STATISTICS)
        return cls(
            serial=text(found.get(VolumeParameter.SERIAL_NUMBER, b"")),
            lot=text(found.get(VolumeParameter.LOT, b"")),
            barcode=text(found.get(VolumeParameter.BARCODE, b"")),
            manufacturer=text(found.get(VolumeParameter.MANUFACTURER, b"")),
            personality=text(found.get(VolumeParameter.PERSONALITY, b"")),
            write_protected=_flag(found.get(VolumeParameter.WRITE_PROTECT)),
            worm=_flag(found.get(VolumeParameter.WORM)),
            first_encrypted=_first_partition(found.get(VolumeParameter.FIRST_ENCRYPTED, b"")),
            first_clear=_first_partition(found.get(VolumeParameter.FIRST_UNENCRYPTED, b"")),
            problems=problems,
        )


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """Page 11h: what the drive would tell a library.

    ``encryption_parameters_present`` (EPP): there are parameters in it. ``service_requested``
    (ESR): it waits for a key from outside. ``encryption_control`` and ``key_error`` are the raw
    parameters 0002h and 0003h, empty if not given.
    """

    encryption_parameters_present: bool | None = None
    service_requested: bool | None = None
    encryption_control: bytes = b""
    key_error: bytes = b""
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> DeviceStatus:
        """Return what page 11h says.

        :raises ParseError: if it is another page.
        """
        found, problems = _parameters(data, LogPage.DEVICE_STATUS)
        flags = found.get(StatusParameter.VERY_HIGH_FREQUENCY_DATA, b"")[3:4]
        return cls(
            encryption_parameters_present=_bit(flags, ENCRYPTION_PARAMETERS_PRESENT),
            service_requested=_bit(flags, ENCRYPTION_SERVICE_REQUESTED),
            encryption_control=found.get(StatusParameter.ENCRYPTION_CONTROL_STATUS, b""),
            key_error=found.get(StatusParameter.KEY_MANAGEMENT_ERROR, b""),
            problems=problems,
        )


def parse_tape_alert(data: bytes) -> frozenset[int]:
    """Return the numbers of the TapeAlert flags that are set, out of page 2Eh.

    :raises ParseError: if it is another page.
    """
    found, _ = _parameters(data, LogPage.TAPE_ALERT)
    flags = ((number, value[:1]) for number, value in found.items())
    return frozenset(n for n, value in flags if 1 <= n <= ALERT_FLAGS and _bit(value, 0x01))


def parse_tape_alert_response(data: bytes) -> frozenset[int]:
    """Return the numbers of the TapeAlert flags that are set, out of page 12h.

    :raises ParseError: if it is another page.
    """
    found, _ = _parameters(data, LogPage.TAPE_ALERT_RESPONSE)
    bits = found.get(0, b"")[: ALERT_FLAGS // 8]
    places = range(8 * len(bits))
    return frozenset(at + 1 for at in places if bits[at // 8] & (0x80 >> at % 8))


def alert_name(flag: int) -> str:
    """Return what a TapeAlert flag means: ``encryption policy violation``."""
    return ALERT_NAMES.get(flag, f"TapeAlert flag {flag:02X}h")


def _parameters(data: bytes, page: LogPage) -> tuple[dict[int, bytes], tuple[str, ...]]:
    """Return the values of a log page by parameter code, and what is wrong with its lengths."""
    if len(data) < HEAD_BYTES or data[0] & PAGE_CODE_MASK != page:
        raise ParseError(f"the answer is not the log page {page:02X}h")
    length = int.from_bytes(data[2:4])
    body = data[HEAD_BYTES : HEAD_BYTES + length]
    problems = []
    if len(body) < length:
        problems.append(f"the page announces {length} bytes and has {len(body)}")
    found: dict[int, bytes] = {}
    while body:
        end = HEAD_BYTES + body[3] if len(body) >= HEAD_BYTES else HEAD_BYTES
        if end > len(body):
            problems.append("the last parameter is cut off")
            break
        found.setdefault(int.from_bytes(body[:2]), body[HEAD_BYTES:end])
        body = body[end:]
    return found, tuple(problems)


def _flag(value: bytes | None) -> bool | None:
    return any(value) if value else None


def _bit(value: bytes, mask: int) -> bool | None:
    return bool(value[0] & mask) if value else None


def _first_partition(records: bytes) -> int | None:
    """Return the position that the record of partition 0 holds (length, reserved, partition)."""
    while len(records) >= PARTITION_HEAD_BYTES:
        end = 1 + max(records[0], PARTITION_HEAD_BYTES - 1)
        if records[2:4] == b"\0\0" and end <= len(records):
            return position(records[PARTITION_HEAD_BYTES:end])
        records = records[end:]
    return None
