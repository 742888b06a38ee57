"""The options that name a real drive, tried on an emulated one in its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hwkm.scsi.emulator import Drive, create

if TYPE_CHECKING:
    from _pytest.config import ExitCode

ROOT = Path(__file__).parents[2]
SERIAL = "10WT000005"
ONE_TEST = "test_load.py::test_proof"


@pytest.fixture
def drive(tmp_path: Path) -> Drive:
    return create(tmp_path / "drive", "ibm-lto-5", cartridge="HWK001L5")


def run(test: str, *options: str) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"tests/drive/{test}")
    return subprocess.run(
        [*words, *options], cwd=ROOT, capture_output=True, text=True, check=False, timeout=200
    )


def usage_error() -> ExitCode:
    return pytest.ExitCode.USAGE_ERROR


def test_never_without_the_serial_number(drive: Drive) -> None:
    done = run(ONE_TEST, "--drive", f"emulator:{drive.path}")
    assert done.returncode == usage_error()
    assert "the cartridge in that drive is overwritten" in done.stderr


def test_another_drive_than_the_one_that_was_meant(drive: Drive) -> None:
    before = drive.state()
    done = run(ONE_TEST, "--drive", f"emulator:{drive.path}", "--serial", "10WT000006")
    assert done.returncode == usage_error()
    assert f"has the serial number {SERIAL} and not 10WT000006" in done.stdout + done.stderr
    assert drive.state() == before


def test_the_one_that_was_meant(drive: Drive) -> None:
    done = run(ONE_TEST, "--drive", f"emulator:{drive.path}", "--serial", SERIAL)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    assert drive.blocks("HWK001L5")
    assert drive.state()["shared"]["encryption_mode"] == 0


def test_what_it_lacks_is_named(drive: Drive) -> None:
    words = ("--drive", f"emulator:{drive.path}", "--serial", SERIAL)
    done = run("test_load.py::test_a_key_on_its_way_is_wrapped", *words)
    assert done.returncode == 0, done.stdout
    assert "lacks 'wrapped': it takes no wrapped keys" in done.stdout
    assert "0 tests run (drives: 1 real), 1 left out for want of: wrapped 1" in done.stdout


def test_nothing_is_unloaded_unless_it_may_be(drive: Drive) -> None:
    words = ("--drive", f"emulator:{drive.path}", "--serial", SERIAL)
    test = "test_parameters.py::test_the_key_leaves_with_the_cartridge"
    assert "--may-unload" in run(test, *words).stdout
    assert "1 passed" in run(test, *words, "--may-unload").stdout
