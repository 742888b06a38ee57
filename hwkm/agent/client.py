"""Asking the agent, for hwkm's own commands. The Storage Daemon has ``hwkm-getkey`` instead."""

from __future__ import annotations

import json
import socket
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hwkm.agent.frames import OK, STATUS, STOP, FrameError, FrameReader, pack
from hwkm.agent.peers import ROOT, peer_of
from hwkm.errors import DeviceError, HwkmError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DEFAULT_SOCKET: Final = Path("/run/hwkm/agent.sock")
"""Where the agent is looked for by whoever does not know its configuration."""

ANSWER_SECONDS = 25.0
VERB_SECONDS = 615.0
"""How long the answer to what concerns a drive is waited for: the agent has 600 (limits.py)."""
QUIET_SECONDS = 2.0
"""How long a drive may take without a word about it."""
END_SECONDS = 30.0
"""How long the agent may take to end: requests get 10 s, and the token's process 15 s at most."""
_CONNECT_SECONDS = 5.0
_PAUSE_SECONDS = 0.05
_HINT = "Start it with systemctl start hwkm-agent, or hwkm agent run"
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
            raise NoAgentError(f"no agent answers at {path}: {why}", hint=_HINT) from error
    return _unless_refused(first, rest)


def find(path: Path) -> None:
    """Make sure that an agent listens at ``path``.

    :raises NoAgentError: if there is none, or one of somebody else's.
    """
    with _trusted(path):
        pass


def ask_for_drive(path: Path, fields: Sequence[bytes], wait: Callable[[], None]) -> bytes:
    """Return what the agent answers to ``fields``, which concern a drive.

    ``wait`` is called once, if there is no answer for a while.

    :raises NoAgentError: as :func:`find` does.
    :raises AgentRefusedError: if the agent says no.
    :raises DeviceError: if there is no answer; what became of the drive is then not known.
    """
    with _trusted(path) as connection:
        try:
            connection.sendall(pack(fields))
            first, *rest = _receive_late(connection, wait)
        except (OSError, FrameError) as error:
            raise DeviceError(
                f"the agent at {path} did not say what came of it: {_why(error)}",
                hint="Its log may; hwkm drive status shows what the drive holds",
            ) from error
    return b"".join(_unless_refused(first, rest))


@contextmanager
def _trusted(path: Path) -> Iterator[socket.socket]:
    """Connect to an agent of root's, or of the owner of the folder that the socket is in.

    Who else may put a socket there could say of a drive that it encrypts.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_CONNECT_SECONDS)
        try:
            connection.connect(str(path))
            uid, owner = peer_of(connection).uid, path.absolute().parent.stat().st_uid
        except OSError as error:
            raise NoAgentError(f"no agent answers at {path}: {_why(error)}", hint=_HINT) from error
        if uid not in (ROOT, owner):
            text = f"at {path} listens user id {uid}, who does not own the folder"
            raise NoAgentError(text, hint=_HINT)
        yield connection


def _unless_refused(first: bytes, rest: list[bytes]) -> list[bytes]:
    if first != OK:
        raise AgentRefusedError(b" ".join(rest).decode("utf-8", "replace"))
    return rest


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "there was no answer in time"
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _receive_late(connection: socket.socket, wait: Callable[[], None]) -> list[bytes]:
    """Return the fields of the answer, and say so if it takes its time to come."""
    end = time.monotonic() + VERB_SECONDS
    connection.settimeout(QUIET_SECONDS)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        wait()
    connection.settimeout(max(0.001, end - time.monotonic()))
    return _receive(connection)


def status(path: Path) -> dict[str, Any]:
    """Return what the agent says of itself.

    :raises NoAgentError, AgentRefusedError: as :func:`ask` does.
    """
    (document,) = ask(path, [STATUS])
    found: dict[str, Any] = json.loads(document)
    return found


def stop(path: Path, seconds: float = END_SECONDS) -> None:
    """Tell the agent to end, and wait until it has.

    :raises NoAgentError, AgentRefusedError: as :func:`ask` does.
    :raises HwkmError: if it has not ended after ``seconds``.
    """
    # By its number: where systemd listens, to connect once more would start another one.
    process = Path("/proc") / str(status(path)["pid"])
    ask(path, [STOP])
    end = time.monotonic() + seconds
    while process.exists():
        if time.monotonic() > end:
            raise HwkmError(
                f"the agent (process {process.name}) has not ended after {seconds:.0f} s",
                hint="It may be busy with a drive; hwkm agent status says so",
            )
        time.sleep(_PAUSE_SECONDS)


def _receive(connection: socket.socket) -> list[bytes]:
    reader = FrameReader()
    while data := connection.recv(_CHUNK):
        for fields in reader.feed(data):
            return fields
    raise ConnectionResetError("it closed the connection")
