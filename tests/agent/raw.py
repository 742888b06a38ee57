"""A client of the agent's socket, written from docs/agent-protocol.md alone."""

from __future__ import annotations

import base64
import socket
import struct
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MAGIC = b"HWK\x01"
SECONDS = 40.0


class ClosedError(Exception):
    """The agent closed the connection without an answer."""


def frame(*fields: bytes) -> bytes:
    """Return a frame; nothing is checked."""
    body = b"".join(struct.pack(">I", len(field)) + field for field in fields)
    return MAGIC + struct.pack(">I", len(body)) + body


def getkey_fields(
    operation: str, volume: str, wrapped: bytes = b"", words: Sequence[str] = ()
) -> list[bytes]:
    """Return the fields of a request for a key."""
    request = [operation.encode(), volume.encode(), base64.b64encode(wrapped), b""]
    return [b"getkey", *request, *(word.encode() for word in words)]


class Raw:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    def ask(self, *fields: bytes) -> list[bytes]:
        """Send a request, and return the answer's fields."""
        self.socket.sendall(frame(*fields))
        return self.answer()

    def getkey(
        self, operation: str, volume: str, wrapped: bytes = b"", words: Sequence[str] = ()
    ) -> bytes:
        """Ask for a key, and return what Bacula would be told."""
        ok, reply = self.ask(*getkey_fields(operation, volume, wrapped, words))
        assert ok == b"ok", reply
        return reply

    def answer(self) -> list[bytes]:
        """Return the fields of the next answer."""
        head = self._exactly(8)
        assert head[:4] == MAGIC, head
        body = self._exactly(struct.unpack(">I", head[4:])[0])
        fields = []
        while body:
            length = struct.unpack(">I", body[:4])[0]
            fields.append(body[4 : 4 + length])
            body = body[4 + length :]
        return fields

    def is_closed(self) -> bool:
        """Wait for whatever comes, and return whether it is the end."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except ConnectionError:
                more = b""
            if not more:
                raise ClosedError
            data += more
        return data


@contextmanager
def connected(path: Path, seconds: float = SECONDS) -> Iterator[Raw]:
    """Connect to the agent for a while."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
        connection.connect(str(path))  # waits where others wait too
        connection.settimeout(seconds)
        yield Raw(connection)
