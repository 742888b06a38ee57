"""Figures about a whole keystore, in each kind of database."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwkm.errors import KeystoreError
from hwkm.keystore import figures, migrate
from hwkm.keystore.figures import UNKNOWN
from hwkm.keystore.records import Event, Operation, Outcome, State

from .envelopes import add, sealed
from .test_store import MASTER

OTHER = replace(MASTER, master_id=b"\x01" * 16, token="spare", label="hwkm-0101")
FIRST, SECOND, THIRD = MASTER.master_id, OTHER.master_id, b"nobody knows it!"
ONE, TWO = (MASTER.token, MASTER.label), (OTHER.token, OTHER.label)


def test_an_empty_one(url: str) -> None:
    with migrate.create(url, "", now=1, who="tester").reading() as transaction:
        found = figures.count(transaction)
    assert found.size > 0
    counted = found.volumes, found.keys, found.envelopes, found.volumes_with_one_recipient
    assert counted == (0, 0, {}, 0)


def test_recipients(url: str) -> None:
    """The newest revision counts; a volume is safe if its active key has two recipients."""
    keystore = migrate.create(url, "", now=1, who="tester")
    with keystore.writing() as transaction:
        transaction.add_master(MASTER)
        transaction.add_master(OTHER)
        add(transaction, sealed("Old", 1, FIRST))
        add(transaction, sealed("Old", 2, FIRST, SECOND))
        add(transaction, sealed("Alone", 1, SECOND))
        add(transaction, sealed("Foreign", 1, FIRST, THIRD))
        add(transaction, sealed("Inactive", 1, FIRST), State.DEACTIVATED)
        wrapped_again = add(transaction, sealed("Again", 1, FIRST))
        newer = sealed("Again", 1, FIRST, SECOND)
        transaction.add_envelope(wrapped_again, newer.encode(), 2)
    with keystore.reading() as transaction:
        found = figures.count(transaction)
    assert (found.volumes, found.keys) == (5, 6)
    assert found.envelopes == {ONE: 5, TWO: 3, (UNKNOWN, UNKNOWN): 1}
    assert found.volumes_with_one_recipient == 1
    assert found.last_backup is None


def test_the_last_backup(url: str) -> None:
    """One that failed is none; the order is that of the events, whatever the clock said."""
    keystore = migrate.create(url, "", now=1, who="tester")
    with keystore.writing() as transaction:
        for at, outcome in ((9, Outcome.OK), (5, Outcome.OK), (7, Outcome.FAILED)):
            transaction.add_event(Event(at, "tester", Operation.KEYSTORE_BACKUP, outcome))
    with keystore.reading() as transaction:
        assert figures.count(transaction).last_backup == 5


def test_one_that_is_damaged(url: str) -> None:
    keystore = migrate.create(url, "", now=1, who="tester")
    with keystore.writing() as transaction:
        key_id = add(transaction, sealed("V", 1, FIRST))
        transaction.add_envelope(key_id, b"\xff", 2)
    with (
        keystore.reading() as transaction,
        pytest.raises(KeystoreError, match="an envelope is damaged"),
    ):
        figures.count(transaction)
