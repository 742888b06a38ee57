"""docs/emulator.md says what there is, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import hwkm
from hwkm.scsi.emulator import KINDS, LIES, PROFILES, QUIRKS, Drive
from hwkm.scsi.emulator.state import KEY_FAIL_LIMIT

if TYPE_CHECKING:
    import pytest

DOCUMENT = (Path(hwkm.__file__).parent.parent / "docs" / "emulator.md").read_text()


def table(title: str) -> list[list[str]]:
    """Return the rows of the tables under a title."""
    section = DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [
        line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")
    ]
    return [[cell.strip(" |`") for cell in row] for row in rows]


def test_profiles_and_quirks() -> None:
    rows = {row[0]: row for row in table("Profiles")}
    assert set(rows) == {*PROFILES, *QUIRKS}
    for name, profile in PROFILES.items():
        assert rows[name][1] == f"{profile.vendor} {profile.product}"
        if profile.encrypts:
            first = profile.algorithms[0]
            assert rows[name][2].startswith(str(first.index))
            assert rows[name][3] == f"{first.max_ukad}, {first.max_akad}"
            assert len(rows[name][4].split(", ")) == len(profile.key_formats)


def test_lies() -> None:
    assert [row[0] for row in table("Lies")] == [*LIES]


def test_hands() -> None:
    described = set(
        re.findall(r"(\w+)\(", "".join(row[0] for row in table("In tests of one's own")))
    )
    methods = {name for name in vars(Drive) if not name.startswith("_")} - {"name"}
    assert described == methods


def test_the_limit_is_ten() -> None:
    assert KEY_FAIL_LIMIT == 10
    assert len(KINDS) == 9


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    exec(compile(example, "docs/emulator.md", "exec"), {})
    assert (tmp_path / "drive.db").exists()
