"""How the emulated drive refuses a command: sense data of fixed format (SPC-5, section 4.4.3)."""

from __future__ import annotations

from typing import Final, NamedTuple

from hwkm.scsi.sense import SenseKey

FIXED_CURRENT = 0x70
VALID = 0x80
SENSE_BYTES = 18
ADDITIONAL_LENGTH = SENSE_BYTES - 8
SKSV = 0x80
IN_CDB = 0x40
BPV = 0x08
FILEMARK = 0x80
ILI = 0x20
EOM = 0x40


class Code(NamedTuple):
    """Sense key, additional sense code and its qualifier."""

    key: int
    asc: int
    ascq: int


class Reason:
    """Names of the sense codes that the drive gives (T10's list of ASC and ASCQ)."""

    LOAD_NEEDED: Final = Code(SenseKey.NOT_READY, 0x04, 0x02)
    NO_MEDIUM: Final = Code(SenseKey.NOT_READY, 0x3A, 0x00)
    UNKNOWN_COMMAND: Final = Code(SenseKey.ILLEGAL_REQUEST, 0x20, 0x00)
    INVALID_FIELD_IN_CDB: Final = Code(SenseKey.ILLEGAL_REQUEST, 0x24, 0x00)
    INVALID_FIELD_IN_LIST: Final = Code(SenseKey.ILLEGAL_REQUEST, 0x26, 0x00)
    LIST_LENGTH: Final = Code(SenseKey.ILLEGAL_REQUEST, 0x1A, 0x00)
    INVALID_RELEASE: Final = Code(SenseKey.ILLEGAL_REQUEST, 0x26, 0x04)
    INCOMPLETE_KADS: Final = Code(SenseKey.ILLEGAL_REQUEST, 0x26, 0x11)
    CANT_DECRYPT_LIST: Final = Code(SenseKey.ILLEGAL_REQUEST, 0x74, 0x0C)
    CONFIGURATION_PREVENTED: Final = Code(SenseKey.ILLEGAL_REQUEST, 0x74, 0x21)
    POWER_ON: Final = Code(SenseKey.UNIT_ATTENTION, 0x29, 0x01)
    DEVICE_RESET: Final = Code(SenseKey.UNIT_ATTENTION, 0x29, 0x03)
    NEXUS_LOSS: Final = Code(SenseKey.UNIT_ATTENTION, 0x29, 0x07)
    MEDIUM_CHANGED: Final = Code(SenseKey.UNIT_ATTENTION, 0x28, 0x00)
    RESERVATIONS_PREEMPTED: Final = Code(SenseKey.UNIT_ATTENTION, 0x2A, 0x03)
    RESERVATIONS_RELEASED: Final = Code(SenseKey.UNIT_ATTENTION, 0x2A, 0x04)
    REGISTRATIONS_PREEMPTED: Final = Code(SenseKey.UNIT_ATTENTION, 0x2A, 0x05)
    PARAMETERS_CHANGED: Final = Code(SenseKey.UNIT_ATTENTION, 0x2A, 0x11)
    WRITE_PROTECTED: Final = Code(SenseKey.DATA_PROTECT, 0x27, 0x00)
    KEY_FAIL_LIMIT: Final = Code(SenseKey.DATA_PROTECT, 0x26, 0x10)
    COUNTER_CHANGED: Final = Code(SenseKey.DATA_PROTECT, 0x2A, 0x13)
    WORM_OVERWRITE: Final = Code(SenseKey.DATA_PROTECT, 0x30, 0x0C)
    CANT_DECRYPT: Final = Code(SenseKey.DATA_PROTECT, 0x74, 0x01)
    UNENCRYPTED_DATA: Final = Code(SenseKey.DATA_PROTECT, 0x74, 0x02)
    INCORRECT_KEY: Final = Code(SenseKey.DATA_PROTECT, 0x74, 0x03)
    INTEGRITY: Final = Code(SenseKey.DATA_PROTECT, 0x74, 0x04)
    PARAMETERS_NOT_USEABLE: Final = Code(SenseKey.DATA_PROTECT, 0x74, 0x07)
    MODE_MISMATCH: Final = Code(SenseKey.DATA_PROTECT, 0x74, 0x09)
    NOT_RAW_READABLE: Final = Code(SenseKey.DATA_PROTECT, 0x74, 0x0A)
    END_OF_DATA: Final = Code(SenseKey.BLANK_CHECK, 0x00, 0x05)
    NO_END_OF_DATA: Final = Code(SenseKey.BLANK_CHECK, 0x14, 0x03)
    FILEMARK_DETECTED: Final = Code(SenseKey.NO_SENSE, 0x00, 0x01)
    BEGINNING_DETECTED: Final = Code(SenseKey.NO_SENSE, 0x00, 0x04)
    WRONG_LENGTH: Final = Code(SenseKey.NO_SENSE, 0x00, 0x00)


class Refusal(Exception):  # noqa: N818  # it is how a command ends, not a failure of the emulator
    """A command ends in CHECK CONDITION. What the drive did until then stays done.

    ``information`` is signed; ``data`` is transferred all the same.
    """

    def __init__(
        self,
        code: Code,
        *,
        flags: int = 0,
        information: int | None = None,
        pointer: bytes = b"",
        data: bytes = b"",
    ) -> None:
        super().__init__(f"{code.key:X}/{code.asc:02X}/{code.ascq:02X}")
        self.code = code
        self.data = data
        self._flags = flags
        self._information = information
        self._pointer = pointer

    @property
    def sense(self) -> bytes:
        """The sense data, 18 bytes."""
        return pack_sense(self.code, self._flags, self._information, self._pointer)


def pack_sense(
    code: Code, flags: int = 0, information: int | None = None, pointer: bytes = b""
) -> bytes:
    """Return 18 bytes of sense data; ``pointer`` is what :func:`field_pointer` made."""
    known = information is not None
    head = bytes((FIXED_CURRENT | (VALID if known else 0), 0, flags | code.key))
    middle = (information or 0).to_bytes(4, signed=True) + bytes((ADDITIONAL_LENGTH, 0, 0, 0, 0))
    return head + middle + bytes((code.asc, code.ascq, 0)) + pointer.ljust(3, b"\0")


def field_pointer(byte: int, bit: int | None, *, in_cdb: bool) -> bytes:
    """Return SENSE KEY SPECIFIC for an illegal field (SPC-5, section 4.4.2.4.2)."""
    first = SKSV | (IN_CDB if in_cdb else 0)
    if bit is not None:
        first |= BPV | bit
    return bytes((first,)) + byte.to_bytes(2)


def invalid_cdb(byte: int, bit: int | None = None) -> Refusal:
    """Return the refusal of a CDB because of what starts at this byte and bit."""
    pointer = field_pointer(byte, bit, in_cdb=True)
    return Refusal(Reason.INVALID_FIELD_IN_CDB, pointer=pointer)


def invalid_list(
    byte: int, bit: int = 7, *, reason: Code = Reason.INVALID_FIELD_IN_LIST
) -> Refusal:
    """Return the refusal of a parameter list because of what starts at this byte and bit."""
    return Refusal(reason, pointer=field_pointer(byte, bit, in_cdb=False))
