"""How commands and their ends pass between a process and the worker that holds the device.

Both ends are the same program. Lengths stand before bytes; all numbers are big-endian.
"""

from __future__ import annotations

import struct

from hwkm.errors import DeviceError, HwkmError
from hwkm.keys import SecretBytes
from hwkm.scsi.completion import Completion
from hwkm.scsi.transport import (
    Command,
    CommandTimeoutError,
    DeviceAccessError,
    NoTapeDriveError,
    OutcomeUnknownError,
    TransportError,
)

_COMMAND = struct.Struct(">?dIHHI")  # secret, seconds, allocation; lengths of name, CDB, data
_COMPLETION = struct.Struct(">BHHII")  # status, host, driver; lengths of sense, data
_ERROR = struct.Struct(">BHHII")  # kind, host, driver; lengths of message, hint

_KINDS: tuple[type[DeviceError], ...] = (
    CommandTimeoutError,
    OutcomeUnknownError,
    NoTapeDriveError,
    DeviceAccessError,
    TransportError,
    DeviceError,
)
"""Errors by number, the narrower ones first."""

ENDED, FAILED = 0, 1
"""The first byte of an answer: whether what follows is a result or an error."""


def pack_command(command: Command) -> bytearray:
    """Return ``command`` in bytes that can be overwritten, as they may hold a key."""
    data_out = command.exposed()
    name = command.name.encode()
    lengths = (len(name), len(command.cdb), len(data_out))
    head = _COMMAND.pack(command.is_secret, command.seconds, command.allocation, *lengths)
    packed = bytearray(head + name + command.cdb)
    packed += data_out
    return packed


def unpack_command(packed: bytearray) -> Command:
    """Return the command that ``packed`` holds."""
    secret, seconds, allocation, *lengths = _COMMAND.unpack_from(packed)
    name, cdb, data_out = _split(memoryview(packed)[_COMMAND.size :], *lengths)
    return Command(
        name.decode(), cdb, SecretBytes(data_out) if secret else data_out, allocation, seconds
    )


def pack_completion(end: Completion) -> bytes:
    """Return the answer that says how a command ended."""
    lengths = (len(end.sense), len(end.data))
    head = _COMPLETION.pack(end.status, end.host_status, end.driver_status, *lengths)
    return pack_result(head + end.sense + end.data)


def unpack_completion(result: bytes) -> Completion:
    """Return what :func:`unpack_result` left of such an answer."""
    status, host_status, driver_status, *lengths = _COMPLETION.unpack_from(result)
    sense, data = _split(memoryview(result)[_COMPLETION.size :], *lengths)
    return Completion(status, host_status, driver_status, sense, data)


def pack_result(result: bytes) -> bytes:
    """Return the answer of success with ``result``."""
    return bytes([ENDED]) + result


def pack_error(error: HwkmError) -> bytes:
    """Return the answer of failure with ``error``."""
    known = [isinstance(error, kind) for kind in _KINDS]
    number = known.index(True) if any(known) else _KINDS.index(DeviceError)
    host, driver = 0, 0
    if isinstance(error, TransportError):
        host, driver = error.host_status, error.driver_status
    message, hint = str(error).encode(), error.hint.encode()
    head = _ERROR.pack(number, host, driver, len(message), len(hint))
    return bytes([FAILED]) + head + message + hint


def unpack_result(answer: bytes) -> bytes:
    """Return the result in ``answer``.

    :raises DeviceError: or the kind of it that ``answer`` holds instead.
    """
    if answer[0] == FAILED:
        raise _unpack_error(answer[1:])
    return answer[1:]


def _unpack_error(packed: bytes) -> DeviceError:
    number, host, driver, *lengths = _ERROR.unpack_from(packed)
    message, hint = _split(memoryview(packed)[_ERROR.size :], *lengths)
    kind: type[DeviceError] = _KINDS[number]
    if issubclass(kind, TransportError):
        return kind(message.decode(), hint=hint.decode(), host_status=host, driver_status=driver)
    return kind(message.decode(), hint=hint.decode())


def _split(packed: memoryview, *lengths: int) -> list[bytes]:
    parts = []
    for length in lengths:
        parts.append(bytes(packed[:length]))
        packed = packed[length:]
    return parts
