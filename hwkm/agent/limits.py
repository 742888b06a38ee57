"""How long the agent waits, and how much it takes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and numbers; what they are is part of docs/agent-protocol.md."""

    answer_seconds: float = 20.0
    """After this long a request is answered, good or bad. Clients wait for 25."""
    restart_seconds: float = 30.0
    """The process that owns the token is started anew at most once in this time."""
    reload_seconds: float = 30.0
    """A token that failed is opened anew at most once in this time."""
    end_seconds: float = 10.0
    """How long requests in flight have when the agent is told to end."""
    request_seconds: float = 5.0
    """How long a request may take to come in, from its first byte on."""
    take_seconds: float = 5.0
    """How long a client may take to take its answer."""
    idle_seconds: float = 60.0
    """How long a connection may be without a request."""
    connections: int = 256
    connections_per_user: int = 64
    in_flight: int = 256
    """Requests that are worked on, those whose client has gone away too."""
    drive_jobs: int = 32
    """Requests for keys that concern a drive."""
    drive_verbs: int = 16
    """Requests of ``hwkm drive``: places of their own, so that they take none of the others."""
    changes: int = 16
    """Likewise those of changers."""
    verb_seconds: float = 600.0
    """After this long these two are answered: a tape may have to be wound. Clients wait for 615."""
    textfile_seconds: float = 15.0
    """How often the metrics are written, if they go into a file."""
    count_seconds: float = 60.0
    """How often at most the keystore is counted for them."""
