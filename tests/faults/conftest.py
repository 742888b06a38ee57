"""Installations whose token fails on demand, and one line on what the matrix went through."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pkcs11
import pytest

from tests.getkey import shim
from tests.getkey.home import Home

from .faulty import SOURCE
from .site import opened, put_in_front

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .matrix import Results
    from .site import Site

RESULTS = pytest.StashKey["dict[tuple[str, str], Results]"]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = {}


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    by_scheme: dict[str, list[Results]] = {}
    for (scheme, _), one in config.stash[RESULTS].items():
        by_scheme.setdefault(scheme, []).append(one)
    for scheme, found in by_scheme.items():
        calls = max(one.calls for one in found)
        runs = sum(one.runs for one in found)
        given = sum(one.given for one in found)
        refused = sum(one.refused for one in found)
        terminalreporter.write_line(
            f"tests/faults: {scheme}: {calls} calls \N{MULTIPLICATION SIGN} {len(found)} codes in "
            f"{runs} runs: {given} answers given, and each given again; {refused} refused"
        )


@pytest.fixture
def results(request: pytest.FixtureRequest) -> dict[tuple[str, str], Results]:
    """What came of each scheme and code so far."""
    return request.config.stash[RESULTS]


@pytest.fixture(autouse=True)
def _clean_process() -> Iterator[None]:
    """Give the environment back as it was, and see that no test leaves a module loaded."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    assert pkcs11._loaded == {}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """An installation whose token fails on demand. Never to be changed."""
    folder = tmp_path_factory.mktemp("faults")
    home = Home.create(folder / "home")
    put_in_front(home, shim.build(folder, SOURCE))
    return home


@pytest.fixture
def new_home(made: Home, tmp_path: Path) -> Callable[[], Home]:
    """Makes copies of it."""
    numbers = itertools.count()
    return lambda: made.copy(tmp_path / f"home-{next(numbers)}")


@pytest.fixture
def home(new_home: Callable[[], Home]) -> Home:
    return new_home()


@pytest.fixture
def site(home: Home) -> Iterator[Site]:
    """One that is open, and opens its token again as often as it likes."""
    with opened(home.config) as site:
        yield site
