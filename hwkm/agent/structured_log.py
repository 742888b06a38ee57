"""The agent's log with fields: a JSON object a line in a file, or fields of the journal's own.

``journalctl -t hwkm`` shows the same sentences as without fields, since they are its MESSAGE.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from hwkm.log import SYSLOG, Log, one_line, send, send_datagram

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from hwkm.config import Config

JOURNAL = "/run/systemd/journal/socket"
"""Takes datagrams of lines ``NAME=value`` (systemd's Native Journal Protocol)."""

_LONGEST = 1000
_PRIORITIES = {"info": 6, "warning": 4, "error": 3}
_DAEMON = 3  # syslog's facility
_render = structlog.processors.JSONRenderer(ensure_ascii=False)


def log_of(config: Config) -> Log:
    """Return the log that the configuration asks the agent for."""
    return StructuredLog(config.log) if config.agent.log_format == "json" else Log(config.log)


class StructuredLog(Log):
    """Writes fields and sentences; ``target`` as for :class:`~hwkm.log.Log`."""

    def __init__(self, target: str = SYSLOG) -> None:
        super().__init__(target)
        self._logger = structlog.wrap_logger(
            _Sink(self._put),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
                _in_order,
            ],
            wrapper_class=structlog.BoundLogger,
            context_class=dict,
            cache_logger_on_first_use=True,
        )

    def _write(self, level: str, text: str, fields: dict[str, object]) -> None:
        others = {name: value for name, value in fields.items() if name != "event"}
        write = getattr(self._logger, level)
        write(fields.get("event", "note"), message=text, pid=os.getpid(), **others)


class _Sink:
    """Where structlog leaves a line's fields; like every log of ours it never raises."""

    def __init__(self, put: Callable[[str, Callable[[], None]], None]) -> None:
        self._put = put

    def info(self, **fields: Any) -> None:
        self._write("info", fields)

    def warning(self, **fields: Any) -> None:
        self._write("warning", fields)

    def error(self, **fields: Any) -> None:
        self._write("error", fields)

    def _write(self, level: str, fields: dict[str, Any]) -> None:
        line = str(_render(None, level, fields))
        self._put(line, partial(_send, level, line, fields))


def _send(level: str, line: str, fields: dict[str, Any]) -> None:
    try:
        send_datagram(JOURNAL, _journal_entry(level, fields))
    except OSError:  # there is no journal
        send(level, line)


def _in_order(
    _logger: object, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Put what every line has first; text is bounded and on one line, what is empty left out."""
    first = {name: fields[name] for name in ("time", "level", "event", "message", "pid")}
    return {
        name: one_line(value, _LONGEST) if isinstance(value, str) else value
        for name, value in (first | dict(fields)).items()
        if value not in ("", None)
    }


def _journal_entry(level: str, fields: dict[str, Any]) -> bytes:
    own = {
        "MESSAGE": fields["message"],
        "PRIORITY": _PRIORITIES[level],
        "SYSLOG_IDENTIFIER": "hwkm",
        "SYSLOG_FACILITY": _DAEMON,
        "SYSLOG_PID": fields["pid"],
    }
    left_out = ("message", "pid", "time", "level")
    more = {f"HWKM_{name.upper()}": fields[name] for name in fields if name not in left_out}
    # No value has a newline in it: see _in_order.
    return "".join(f"{name}={value}\n" for name, value in (own | more).items()).encode()
