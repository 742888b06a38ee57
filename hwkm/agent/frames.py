"""The frames in which clients and the agent talk to each other (docs/agent-protocol.md).

Pure: bytes in, fields out. ``hwkm-getkey`` has a copy of its own of what it needs of this, since it
imports nothing.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from hwkm.errors import ParseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAGIC = b"HWK\x01"
"""Three letters and the version of the protocol."""
HEADER_BYTES = 8
MAX_BODY_BYTES = 65_536
MAX_FIELDS = 256
"""More than Bacula gives arguments to a command; without it, a frame of many tiny fields would
take ten times its size in memory."""

GETKEY, STATUS, RELEASE, STOP = b"getkey", b"status", b"release", b"stop"
DRIVE, CHANGER = b"drive", b"changer"
"""The verbs: the first field of a request."""
OK, NO = b"ok", b"no"
"""The first field of an answer."""

_LENGTH = struct.Struct(">I")


class FrameError(ParseError):
    """What came over the socket, or should go there, is no frame. Its connection is of no use."""


def pack(fields: Sequence[bytes]) -> bytes:
    """Return the frame that holds ``fields``.

    :raises FrameError: if there is none, or there are too many, or they are too long together.
    """
    if not 0 < len(fields) <= MAX_FIELDS:
        raise FrameError(f"a frame can't have {len(fields)} fields")
    body = b"".join(_LENGTH.pack(len(field)) + field for field in fields)
    if len(body) > MAX_BODY_BYTES:
        raise FrameError(f"a frame of {len(body)} bytes is too long")
    return MAGIC + _LENGTH.pack(len(body)) + body


class FrameReader:
    """Puts frames together out of bytes as they arrive, never holding more than it must.

    A frame that is refused stays refused: after a :class:`FrameError` every call raises it again,
    since nothing tells where in the stream the next frame would begin.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._refused = ""

    @property
    def pending(self) -> int:
        """How many bytes of a frame that is not whole are held; 0 between two frames."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[list[bytes]]:
        """Take bytes in, and yield the fields of every frame that is now whole: never none.

        :raises FrameError: as soon as what is there can't become a frame; while iterating.
        """
        if not self._refused:
            self._buffer += data
        return self._frames()

    def _frames(self) -> Iterator[list[bytes]]:
        while True:
            try:
                fields = self._next()
            except FrameError as error:
                self._refused = str(error)
                self._buffer.clear()
                raise
            if fields is None:
                return
            yield fields

    def _next(self) -> list[bytes] | None:
        """Take the first frame out of the buffer; None if it is not whole yet."""
        if self._refused:
            raise FrameError(self._refused)
        size = _body_size(self._buffer)
        if size is None or len(self._buffer) < HEADER_BYTES + size:
            return None
        body = bytes(self._buffer[HEADER_BYTES : HEADER_BYTES + size])
        del self._buffer[: HEADER_BYTES + size]
        return _fields(body)


def _body_size(start: bytearray) -> int | None:
    """Return how long the frame that begins so is after its header; None if that is not known."""
    seen = bytes(start[: len(MAGIC)])
    if not MAGIC.startswith(seen):
        same = seen[:3] == MAGIC[:3]
        raise FrameError(f"version {seen[3]} is not spoken" if same else "this is no frame")
    if len(start) < HEADER_BYTES:
        return None
    (size,) = _LENGTH.unpack_from(start, len(MAGIC))
    if not 0 < size <= MAX_BODY_BYTES:
        raise FrameError(f"a frame can't be {size} bytes long")
    return int(size)


def _fields(body: bytes) -> list[bytes]:
    fields: list[bytes] = []
    at = 0
    while at < len(body):
        start = at + _LENGTH.size
        if start > len(body) or len(fields) == MAX_FIELDS:
            raise FrameError("a frame's fields don't fill it, or are too many")
        at = start + _LENGTH.unpack_from(body, at)[0]
        if at > len(body):
            raise FrameError("a field is longer than its frame")
        fields.append(body[start:at])
    return fields
