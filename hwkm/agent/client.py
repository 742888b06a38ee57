"""Asking the agent, for hwkm's own commands. The Storage Daemon has ``hwkm-getkey`` instead."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from hwkm.agent.frames import OK, STATUS, FrameReader, pack
from hwkm.errors import HwkmError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ANSWER_SECONDS = 25.0
_CHUNK = 65536


class NoAgentError(HwkmError):
    """No agent answers."""


class AgentRefusedError(HwkmError):
    """The agent does not do what it was asked for."""


def ask(path: Path, fields: Sequence[bytes], seconds: float = ANSWER_SECONDS) -> list[bytes]:
    """Return the fields of the agent's answer, without the first.

    :raises NoAgentError: if nobody listens at ``path``, or does not answer in time.
    :raises AgentRefusedError: if the agent says no.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(str(path))
            connection.sendall(pack(fields))
            first, *rest = _receive(connection)
        except OSError as error:
            why = error.strerror or "there was no answer in time"
            raise NoAgentError(
                f"no agent answers at {path}: {why}",
                hint="Start it with systemctl start hwkm-agent, or hwkm agent run",
            ) from error
    if first != OK:
        raise AgentRefusedError(b" ".join(rest).decode("utf-8", "replace"))
    return rest


def status(path: Path) -> dict[str, Any]:
    """Return what the agent says of itself.

    :raises NoAgentError, AgentRefusedError: as :func:`ask` does.
    """
    (document,) = ask(path, [STATUS])
    found: dict[str, Any] = json.loads(document)
    return found


def _receive(connection: socket.socket) -> list[bytes]:
    reader = FrameReader()
    while data := connection.recv(_CHUNK):
        for fields in reader.feed(data):
            return fields
    raise ConnectionResetError("it closed the connection")
