"""Talking with systemd as a service does: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3).

Outside of systemd nothing is there to talk with, and each of these does nothing.
"""

from __future__ import annotations

import os
import socket

from hwkm.errors import ConfigError

FIRST_SOCKET = 3
"""The first descriptor that systemd hands over, SD_LISTEN_FDS_START."""
_SEND_SECONDS = 1.0


def notify(state: str) -> bool:
    """Tell systemd ``state`` (``READY=1``, ``WATCHDOG=1``, ...); return whether it was sent.

    Never raises: a service works on, whether or not someone is there to hear of it.
    """
    where = os.environ.get("NOTIFY_SOCKET", "")
    if not where.startswith(("/", "@")):
        return False
    address = where if where.startswith("/") else "\0" + where[1:]  # an abstract socket
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(_SEND_SECONDS)
            sender.connect(address)
            sender.sendall(state.encode("utf-8", "replace"))
    except OSError:
        return False
    return True


def listen_fds() -> list[socket.socket]:
    """Return the listening sockets that systemd hands over, if it does; once.

    What told of them is taken out of the environment, and they are closed for programs that this
    process starts: nobody else can take them for their own.

    :raises ConfigError: if one of them is no listening Unix socket.
    """
    told = {name: os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS")}
    os.environ.pop("LISTEN_FDNAMES", None)
    if told["LISTEN_PID"] != str(os.getpid()):
        return []
    try:
        count = int(told["LISTEN_FDS"])
    except ValueError:
        raise ConfigError(f"LISTEN_FDS={told['LISTEN_FDS']!r} is no number of sockets") from None
    return [_listening(number) for number in range(FIRST_SOCKET, FIRST_SOCKET + count)]


def _listening(number: int) -> socket.socket:
    try:
        found = socket.socket(fileno=number)
    except OSError as error:
        raise ConfigError(
            f"descriptor {number}, handed over as a socket, is none: {error.strerror}"
        ) from error
    found.set_inheritable(False)
    listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if found.family != socket.AF_UNIX or found.type != socket.SOCK_STREAM or not listens:
        found.close()
        raise ConfigError(
            f"descriptor {number}, handed over by systemd, is no listening Unix socket",
            hint="The socket unit needs ListenStream=/path, and Accept=no",
        )
    return found


def watchdog_seconds() -> float | None:
    """Return how often systemd wants to be told ``WATCHDOG=1``; None if it does not.

    That is half of the time after which it takes this process for dead.
    """
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    own = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    if not own or not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    return int(microseconds) / 2 / 1e6
