"""hwkm's own log: one line a decision, to syslog (and so the journal) or to a file.

Bacula hides most of what its Encryption Command has to say, so the reasons must be here.
"""

from __future__ import annotations

import contextlib
import os
import syslog
import time

SYSLOG = "syslog"
SYSLOG_SECONDS = 2.0
"""How long to wait for a syslog daemon that takes nothing. syslog(3) would wait for ever."""
_SOCKET = "/dev/log"
_LEVELS = {"info": syslog.LOG_INFO, "warning": syslog.LOG_WARNING, "error": syslog.LOG_ERR}


class Log:
    """Writes lines to ``target``: the word ``syslog``, or the absolute path of a file."""

    def __init__(self, target: str = SYSLOG) -> None:
        self._target = target

    def info(self, text: str) -> None:
        """Log what was done."""
        self._write("info", text)

    def warning(self, text: str) -> None:
        """Log what someone should look at."""
        self._write("warning", text)

    def error(self, text: str) -> None:
        """Log what could not be done."""
        self._write("error", text)

    def _write(self, level: str, text: str) -> None:
        line = one_line(text)
        if self._target != SYSLOG:
            with contextlib.suppress(OSError):
                _append(self._target, level, line)
                return
        with contextlib.suppress(OSError):
            _send(_LEVELS[level], line)


def one_line(text: str, limit: int = 1000) -> str:
    """Return ``text`` on one line of at most ``limit`` characters, without control characters."""
    shown = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _append(path: str, level: str, line: str) -> None:
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    try:
        # One write, so that lines of several processes don't mix.
        os.write(descriptor, f"{stamp} hwkm[{os.getpid()}] {level}: {line}\n".encode())
    finally:
        os.close(descriptor)


def _send(level: int, line: str) -> None:
    import socket  # not needed where a file is logged to

    stamp = time.strftime("%b %e %H:%M:%S")  # RFC 3164, section 4.1.2: local time
    message = f"<{syslog.LOG_DAEMON | level}>{stamp} hwkm[{os.getpid()}]: {line}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(SYSLOG_SECONDS)
        sender.connect(_SOCKET)
        sender.send(message.encode())
