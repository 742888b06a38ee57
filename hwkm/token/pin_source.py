"""Where a PIN comes from, as a token's URI says it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique

from hwkm.errors import ConfigError


@unique
class PinKind(StrEnum):
    """Ways to come by a PIN, as written in front of the colon of ``pin-source``."""

    FILE = "file"
    CREDENTIAL = "credential"
    DESCRIPTOR = "fd"
    PROMPT = "prompt"
    PROTECTED = "protected"


@dataclass(frozen=True, slots=True)
class PinSource:
    """Where a PIN is read from.

    Written ``file:/path``, ``credential:NAME``, ``fd:N``, ``prompt``, or ``protected`` (the token
    has a PIN pad of its own).
    """

    kind: PinKind
    name: str = ""

    @classmethod
    def parse(cls, text: str | None) -> PinSource:
        """Read a URI's ``pin-source`` (RFC 7512, section 2.4). None stands for ``prompt``.

        :raises ConfigError: if it is none of the above.
        """
        if not text:
            return cls(PinKind.PROMPT)
        kind, _, name = text.partition(":")
        if text.startswith("/"):
            kind, name = "file", text
        if kind == "file" and name.startswith("///"):
            name = name[2:]  # file:///path, the form of RFC 8089 with an empty host
        known = kind in set(PinKind)
        needs_name = kind in (PinKind.FILE, PinKind.CREDENTIAL, PinKind.DESCRIPTOR)
        if not known or needs_name != bool(name) or not _plausible(kind, name):
            raise ConfigError(
                "the token's pin-source is not understood",  # it may be the PIN: not shown
                hint="Use file:/path, credential:NAME, fd:N, prompt or protected",
            )
        return cls(PinKind(kind), name)


def _plausible(kind: str, name: str) -> bool:
    return {
        "file": name.startswith("/"),
        "fd": name.isdecimal() and len(name) < 6,
        "credential": "/" not in name and not name.startswith("."),
    }.get(kind, True)
