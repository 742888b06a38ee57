"""What pip makes of ``hwkm-getkey``: a program beside ``hwkm``, unchanged."""

from __future__ import annotations

import stat
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.getkey import process
from tests.getkey.process import PROJECT

from .lean import GIVEN, REPLY, SCRIPT, Client, agent, gives

if TYPE_CHECKING:
    from pathlib import Path

DIRECTIVE_BYTES = 127
BUILD = "import sys, hatchling.build as backend; print(backend.{}(sys.argv[1]))"


def install(kind: str, folder: Path) -> Path:
    """Build a wheel as pip does, and install it; return the folder with the programs."""
    build = [sys.executable, "-c", BUILD.format(kind), str(folder)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    into = ["--python", str(folder / "venv" / "bin" / "python3")]
    subprocess.run([*pip, *into, "install", "--no-index", "--no-deps", wheel], check=True)
    return folder / "venv" / "bin"


@pytest.mark.parametrize("kind", ["build_wheel", "build_editable"])
def test_it_lies_beside_hwkm_and_works(kind: str, tmp_path: Path) -> None:
    programs = install(kind, tmp_path)
    script = programs / "hwkm-getkey"
    assert script.read_bytes() == SCRIPT.read_bytes(), "pip changed it"
    assert stat.S_IMODE(script.stat().st_mode) & 0o777 == 0o755
    assert {"hwkm", "python3"} <= {file.name for file in programs.iterdir()}
    client = Client(programs, tmp_path / "agent.sock")
    with agent(client.socket, gives(GIVEN)):
        assert client.ask().out == REPLY
    # There is nothing but hwkm in this environment, so hwkm itself says that it lacks something.
    run = process.finish(client.start())
    assert (run.status, run.err) == (0, b"")
    assert run.out.startswith(b"error: hwkm is not installed completely")


def test_it_is_no_module(tmp_path: Path) -> None:
    build = [sys.executable, "-c", BUILD.format("build_wheel"), str(tmp_path)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith("hwkm-getkey")]
    assert [name.partition(".data/")[2] for name in names] == ["scripts/hwkm-getkey"]


def test_the_directive_fits_into_bacula_s_limit() -> None:
    words = "/opt/hwkm/bin/hwkm-getkey --config /var/lib/hwkm/config.toml "
    words += "--socket /var/lib/hwkm/run/agent.sock --device %a --job %i"
    assert len(words) <= DIRECTIVE_BYTES
