"""The device server: takes a CDB, does what it says, and ends with a status (SAM-5, SPC-5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.scsi.completion import Completion, Status
from hwkm.scsi.emulator.data import erase, read, write, write_filemarks
from hwkm.scsi.emulator.identity import inquiry
from hwkm.scsi.emulator.lies import BUSY
from hwkm.scsi.emulator.logs import log_sense
from hwkm.scsi.emulator.mam import read_attribute, write_attribute
from hwkm.scsi.emulator.modes import mode_sense
from hwkm.scsi.emulator.positioning import load_unload, locate, read_position, rewind, space
from hwkm.scsi.emulator.refusal import Code, Reason, Refusal, field_pointer, pack_sense
from hwkm.scsi.emulator.reservations import (
    Conflict,
    check,
    persistent_reserve_in,
    persistent_reserve_out,
    release,
    reserve,
)
from hwkm.scsi.emulator.security_in import security_protocol_in
from hwkm.scsi.emulator.security_out import security_protocol_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwkm.scsi.emulator.device import Device

TEST_UNIT_READY, REQUEST_SENSE, INQUIRY = 0x00, 0x03, 0x12
RELEASE_6, READ_POSITION = 0x17, 0x34
PERSISTENT_IN, PERSISTENT_OUT = 0x5E, 0x5F

CDB_BYTES = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}
"""Length of a CDB by the group code in its first byte (SPC-5, section 4.2.5.1)."""

WITHOUT_ATTENTION = frozenset({REQUEST_SENSE, INQUIRY})
"""Commands that don't report a unit attention (SAM-5, section 5.14)."""

DESPITE_RESERVATION = frozenset({REQUEST_SENSE, INQUIRY, RELEASE_6, PERSISTENT_IN, PERSISTENT_OUT})
"""Commands that another host's reservation does not stop."""


def serve(device: Device, cdb: bytes, data: bytes) -> Completion:
    """Run one command and return how it ended."""
    try:
        return Completion(data=_run(device, cdb, data))
    except Refusal as refusal:
        return Completion(status=Status.CHECK_CONDITION, sense=refusal.sense, data=refusal.data)
    except Conflict:
        return Completion(status=Status.RESERVATION_CONFLICT)
    except _Busy:
        return Completion(status=Status.BUSY)


class _Busy(Exception):  # noqa: N818  # a status of the command
    """The command ends with BUSY."""


def _run(device: Device, cdb: bytes, data: bytes) -> bytes:
    code = cdb[0]
    _check_busy(device)
    if code not in WITHOUT_ATTENTION:
        _report_attention(device)
    if code not in DESPITE_RESERVATION:
        check(device)
    if len(cdb) != CDB_BYTES.get(code >> 5):
        raise Refusal(Reason.INVALID_FIELD_IN_CDB)
    if code in _OUT:
        return _OUT[code](device, cdb, data)
    if code in _IN:
        return _IN[code](device, cdb)
    pointer = field_pointer(0, None, in_cdb=True)
    raise Refusal(Reason.UNKNOWN_COMMAND, pointer=pointer)


def _check_busy(device: Device) -> None:
    lies = device.state.lies
    if BUSY not in lies:
        return
    lies[BUSY] -= 1
    if lies[BUSY] <= 0:
        del lies[BUSY]
    raise _Busy


def _report_attention(device: Device) -> None:
    if device.nexus.attentions:
        raise Refusal(Code(*device.nexus.attentions.pop(0)))


def _test_unit_ready(device: Device, _cdb: bytes) -> bytes:
    device.mounted()
    return b""


def _request_sense(device: Device, cdb: bytes) -> bytes:
    attentions = device.nexus.attentions
    code = Code(*attentions.pop(0)) if attentions else Code(0, 0, 0)
    return pack_sense(code)[: cdb[4]]


_IN: dict[int, Callable[[Device, bytes], bytes]] = {
    TEST_UNIT_READY: _test_unit_ready,
    0x01: rewind,
    REQUEST_SENSE: _request_sense,
    0x08: read,
    0x10: write_filemarks,
    0x11: space,
    INQUIRY: inquiry,
    0x16: reserve,
    RELEASE_6: release,
    0x19: erase,
    0x1A: mode_sense,
    0x1B: load_unload,
    0x2B: locate,
    READ_POSITION: read_position,
    0x4D: log_sense,
    0x5A: mode_sense,
    PERSISTENT_IN: persistent_reserve_in,
    0x8C: read_attribute,
    0x92: locate,
    0xA2: security_protocol_in,
}
_OUT: dict[int, Callable[[Device, bytes, bytes], bytes]] = {
    0x0A: write,
    PERSISTENT_OUT: persistent_reserve_out,
    0x8D: write_attribute,
    0xB5: security_protocol_out,
}
