"""Every call of a job fails with every code: what was given can be given again, or it was not."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.softhsm.commands import ROOT, SECONDS

from .faulty import CODES
from .matrix import Results

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.getkey.home import Home

PARTS = 2
"""How many processes share the runs."""


@pytest.mark.parametrize("code", CODES)
def test_each_answer_given_out_can_be_given_again(
    new_home: Callable[[], Home], results: dict[tuple[str, str], Results], code: str
) -> None:
    results["gcm", code] = go_through([new_home() for _ in range(PARTS)], code)


@pytest.mark.parametrize("scheme", ["hmac-kdf", "oaep"])
def test_so_it_is_with_the_other_schemes(
    new_home: Callable[[], Home], results: dict[tuple[str, str], Results], scheme: str
) -> None:
    code = "CKR_DEVICE_ERROR"
    home = new_home()
    made = home.hwkm("master", "create", "--scheme", scheme, "--replace")
    assert made.status == 0, made
    homes = [home.copy(home.path.with_name(f"{scheme}-{part}")) for part in range(PARTS)]
    results[scheme, code] = go_through(homes, code)


def go_through(homes: list[Home], code: str) -> Results:
    """Go through all calls in several processes, with an installation for each."""
    started = [start(home.config, CODES[code], part) for part, home in enumerate(homes)]
    parts = [result_of(process) for process in started]
    assert [one.failures for one in parts] == [[]] * PARTS
    calls = {one.calls for one in parts}
    assert len(calls) == 1
    return Results(
        calls.pop(),
        sum(one.runs for one in parts),
        sum(one.given for one in parts),
        sum(one.refused for one in parts),
    )


def start(config: Path, code: int, part: int) -> subprocess.Popen[str]:
    words = (str(config), str(code), str(part), str(PARTS))
    return subprocess.Popen(
        (sys.executable, "-m", "tests.faults.matrix", *words),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result_of(process: subprocess.Popen[str]) -> Results:
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, (process.returncode, out.splitlines()[-1:], err[-2000:])
    return Results(**json.loads(out.splitlines()[-1]))
