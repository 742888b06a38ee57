"""Tokens for the tests here: a new SoftHSM for each, and one of every module for all of them."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pkcs11
import pytest

from tests.modules import softhsm
from tests.modules.starters import STARTERS

from .sites import Site, make_site
from .spy import Spied, watch
from .workshop import USED, Master, master_key, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _clean_process() -> Iterator[None]:
    """Give the environment back as it was, and see that no test leaves a module loaded."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    assert pkcs11._loaded == {}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A new SoftHSM token for this test alone."""
    with softhsm.running(tmp_path) as token:
        yield make_site(token, tmp_path)


@pytest.fixture
def spied(site: Site, tmp_path: Path) -> Spied:
    """The same token, with every call into its module written down."""
    return watch(site, tmp_path / "calls")


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Site]]:
    """Gives one token of each module by the module's name; it runs until all tests are done."""
    sites: dict[str, Site] = {}
    with ExitStack() as stack:

        def start(name: str) -> Site:
            if name not in sites:
                folder = tmp_path_factory.mktemp(name)
                sites[name] = make_site(stack.enter_context(STARTERS[name](folder)), folder)
            return sites[name]

        yield start


@pytest.fixture(params=STARTERS)
def any_site(request: pytest.FixtureRequest, running: Callable[[str], Site]) -> Site:
    """One token of each module, shared: a test here leaves no keys behind."""
    name: str = request.param
    return running(name)


@pytest.fixture(scope="module", params=USED, ids=name_of)
def used(
    request: pytest.FixtureRequest,
    running: Callable[[str], Site],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Master]:
    """A master key of each scheme on each module that has it."""
    name, scheme = request.param
    with master_key(running(name), scheme, tmp_path_factory.mktemp("used")) as made:
        yield made
