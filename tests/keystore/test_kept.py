"""A keystore whose connection is kept: never one to a file that is not the keystore any more."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hwkm.errors import KeystoreError
from hwkm.keystore import migrate
from hwkm.keystore.engine import KeystoreMissingError
from hwkm.keystore.records import Event, Operation, Outcome
from hwkm.keystore.source import KeystoreSource

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTALLATION = "00112233445566ff"
OTHER = "ffeeddccbbaa9988"


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return made(tmp_path / "keystore.db")


@pytest.fixture(name="kept")
def _kept(path: Path) -> Iterator[KeystoreSource]:
    source = KeystoreSource(f"sqlite:///{path}", INSTALLATION, keep=True)
    write(source)
    yield source
    source.close()


def made(path: Path, installation: str = INSTALLATION) -> Path:
    migrate.create(f"sqlite:///{path}", installation, now=1, who="tester")
    return path


def write(source: KeystoreSource) -> None:
    with source.open().writing() as transaction:
        transaction.add_event(Event(2, "tester", Operation.READ, Outcome.OK))


def write_and_fail(source: KeystoreSource) -> None:
    with source.open().writing() as transaction:
        transaction.add_event(Event(2, "tester", Operation.READ, Outcome.OK))
        raise ZeroDivisionError


def events(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM event").fetchone()
    return int(count)


def connections_to(path: Path) -> int:
    """Return how often this process has a file open."""
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found += os.path.samestat(entry.stat(), path.stat())
        except OSError:
            continue
    return found


def replace(path: Path, new: Path) -> None:
    """Put another keystore in its place, as a restored backup is put there."""
    for file in path.parent.glob("keystore.db-*"):
        file.unlink()
    new.rename(path)


def test_one_connection_serves_all(kept: KeystoreSource, path: Path) -> None:
    before = connections_to(path)
    assert before == 1
    for _ in range(5):
        write(kept)
    assert connections_to(path) == before
    assert events(path) == 7


def test_without_keep_none_stays_open(path: Path) -> None:
    source = KeystoreSource(f"sqlite:///{path}", INSTALLATION)
    write(source)
    assert connections_to(path) == 0


def test_one_inside_of_another(kept: KeystoreSource, path: Path) -> None:
    """It does not wait for the kept connection, which is in use."""
    with kept.open().reading(), kept.open().reading() as inner:
        assert inner.masters() == []
    write(kept)
    assert events(path) == 3


def test_a_restored_one(kept: KeystoreSource, path: Path, tmp_path: Path) -> None:
    replace(path, made(tmp_path / "restored.db"))
    write(kept)
    assert events(path) == 2


def test_another_installations(kept: KeystoreSource, path: Path, tmp_path: Path) -> None:
    replace(path, made(tmp_path / "restored.db", OTHER))
    with pytest.raises(KeystoreError, match=f"belongs to installation {OTHER}"):
        write(kept)
    assert events(path) == 1


def test_one_that_was_migrated_meanwhile(kept: KeystoreSource, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE later (what TEXT)")
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(KeystoreError, match="the keystore is at revision 9999"):
        write(kept)
    assert events(path) == 2


def test_one_that_is_gone(kept: KeystoreSource, path: Path) -> None:
    for file in path.parent.glob("keystore.db*"):
        file.unlink()
    with pytest.raises(KeystoreMissingError):
        write(kept)
    assert not path.exists()
    assert kept.is_missing()
    kept.open_or_create(3, "tester")
    write(kept)
    assert events(path) == 2


def test_what_fails_is_rolled_back(kept: KeystoreSource, path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_and_fail(kept)
    write(kept)
    assert events(path) == 3
