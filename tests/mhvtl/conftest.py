from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.drive.capabilities import NAMES
from tests.drive.needs import Ledger, leave_clear
from tests.mhvtl.find import find_mhvtl
from tests.mhvtl.library import Library
from tests.mhvtl.sources import STAND_INS, Found, Made, Source
from tests.mhvtl.traits import TRAITS, lacking_on_mhvtl, model_behind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.drive.needs import Named
    from tests.drive.station import Station
    from tests.mhvtl.models import Model

HERE = Path(__file__).parent
LEDGER = pytest.StashKey[Ledger]()
FOUND = pytest.StashKey[list[Found]]()
TROUBLES = pytest.StashKey[list[str]]()
NONE_HERE = "not run: no mhvtl drive on this machine (see docs/testing-drives.md)"


def found_in(config: pytest.Config) -> list[Found]:
    """Return mhvtl's drives on this machine."""
    if FOUND not in config.stash:
        units, troubles = find_mhvtl()
        library = Library([one for one in units if one.node.changer])
        drives = [one for one in units if not one.node.changer and one.identity.serial]
        config.stash[FOUND] = [Found(one, library) for one in drives]
        config.stash[TROUBLES] = troubles
        config.add_cleanup(library.give_back)
    return config.stash[FOUND]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEDGER] = Ledger(lacking_on_mhvtl, NAMES | TRAITS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "source" in metafunc.fixturenames:
        every: list[Source] = [*found_in(metafunc.config), *STAND_INS]
        metafunc.parametrize("source", every, ids=[one.name for one in every], scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[LEDGER].sift(config, items, HERE, _opened)


@contextmanager
def _opened(source: Named) -> Iterator[Station]:
    assert isinstance(source, Made)
    with (
        tempfile.TemporaryDirectory(prefix="hwkm-survey-") as folder,
        source.station(Path(folder)) as station,
    ):
        yield station


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if FOUND not in config.stash:
        return  # none of these tests was asked for
    if not config.stash[FOUND]:
        terminalreporter.write_line(f"tests/mhvtl: {NONE_HERE}")
    for trouble in config.stash[TROUBLES]:
        terminalreporter.write_line(f"tests/mhvtl: left out: {trouble}")
    if line := config.stash[LEDGER].line("tests/mhvtl"):
        terminalreporter.write_line(line)


@pytest.fixture(name="station")
def _station(source: Source, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Station]:
    """The drive under test, open; afterwards it holds no key."""
    with source.station(tmp_path) as station:
        request.config.stash[LEDGER].admit(request.node, station)
        leave_clear(station)
        yield station
        leave_clear(station)


@pytest.fixture(name="model")
def _model(station: Station) -> Model:
    """What was measured of this kind of drive."""
    found = model_behind(station)
    assert found is not None, "the test needs 'measured'"
    return found
