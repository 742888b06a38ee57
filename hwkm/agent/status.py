"""What the agent has done so far, in figures."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from hwkm import __version__
from hwkm.agent.frames import GETKEY
from hwkm.agent.latency import Latency

_GETKEY = GETKEY.decode()

GIVEN, REFUSED, FAILED = "given", "refused", "failed"
"""How a request for a key ends: with it, with the reason why not, or without a whole answer."""


@dataclass(slots=True)
class TokenStatus:
    """The process that owns the token. Times are seconds since 1970-01-01 UTC."""

    pid: int | None = None
    starts: int = 0
    started_at: float | None = None
    last_error: str = ""
    last_error_at: float | None = None
    failures: int = 0
    logins: int = 0
    last_login_at: float | None = None
    latency: Latency = field(default_factory=Latency)

    def used(self, seconds: float, logins: int, last_login: float = 0.0) -> None:
        """Note how long a request used tokens, if it did, and how often one was opened.

        ``last_login`` is when that was last done with success, 0 if never.
        """
        self.logins += logins
        self.last_login_at = last_login or self.last_login_at
        if seconds:
            self.latency.observe(seconds)

    def started(self, pid: int) -> None:
        """Note that there is a new one."""
        self.pid, self.started_at = pid, time.time()
        self.starts += 1

    def failed(self, why: str) -> None:
        """Note that it is no more."""
        self.pid, self.last_error, self.last_error_at = None, why, time.time()
        self.failures += 1

    def document(self) -> dict[str, Any]:
        """Return it as it is shown."""
        return {
            "pid": self.pid,
            "starts": self.starts,
            "started": _shown(self.started_at),
            "failures": self.failures,
            "logins": self.logins,
            "last_login": _shown(self.last_login_at),
            "latency": self.latency.document(),
            "last_error": self.last_error,
            "last_error_at": _shown(self.last_error_at),
        }


@dataclass(slots=True)
class Status:
    """The whole agent. ``requests`` counts by verb, operation, and by how it ended.

    ``latencies`` are those of requests for keys, by operation and by how they ended. ``drive_jobs``
    are those for keys that concern a drive, ``verb_jobs`` all others that do, by their verb.
    """

    started_at: float = field(default_factory=time.time)
    requests: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    latencies: defaultdict[tuple[str, str], Latency] = field(
        default_factory=lambda: defaultdict(Latency)
    )
    in_flight: int = 0
    connections: int = 0
    refused_connections: int = 0
    drive_jobs: int = 0
    verb_jobs: Counter[str] = field(default_factory=Counter)
    reloads: int = 0
    refused_reloads: int = 0
    last_backup: float | None = None
    token: TokenStatus = field(default_factory=TokenStatus)

    def finished(self, verb: str, operation: str, outcome: str, seconds: float) -> None:
        """Count a request that was answered; ``operation`` is that of getkey and of drives."""
        self.requests[verb, operation, outcome] += 1
        if verb == _GETKEY:
            self.latencies[operation, outcome].observe(seconds)

    def document(self) -> dict[str, Any]:
        """Return all of it as one JSON document."""
        requests: dict[str, dict[str, int]] = {}
        operations: dict[str, dict[str, int]] = {}
        for (verb, operation, outcome), count in sorted(self.requests.items()):
            of_verb = requests.setdefault(verb, {})
            of_verb[outcome] = of_verb.get(outcome, 0) + count
            if verb == _GETKEY:
                operations.setdefault(operation, {})[outcome] = count
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": _shown(self.started_at),
            "requests": requests,
            "operations": operations,
            "latency": {
                operation: latency.document()
                for (operation, outcome), latency in sorted(self.latencies.items())
                if outcome == GIVEN
            },
            "in_flight": self.in_flight,
            "connections": self.connections,
            "refused_connections": self.refused_connections,
            "drive_jobs": self.drive_jobs,
            "drive_verbs": self.verb_jobs.total(),
            "reloads": self.reloads,
            "refused_reloads": self.refused_reloads,
            "last_backup": _shown(self.last_backup),
            "token_process": self.token.document(),
        }


def _shown(when: float | None) -> str | None:
    """Return a time as RFC 3339 writes it, UTC."""
    if when is None:
        return None
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
