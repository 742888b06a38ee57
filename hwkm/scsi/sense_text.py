"""Sense data in words: what happened, what to do, and which field the device objects to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.scsi.commands import OpCode
from hwkm.scsi.sense import Sense, SenseKey
from hwkm.scsi.sense_codes import (
    BY_CODE,
    BY_KEY,
    IBM_BY_CODE,
    IBM_KEY_OPTIONAL,
    IBM_KEY_SERVICE,
    MANAGED,
    RETRY,
    Explanation,
)
from hwkm.scsi.transport import CheckConditionError

if TYPE_CHECKING:
    from hwkm.scsi.sense import FieldPointer
    from hwkm.scsi.transport import Command

TAPE_DATA_ENCRYPTION = 0x20
SET_DATA_ENCRYPTION = 0x0010

# Fields by their first byte, up to the next entry.
_PAGE_FIELDS = {
    0: "PAGE CODE",
    2: "PAGE LENGTH",
    4: "SCOPE or LOCK",
    5: "CEEM, RDMC, SDK, CKOD, CKORP or CKORL",
    6: "ENCRYPTION MODE",
    7: "DECRYPTION MODE",
    8: "ALGORITHM INDEX",
    9: "KEY FORMAT",
    10: "KAD FORMAT",
    11: "a reserved field",
    18: "KEY LENGTH",
    20: "KEY or one of the KAD descriptors after it",
}

# Fields that share a byte, by byte and by each of their bits, from bit 7 down.
_PAGE_BITS = {
    4: ("SCOPE",) * 3 + ("a reserved field",) * 4 + ("LOCK",),
    5: ("CEEM", "CEEM", "RDMC", "RDMC", "SDK", "CKOD", "CKORP", "CKORL"),
}

_SECURITY_FIELDS = {
    0: "OPERATION CODE",
    1: "SECURITY PROTOCOL",
    2: "SECURITY PROTOCOL SPECIFIC",
    4: "INC_512",
    5: "a reserved field",
    6: "ALLOCATION LENGTH",
    10: "a reserved field",
    11: "CONTROL",
}
_PAGE_CODE_FIELDS = {
    0: "OPERATION CODE",
    1: "the flags",
    2: "PAGE CODE",
    3: "SUBPAGE CODE",
    4: "a reserved field",
    5: "PARAMETER POINTER",
    7: "ALLOCATION LENGTH",
    9: "CONTROL",
}
_ATTRIBUTE_FIELDS = {
    0: "OPERATION CODE",
    1: "SERVICE ACTION",
    2: "a field for changers",
    5: "LOGICAL VOLUME NUMBER",
    6: "a reserved field",
    7: "PARTITION NUMBER",
    8: "FIRST ATTRIBUTE IDENTIFIER",
    10: "ALLOCATION LENGTH",
    14: "CACHE",
    15: "CONTROL",
}
_CDB_FIELDS: dict[int, dict[int, str]] = {
    OpCode.INQUIRY: {
        0: "OPERATION CODE",
        1: "EVPD",
        2: "PAGE CODE",
        3: "ALLOCATION LENGTH",
        5: "CONTROL",
    },
    OpCode.LOG_SENSE: _PAGE_CODE_FIELDS,
    OpCode.MODE_SENSE_10: _PAGE_CODE_FIELDS | {4: "a reserved field", 5: "a reserved field"},
    OpCode.READ_ATTRIBUTE: _ATTRIBUTE_FIELDS,
    OpCode.WRITE_ATTRIBUTE: _ATTRIBUTE_FIELDS
    | {1: "WTC", 8: "a reserved field", 10: "PARAMETER LIST LENGTH", 14: "a reserved field"},
    OpCode.SECURITY_PROTOCOL_IN: _SECURITY_FIELDS,
    OpCode.SECURITY_PROTOCOL_OUT: _SECURITY_FIELDS | {6: "TRANSFER LENGTH"},
}

_VERBS: dict[int, str] = {
    SenseKey.NO_SENSE: "stopped early",
    SenseKey.RECOVERED_ERROR: "had trouble",
    SenseKey.MEDIUM_ERROR: "failed",
    SenseKey.HARDWARE_ERROR: "failed",
    SenseKey.UNIT_ATTENTION: "was not run",
    SenseKey.BLANK_CHECK: "stopped early",
    SenseKey.ABORTED_COMMAND: "was aborted",
}


def explain(sense: Sense) -> Explanation:
    """Return in words what ``sense`` means. What nobody has documented stays a number."""
    if sense.code in BY_KEY:
        return BY_KEY[sense.code]
    if sense.asc in (IBM_KEY_SERVICE, IBM_KEY_OPTIONAL):
        text = IBM_BY_CODE.get((sense.asc, sense.ascq), "a code of IBM's key service")
        return Explanation(f"{text}, says the drive (a code of IBM's)", MANAGED)
    if sense.ili and not (sense.asc or sense.ascq):
        return Explanation("the block has another length than was asked for")
    if (sense.asc, sense.ascq) in BY_CODE:
        return BY_CODE[sense.asc, sense.ascq]
    return Explanation(f"the drive gives a code that is not known here, {sense.number}", RETRY)


def refused(device: str, command: Command, sense: Sense, data: bytes = b"") -> CheckConditionError:
    """Return the error for ``command``, which ``device`` ended with CHECK CONDITION.

    :param data: what was transferred all the same, such as a block of another length.
    """
    text, advice = explain(sense)
    verb = "found that an earlier command had failed" if sense.deferred else _verb(sense.key)
    message = f"{device}: {command.name} {verb}: {text} ({sense.number})"
    if sense.field_pointer is not None:
        message += f"; the drive points at {_pointed_at(command, sense.field_pointer)}"
    return CheckConditionError(message, sense, hint=advice, data=data)


def field_at(offset: int, bit: int | None = None) -> str:
    """Return the field of the page Set Data Encryption at byte ``offset`` (SSC-5).

    :param bit: the field's most significant bit, to tell fields apart that share a byte.
    """
    if bit is not None and offset in _PAGE_BITS:
        return _PAGE_BITS[offset][7 - bit]
    return _field(_PAGE_FIELDS, offset)


def _verb(key: int) -> str:
    return _VERBS.get(key, "was refused")


def _pointed_at(command: Command, pointer: FieldPointer) -> str:
    code = command.cdb[0]
    where = _place(pointer)
    if pointer.in_cdb:
        fields = _CDB_FIELDS.get(code)
        return f"{_named(fields, pointer.byte)}{where} of the command"
    if _sets_encryption(command):
        return f"{field_at(pointer.byte, pointer.bit)}, {where} of the page Set Data Encryption"
    return f"{where} of the data sent"


def _place(pointer: FieldPointer) -> str:
    bit = "" if pointer.bit is None else f", bit {pointer.bit},"
    return f"byte {pointer.byte}{bit}"


def _named(fields: dict[int, str] | None, byte: int) -> str:
    return f"{_field(fields, byte)}, " if fields else ""


def _field(fields: dict[int, str], byte: int) -> str:
    return fields[max(start for start in fields if start <= byte)]


def _sets_encryption(command: Command) -> bool:
    head = bytes((OpCode.SECURITY_PROTOCOL_OUT, TAPE_DATA_ENCRYPTION))
    return command.cdb.startswith(head + SET_DATA_ENCRYPTION.to_bytes(2))
