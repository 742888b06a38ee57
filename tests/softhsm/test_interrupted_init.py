"""``hwkm init`` killed at many points: the next run makes one whole installation of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from hwkm.initialize import initialize
from hwkm.keystore.records import State

from . import raw
from .commands import HWKM
from .installations import opened
from .interrupt import ALL_CHANGES, kill, spread, trace
from .workshop import CALLER

if TYPE_CHECKING:
    from pathlib import Path

POINTS = 12
AT_ONCE = 2


def command(home: Path) -> tuple[str, ...]:
    return (*HWKM, "init", "--home", str(home), "--softhsm")


def test_killed_anywhere_the_next_run_ends_well(tmp_path: Path) -> None:
    points = spread(trace(command(tmp_path / "whole"), ALL_CHANGES), POINTS)
    homes = [tmp_path / f"killed-at-{point}" for point in points]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda home, point: kill(command(home), point), homes, points))
    finished = [home for home in homes if (home / "config.toml").exists()]
    assert len(finished) < 3  # only the last points come after it
    for home in homes:
        if home not in finished:
            initialize(home, None, CALLER)
        with opened(home / "config.toml") as shop:
            [record] = shop.masters()
            assert record.state is State.ACTIVE
            shop.check(record)
            assert raw.objects(shop.token) == [("SECRET_KEY", record.master_id, record.label)]
