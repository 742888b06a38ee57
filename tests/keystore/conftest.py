from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import homes, postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .homes import Home
    from .postgres import Server


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """An installation that nothing is done with but copying it."""
    return homes.initialize(tmp_path_factory.mktemp("keystore") / "template")


@pytest.fixture
def home(template: Home, tmp_path: Path) -> Home:
    """An installation with a keystore in SQLite."""
    return homes.copy(template, tmp_path / "home")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with postgres.running() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, home: Home) -> Home:
    """An installation with a keystore in each kind of database."""
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("server")
        homes.move_to(home, server.new_database())
    return home


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where no keystore is yet, in each kind of database."""
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("server")
        return server.new_database()
    return f"sqlite:///{tmp_path}/keystore.db"
