"""The policy: which cipher, delivery and recipients a volume gets. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TYPE_CHECKING

from hwkm.errors import ConfigError, PolicyError
from hwkm.keys import MAX_RECIPIENTS, Cipher

if TYPE_CHECKING:
    from collections.abc import Iterable


@unique
class Delivery(StrEnum):
    """How a volume key is used: by the Storage Daemon, or by the tape drive."""

    SOFTWARE = "software"
    DRIVE = "drive"

    @classmethod
    def of(cls, cipher: Cipher) -> Delivery:
        """Return how a key for ``cipher`` is used: tape drives have AES-256-GCM, Bacula has XTS.

        So an envelope alone tells, for ever, who encrypted the volume that carries it.
        """
        return cls.SOFTWARE if cipher.is_xts else cls.DRIVE


@dataclass(frozen=True, slots=True)
class Rule:
    """What the volumes whose whole name matches ``volumes`` get.

    ``recipients`` are names of tokens: a volume key is wrapped to the active master key of each,
    in this order. ``cipher`` is that of software encryption; a drive has only one.
    ``delivery`` is None where the drive's ability decides.
    """

    volumes: re.Pattern[str]
    cipher: Cipher
    delivery: Delivery | None
    recipients: tuple[str, ...]

    def cipher_for(self, volume: str, delivery: Delivery, override: Cipher | None = None) -> Cipher:
        """Return the cipher of a new key of ``volume``; ``override`` takes the rule's place.

        :raises PolicyError: if the rule wants another delivery, or the cipher is not for this one.
        """
        if self.delivery not in (None, delivery):
            raise PolicyError(
                f"the policy wants volume {volume!r} encrypted by {_BY[self.delivery]}, not by "
                f"{_BY[delivery]}",
                hint='Change delivery in its [[policy]]; "auto" lets the drive\'s ability decide',
            )
        usual = self.cipher if delivery is Delivery.SOFTWARE else Cipher.AES_256_GCM
        cipher = override or usual
        if Delivery.of(cipher) is not delivery:
            raise PolicyError(f"{cipher.name} is not for encryption by {_BY[delivery]}")
        return cipher


_BY = {Delivery.SOFTWARE: "software", Delivery.DRIVE: "the tape drive"}


@dataclass(frozen=True, slots=True)
class Policy:
    """An ordered list of rules; the first that matches decides."""

    rules: tuple[Rule, ...]

    @property
    def uses_drives(self) -> bool:
        """Whether there are volumes that a drive may encrypt."""
        return any(rule.delivery is not Delivery.SOFTWARE for rule in self.rules)

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
