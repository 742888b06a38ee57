from __future__ import annotations

import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.drive.needs import Ledger, leave_clear
from tests.drive.sources import Source, check_serial, make_templates, sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.drive.needs import Named
    from tests.drive.station import Station

HERE = Path(__file__).parent
LEDGER = pytest.StashKey[Ledger]()
TEMPLATES = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEDGER] = Ledger()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "source" in metafunc.fixturenames:
        found = sources(metafunc.config)
        metafunc.parametrize("source", found, ids=[one.name for one in found], scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Before the first test, make sure of the drive, and of what made ones can do."""
    if not any(HERE in item.path.parents for item in items):
        return
    for source in sources(config):
        if source.device:
            check_serial(source)
            return
    config.stash[LEDGER].sift(config, items, HERE, partial(_opened, _templates_of(config)))


def _templates_of(config: pytest.Config) -> Path:
    """Return emulated drives to be copied: making their RSA keys takes long."""
    if TEMPLATES not in config.stash:
        folder = tempfile.TemporaryDirectory(prefix="hwkm-drives-")
        config.add_cleanup(folder.cleanup)
        config.stash[TEMPLATES] = Path(folder.name)
        make_templates(config.stash[TEMPLATES])
    return config.stash[TEMPLATES]


@contextmanager
def _opened(templates: Path, source: Named) -> Iterator[Station]:
    assert isinstance(source, Source)
    with (
        tempfile.TemporaryDirectory(prefix="hwkm-survey-") as folder,
        source.station(templates, Path(folder)) as station,
    ):
        yield station


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if line := config.stash[LEDGER].line("tests/drive"):
        terminalreporter.write_line(line)


@pytest.fixture(name="station")
def _station(source: Source, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Station]:
    """The drive under test, open; afterwards it holds no key."""
    templates = tmp_path if source.device else _templates_of(request.config)
    with source.station(templates, tmp_path) as station:
        request.config.stash[LEDGER].admit(request.node, station)
        leave_clear(station)
        yield station
        leave_clear(station)
