"""Installations for the tests: made once, copied for each test that changes one."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import shim
from .home import Home
from .process import User, why_not_as_another

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="hwkm-getkey-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def shim_module(base: Path) -> Path:
    return shim.build(base)


@pytest.fixture(scope="session")
def labelled(base: Path) -> Home:
    """An installation of this user's that knows Vol-0001. Never to be changed."""
    home = Home.create(base / "labelled")
    assert home.getkey("LABEL").reply is not None
    return home


@pytest.fixture(scope="session")
def others(base: Path) -> Home:
    """The same, made by root for the user nobody."""
    if why := why_not_as_another():
        pytest.skip(why)
    home = Home.create(base / "others", User.named("nobody"))
    assert home.getkey("LABEL").reply is not None
    return home


@pytest.fixture(name="copy_of", scope="session")
def _copy_of(base: Path) -> Callable[[Home], Home]:
    numbers = itertools.count()
    return lambda home: home.copy(base / f"copy-{next(numbers)}")


@pytest.fixture
def home(labelled: Home, copy_of: Callable[[Home], Home]) -> Home:
    """An installation of this user's that knows Vol-0001, for one test."""
    return copy_of(labelled)


@pytest.fixture
def owned(others: Home, copy_of: Callable[[Home], Home]) -> Home:
    """An installation of the user nobody that knows Vol-0001, for one test."""
    return copy_of(others)


@pytest.fixture
def shimmed(home: Home, shim_module: Path) -> Home:
    """As ``home``, with the misbehaving module in front of SoftHSM."""
    home.use_shim(shim_module)
    return home
