from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from hwkm.drivers.tape import TapeDriver
from hwkm.scsi.emulator import PROFILES, Drive, EmulatorTransport, create
from tests.drivers.bench import BARCODE, Bench

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(name="templates", scope="session")
def _templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("drives")
    for name in PROFILES:
        create(directory / name, name)
    return directory


@pytest.fixture(name="make")
def _make(templates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    monkeypatch.setattr("hwkm.scsi.quirks.BUSY_PAUSES", (0.0,) * 6)

    def make(
        profile: str = "ibm-lto-8", cartridge: str = BARCODE, quirks: tuple[str, ...] = ()
    ) -> Bench:
        path = tmp_path / profile
        if quirks:
            create(path, profile, quirks=quirks)
        else:
            shutil.copy(templates / profile, path)
        drive = Drive(path)
        if cartridge:
            drive.insert(cartridge)
            drive.forget_attentions()
        transport = EmulatorTransport(path)
        return Bench(path, drive, transport, TapeDriver(EmulatorTransport(path), tmp_path))

    return make


@pytest.fixture(name="bench")
def _bench(make: Callable[..., Bench]) -> Bench:
    return make()
