"""The man pages in docs/man are those of the commands as they are now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "man"


def _generate(directory: Path) -> None:
    subprocess.run([sys.executable, ROOT / "tools" / "manpages", directory], check=True)


def _read(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.glob("*.1")}


def test_regenerating_changes_nothing(tmp_path: Path) -> None:
    _generate(tmp_path)
    assert "hwkm.1" in _read(tmp_path)
    assert _read(tmp_path) == _read(KEPT), "run 'make man'"


def test_page_of_a_removed_command_goes_away(tmp_path: Path) -> None:
    gone, foreign = tmp_path / "hwkm-gone.1", tmp_path / "other.1"
    for path in (gone, foreign):
        path.write_text("")
    _generate(tmp_path)
    assert not gone.exists()
    assert foreign.exists()
