"""Findings of a check: one line each, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@unique
class Status(StrEnum):
    """How a check came out. Only ``FAIL`` makes the whole not ok."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: what was looked at, how it came out, what was seen, what to do."""

    name: str
    status: Status
    detail: str
    advice: str = ""


def ok(name: str, detail: str) -> Check:
    """Return a finding that needs nothing done."""
    return Check(name, Status.OK, detail)


def warn(name: str, detail: str, advice: str) -> Check:
    """Return a finding that someone should look at."""
    return Check(name, Status.WARN, detail, advice)


def fail(name: str, detail: str, advice: str) -> Check:
    """Return a finding that keeps keys from being served, or puts them at risk."""
    return Check(name, Status.FAIL, detail, advice)


def all_ok(checks: Iterable[Check]) -> bool:
    """Return whether nothing failed (warnings are allowed)."""
    return all(check.status is not Status.FAIL for check in checks)
