"""``hwkm init``: a whole installation, and what becomes of a folder that is not new."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hwkm.keystore.records import State

from . import raw
from .commands import hwkm
from .installations import everything, opened

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

HOME = "a.home_with-every+allowed@sign~"


def init(home: Path | str, *options: str) -> subprocess.CompletedProcess[str]:
    return hwkm("init", "--home", str(home), "--softhsm", *options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("init") / HOME
    done = init(home)
    assert done.returncode == 0, done
    return home


def test_there_is_one_master_key_and_it_opens_its_canary(finished: Path) -> None:
    with opened(finished / "config.toml") as shop:
        [record] = shop.masters()
        assert record.state is State.ACTIVE
        shop.check(record)
        assert raw.objects(shop.token) == [("SECRET_KEY", record.master_id, record.label)]


def test_all_that_is_in_it_is_private(finished: Path) -> None:
    open_to_others = [path for path in finished.rglob("*") if path.lstat().st_mode & 0o077]
    assert open_to_others == []
    assert finished.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in finished.iterdir()} == {
        "config.toml",
        "keystore.db",
        "run",
        "so-pin",
        "softhsm2.conf",
        "tokens",
        "user-pin",
    }


def test_its_token_files_are_read_only_between_changes(finished: Path) -> None:
    modes = {path.stat().st_mode & 0o777 for path in (finished / "tokens").glob("*/*")}
    assert modes == {0o400}


def test_it_can_be_checked_at_once(finished: Path) -> None:
    done = hwkm("--config", str(finished / "config.toml"), "master", "check", "--json")
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["ok"] is True


def test_a_second_time_is_refused_and_changes_nothing(finished: Path) -> None:
    before = everything(finished)
    done = init(finished)
    assert done.returncode == 7
    assert "already holds an installation" in done.stderr
    assert everything(finished) == before


def test_a_folder_with_files_of_others_is_refused_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "letter").write_text("keep me")
    before = everything(tmp_path)
    done = init(tmp_path)
    assert done.returncode == 7
    assert "is not empty" in done.stderr
    assert everything(tmp_path) == before


def test_a_file_in_its_place_is_refused_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep me")
    done = init(tmp_path / "file")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert (tmp_path / "file").read_text() == "keep me"


@pytest.mark.parametrize(
    "name", ["with space", "per%20cent", 'quo"te', "ha#sh", "what?", "a&b", "a;b", "ü", "back\\s"]
)
def test_a_path_that_some_file_could_not_name_is_refused_before_anything_is_made(
    tmp_path: Path, name: str
) -> None:
    done = init(tmp_path / name)
    assert done.returncode == 2
    assert "path holds the character" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_and_parents_that_are_missing_are_welcome(tmp_path: Path) -> None:
    done = init(tmp_path / "deep" / "down", "--scheme", "hmac-kdf", "--json")
    assert done.returncode == 0, done
    made = json.loads(done.stdout)
    with opened(tmp_path / "deep" / "down" / "config.toml") as shop:
        [record] = shop.masters()
        assert (record.master_id.hex(), record.scheme.label) == (made["master_id"], "hmac-kdf")
        shop.check(record)
