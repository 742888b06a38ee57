"""A keystore moves from one kind of database to the other, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from hwkm.errors import KeystoreError
from hwkm.keystore import migrate, schema
from hwkm.keystore.copy import copy
from hwkm.keystore.engine import Keystore, KeystoreMissingError

from . import forked
from .ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path

    from .homes import Home


def rows(keystore: Keystore) -> dict[str, list[tuple[Any, ...]]]:
    with keystore.reading() as transaction:
        return {
            name: sorted(map(tuple, transaction.connection.execute(select(table))), key=repr)
            for name, table in schema.metadata.tables.items()
        }


def test_all_rows_and_all_answers(site: Home, url: str) -> None:
    ledger = Ledger(site)
    for volume in ("A", "B", "A"):
        ledger.label(volume)
    before = rows(site.keystore())
    copied = copy(site.config().keystore, url)
    assert rows(copied) == before
    site.use_keystore(url)
    ledger.check()
    assert ledger.label("A").generation == 3
    assert ledger.label("C").generation == 1
    ledger.check_all()


def test_only_into_an_empty_database(home: Home, url: str) -> None:
    migrate.create(url, "0123456789abcdef", now=1, who="tester")
    before = rows(Keystore.open(url))
    with pytest.raises(KeystoreError, match="is not empty"):
        copy(home.config().keystore, url)
    assert rows(Keystore.open(url)) == before


def test_only_from_a_keystore(tmp_path: Path, url: str) -> None:
    with pytest.raises(KeystoreMissingError):
        copy(f"sqlite:///{tmp_path}/none.db", url)
    with pytest.raises(KeystoreMissingError):
        Keystore.open(url)


def test_killed_leaves_all_or_nothing(home: Home, tmp_path: Path) -> None:
    home.label("A")
    before = rows(home.keystore())
    target = tmp_path / "copy.db"
    outcomes = []
    for kill in forked.kills(target, tmp_path / "strace.log", ("fdatasync", "ftruncate", "unlink")):
        forked.remove(target)
        forked.run(lambda: copy(home.config().keystore, f"sqlite:///{target}"), kill)
        try:
            assert rows(Keystore.open(f"sqlite:///{target}")) == before
        except KeystoreMissingError:
            assert kill.happened
            outcomes.append("nothing")
        else:
            outcomes.append("all")
    assert set(outcomes) == {"all", "nothing"}
