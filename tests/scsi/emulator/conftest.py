from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from hwkm.scsi.emulator import PROFILES, create
from tests.scsi.emulator.host import Host

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(name="templates", scope="session")
def _templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One drive of each profile, without a cartridge: making an RSA key takes a while."""
    directory = tmp_path_factory.mktemp("templates")
    for name in PROFILES:
        create(directory / name, name)
    return directory


@pytest.fixture(name="make")
def _make(templates: Path, tmp_path: Path) -> Callable[..., Host]:
    def make(profile: str = "ibm-lto-8", cartridge: str = "HWK001L8") -> Host:
        path = tmp_path / profile
        shutil.copy(templates / profile, path)
        host = Host(path)
        if cartridge:
            host.drive.insert(cartridge)
            host.drive.forget_attentions()
        return host

    return make


@pytest.fixture(name="host")
def _host(make: Callable[..., Host]) -> Host:
    return make()
