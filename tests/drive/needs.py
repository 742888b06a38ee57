"""``@pytest.mark.needs``: a test is left out where the drive lacks what it needs, and counted.

For a real drive it is skipped with the reason. Of drives that are made for the tests nobody
expects more than they can do: what they lack is not even selected, and one line counts it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.drive.capabilities import NAMES, lacking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.drive.station import Station

MADE = frozenset({"emulated", "stand-in"})
"""Sorts of drives that are made for the tests."""


class Named(Protocol):
    """Where a drive under test comes from."""

    @property
    def name(self) -> str: ...

    @property
    def sort(self) -> str: ...


@dataclass
class Ledger:
    """What was run and what was left out, for one line at the end of the run."""

    survey: Callable[[Station], dict[str, str]] = lacking
    names: frozenset[str] = NAMES
    stations: dict[str, str] = field(default_factory=dict)
    lacks: dict[str, dict[str, str]] = field(default_factory=dict)
    run: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def sift(
        self,
        config: pytest.Config,
        items: list[pytest.Item],
        under: Path,
        opened: Callable[[Named], AbstractContextManager[Station]],
    ) -> None:
        """Take out of ``items`` below ``under`` what drives that were made for the tests lack."""
        out = []
        for item in items:
            source = source_of(item) if under in item.path.parents else None
            if source is None or source.sort not in MADE:
                continue
            if source.name not in self.lacks:
                with opened(source) as station:
                    self.lacks[source.name] = self.survey(station)
            if missing := self._missing(item, source.name):
                self.left_out[missing] += 1
                out.append(item)
        if out:
            gone = {id(item) for item in out}
            items[:] = [item for item in items if id(item) not in gone]
            config.hook.pytest_deselected(items=out)

    def admit(self, item: pytest.Item, station: Station) -> None:
        """Skip a test that a drive can't pass, with the reason."""
        self.stations[station.name] = station.sort
        if station.name not in self.lacks:
            self.lacks[station.name] = self.survey(station)
        if missing := self._missing(item, station.name):
            self.left_out[missing] += 1
            why = self.lacks[station.name][missing]
            pytest.skip(f"{station.name} lacks {missing!r}: {why}")
        self.run += 1

    def _missing(self, item: pytest.Item, name: str) -> str:
        for wanted in needed(item):
            assert wanted in self.names, f"there is no capability {wanted!r}"
            if wanted in self.lacks[name]:
                return wanted
        return ""

    def line(self, head: str) -> str:
        """Return the line; "" if nothing was run."""
        if not self.stations:
            return ""
        sorts = Counter(self.stations.values())
        on = ", ".join(f"{count} {sort}" for sort, count in sorted(sorts.items()))
        left = ", ".join(f"{name} {count}" for name, count in sorted(self.left_out.items()))
        out = f"{self.left_out.total()} left out for want of: {left}" if left else "none left out"
        return f"{head}: {self.run} tests run (drives: {on}), {out}"


def needed(item: pytest.Item) -> Iterable[str]:
    """Return what a test needs."""
    return (name for mark in item.iter_markers("needs") for name in mark.args)


def source_of(item: pytest.Item) -> Named | None:
    """Return where the drive of a test comes from; None if it has none."""
    call = getattr(item, "callspec", None)
    source: Named | None = None if call is None else call.params.get("source")
    return source


def leave_clear(station: Station) -> None:
    """Leave the drive without a key, whatever the test did, and its tape at the beginning."""
    report = station.driver.clear()
    assert report.cleared, report.checks
    if report.cartridge is not None:
        station.rewind()
