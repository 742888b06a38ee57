"""The policy: which cipher, delivery and recipients a volume gets. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TYPE_CHECKING

from hwkm.errors import ConfigError, PolicyError
from hwkm.keys import MAX_RECIPIENTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hwkm.keys import Cipher


@unique
class Delivery(StrEnum):
    """How a volume key is used."""

    SOFTWARE = "software"


@dataclass(frozen=True, slots=True)
class Rule:
    """What the volumes whose whole name matches ``volumes`` get.

    ``recipients`` are names of tokens: a volume key is wrapped to the active master key of each,
    in this order.
    """

    volumes: re.Pattern[str]
    cipher: Cipher
    delivery: Delivery
    recipients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """An ordered list of rules; the first that matches decides."""

    rules: tuple[Rule, ...]

    def rule_for(self, volume: str) -> Rule:
        """Return the rule for ``volume``.

        :raises PolicyError: if no rule matches.
        """
        for rule in self.rules:
            if rule.volumes.fullmatch(volume):
                return rule
        raise PolicyError(
            f"no [[policy]] matches the volume {volume!r}",
            hint='Add one to the configuration; volumes = ".*" at the end matches what is left',
        )


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return ``pattern`` compiled.

    :raises ConfigError: if it is not a regular expression.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"the volume pattern {pattern!r} is not a regular expression: {error}",
            hint="See https://docs.python.org/3/library/re.html for what is",
        ) from error


def check_recipients(rules: Iterable[Rule], known: Iterable[str]) -> None:
    """Check that every rule's recipients are known, and that it has one.

    :raises ConfigError: naming the first that is not.
    """
    names = set(known)
    for rule in rules:
        if wrong := _what_is_wrong(rule.recipients, names):
            raise ConfigError(
                f"the policy for {rule.volumes.pattern!r} names {wrong}",
                hint=f"The configuration has these tokens: {', '.join(sorted(names)) or 'none'}",
            )


def _what_is_wrong(recipients: tuple[str, ...], known: set[str]) -> str:
    if not recipients:
        return "no recipient"
    if len(recipients) > MAX_RECIPIENTS:
        return f"more than {MAX_RECIPIENTS} recipients"
    for place, name in enumerate(recipients):
        if name not in known:
            return f"the unknown recipient {name!r}"
        if name in recipients[:place]:
            return f"the recipient {name!r} twice"
    return ""
