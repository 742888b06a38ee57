"""hwkm's own log: one line a decision, to syslog (and so the journal) or to a file.

Bacula hides most of what its Encryption Command has to say, so the reasons must be here.
"""

from __future__ import annotations

import os
import syslog
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SYSLOG = "syslog"
SYSLOG_SECONDS = 2.0
"""How long to wait for a syslog daemon that takes nothing. syslog(3) would wait for ever."""
IMPATIENT_SECONDS = 30.0
_impatient_until: dict[str, float] = {}
"""Until when a socket is not waited for, by its path."""
_SOCKET = "/dev/log"
_LEVELS = {"info": syslog.LOG_INFO, "warning": syslog.LOG_WARNING, "error": syslog.LOG_ERR}


class Log:
    """Writes lines to ``target``: the word ``syslog``, or the absolute path of a file.

    A decision comes as a sentence, and again as ``fields``, the first of which is the ``event``'s
    short name. Only the sentence is written here; the agent can have both (``log_format``).
    """

    def __init__(self, target: str = SYSLOG) -> None:
        self._target = target
        self._holds = False
        self._held: list[tuple[str, Callable[[], None]]] = []

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold back what is logged in this block until its end, so that nobody waits for it."""
        self._holds = True
        try:
            yield
        finally:
            self._holds = False
            self._let_go()

    def info(self, text: str, **fields: object) -> None:
        """Log what was done."""
        self._write("info", text, fields)

    def warning(self, text: str, **fields: object) -> None:
        """Log what someone should look at."""
        self._write("warning", text, fields)

    def error(self, text: str, **fields: object) -> None:
        """Log what could not be done."""
        self._write("error", text, fields)

    def _write(self, level: str, text: str, _fields: dict[str, object]) -> None:
        line = one_line(text)
        stamped = f"{_stamp()} hwkm[{os.getpid()}] {level}: {line}"
        self._put(stamped, partial(send, level, line))

    def _put(self, line: str, send_it: Callable[[], None]) -> None:
        """Write a line into the file; where there is none, or it can't be written, send it."""
        self._held.append((line, send_it))
        if not self._holds:
            self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, []
        if held and self._target != SYSLOG:
            with suppress(OSError):
                append(self._target, [line for line, _ in held])
                return
        for _, send_it in held:
            with suppress(OSError):
                send_it()


def one_line(text: str, limit: int = 1000) -> str:
    """Return ``text`` on one line of at most ``limit`` characters, without control characters."""
    shown = " ".join(text.split())
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else " " for c in shown)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def append(path: str, lines: Iterable[str]) -> None:
    """Write lines at the end of a file, which is made if need be.

    :raises OSError: if that can't be done at once.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    try:
        for line in lines:
            # One write, so that lines of several processes don't mix.
            os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


def send(level: str, line: str) -> None:
    """Send a line to syslog.

    :raises OSError: if nobody takes it in time.
    """
    stamp = time.strftime("%b %e %H:%M:%S")  # RFC 3164, section 4.1.2: local time
    priority = syslog.LOG_DAEMON | _LEVELS[level]
    send_datagram(_SOCKET, f"<{priority}>{stamp} hwkm[{os.getpid()}]: {line}".encode())


def send_datagram(path: str, message: bytes) -> None:
    """Send a message to the socket at ``path``.

    A daemon that took nothing in time is not waited for again for a while.

    :raises OSError: if nobody takes it in time.
    """
    import socket  # not needed where a file is logged to

    patient = time.monotonic() >= _impatient_until.get(path, 0.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(SYSLOG_SECONDS if patient else 0)
        sender.connect(path)
        try:
            sender.send(message)
        except TimeoutError:
            _impatient_until[path] = time.monotonic() + IMPATIENT_SECONDS
            raise


def _stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
