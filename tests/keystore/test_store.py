"""What can be asked of the keystore, and written to it, without a token."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from hwkm.envelope import Scheme
from hwkm.errors import KeystoreError
from hwkm.keys import Cipher
from hwkm.keystore import migrate
from hwkm.keystore.records import Event, Generation, MasterKey, Operation, Outcome, State
from hwkm.keystore.source import KeystoreSource

from . import forked
from .envelopes import add, run, sealed

if TYPE_CHECKING:
    from hwkm.keystore.engine import Keystore
    from hwkm.keystore.store import Transaction

MASTER = MasterKey(
    master_id=b"\x00\xff" * 8,
    label="hwkm-00ff",
    token="main",
    serial="0123",
    scheme=Scheme.OAEP,
    state=State.PRE_ACTIVE,
    created=10,
)


class BrokenOffError(Exception):
    """Something goes wrong within a transaction."""


def give(transaction: Transaction, key_id: bytes, at: int = 100) -> int:
    event = Event(at, "tester", Operation.READ, Outcome.OK, "V", key_id)
    number = transaction.add_event(event)
    transaction.hand_out(key_id, number)
    return number


def read_all(keystore: Keystore) -> None:
    with keystore.reading() as transaction:
        transaction.masters()
        transaction.generations("V")
        transaction.events()


@pytest.fixture(name="keystore")
def _keystore(url: str) -> Keystore:
    return migrate.create(url, "", now=1, who="tester")


class TestMasters:
    def test_comes_back_as_it_was(self, keystore: Keystore) -> None:
        finished = replace(
            MASTER,
            state=State.ACTIVE,
            attributes={"SENSITIVE": True, "KEY_TYPE": 31, "LABEL": "ä"},
            parameters={"oaep_hash": "SHA256"},
            canary=b"\x00canary\xff",
            public_key=b"\x30\x00",
        )
        with keystore.writing() as transaction:
            transaction.add_master(MASTER)
        with keystore.writing() as transaction:
            assert transaction.masters() == [MASTER]
            transaction.update_master(finished)
        with keystore.reading() as transaction:
            assert transaction.masters() == [finished]

    def test_oldest_first(self, keystore: Keystore) -> None:
        with keystore.writing() as transaction:
            for master_id, created in ((b"a", 30), (b"c", 20), (b"b", 20)):
                transaction.add_master(replace(MASTER, master_id=master_id, created=created))
            assert [master.master_id for master in transaction.masters()] == [b"b", b"c", b"a"]

    def test_never_twice(self, keystore: Keystore) -> None:
        with keystore.writing() as transaction:
            transaction.add_master(MASTER)
        with pytest.raises(KeystoreError), keystore.writing() as transaction:
            transaction.add_master(MASTER)


class TestGenerations:
    def test_comes_back_as_it_was(self, keystore: Keystore) -> None:
        envelope = sealed("V", 1)
        with keystore.writing() as transaction:
            key_id = add(transaction, envelope)
        with keystore.reading() as transaction:
            assert transaction.generation(key_id) == Generation(
                key_id, "V", 1, Cipher.AES_256_XTS, State.ACTIVE, 100
            )
            assert transaction.envelope(key_id) == envelope.encode()
            assert transaction.generation(b"?" * 12) is None
            assert transaction.envelope(b"?" * 12) is None
            assert transaction.generations("W") == []

    def test_only_the_newest_is_active(self, keystore: Keystore) -> None:
        with keystore.writing() as transaction:
            other = add(transaction, sealed("W", 1))
            for number in (1, 2, 3):
                add(transaction, sealed("V", number))
            states = [record.state.value for record in transaction.generations("V")]
            assert states == ["deactivated", "deactivated", "active"]
            found = transaction.generation(other)
            assert found is not None
            assert found.state is State.ACTIVE

    def test_an_older_one_leaves_the_active_one_alone(self, keystore: Keystore) -> None:
        with keystore.writing() as transaction:
            add(transaction, sealed("V", 2))
            add(transaction, sealed("V", 1), State.DEACTIVATED)
            states = [record.state.value for record in transaction.generations("V")]
            assert states == ["deactivated", "active"]

    def test_sorted_by_number_then_age(self, keystore: Keystore) -> None:
        order = [(10, 5), (2, 9), (2, 7), (1, 8)]
        with keystore.writing() as transaction:
            for number, created in order:
                add(transaction, sealed("V", number, created=created))
            add(transaction, sealed("A", 3))
            found = [(r.generation, r.created) for r in transaction.generations("V")]
            assert found == [(1, 8), (2, 7), (2, 9), (10, 5)]
            listed = [(r.volume, r.generation) for r in transaction.all_generations()]
            assert listed == [("A", 3), ("V", 1), ("V", 2), ("V", 2), ("V", 10)]

    def test_next_one(self, keystore: Keystore) -> None:
        with keystore.writing() as transaction:
            volume = transaction.lock_volume("V")
            assert transaction.next_generation(volume) == 1
            add(transaction, sealed("V", 7))
            add(transaction, sealed("W", 9))
            assert transaction.next_generation(volume) == 8
            assert transaction.lock_volume("V") == volume

    def test_one_key_id_never_twice(self, keystore: Keystore) -> None:
        envelope = sealed("V", 1)
        with keystore.writing() as transaction:
            add(transaction, envelope)
        with pytest.raises(KeystoreError), keystore.writing() as transaction:
            add(transaction, envelope)

    def test_names_are_taken_literally(self, keystore: Keystore) -> None:
        names = ["v", "V", "V ", "V%", "V_", "'; DROP TABLE volume; --", "Ä", "A\u0308"]
        with keystore.writing() as transaction:
            ids = {name: add(transaction, sealed(name, 1)) for name in names}
        with keystore.reading() as transaction:
            for name in names:
                assert [r.key_id for r in transaction.generations(name)] == [ids[name]]


class TestHandingOut:
    def test_order_is_that_of_the_events(self, keystore: Keystore) -> None:
        with keystore.writing() as transaction:
            first, second = (add(transaction, sealed("V", number)) for number in (1, 2))
            assert transaction.last_handed_out("V") is None
            for key_id, at in ((first, 300), (second, 200), (first, 100)):
                give(transaction, key_id, at)
                last = transaction.last_handed_out("V")
                assert last is not None
                assert (last.key_id, last.last_used) == (key_id, at)
            assert transaction.last_handed_out("W") is None

    def test_an_older_event_never_takes_the_place_of_a_newer(self, keystore: Keystore) -> None:
        with keystore.writing() as transaction:
            first, second = (add(transaction, sealed("V", number)) for number in (1, 2))
            given = [give(transaction, key_id) for key_id in (first, second, first)]
            transaction.hand_out(first, given[0])
            last = transaction.last_handed_out("V")
            assert last is not None
            assert last.key_id == first

    def test_only_for_an_event_that_there_is(self, keystore: Keystore) -> None:
        with keystore.writing() as transaction:
            key_id = add(transaction, sealed("V", 1))
        with pytest.raises(KeystoreError), keystore.writing() as transaction:
            transaction.hand_out(key_id, 4711)


class TestEnvelopes:
    def test_newest_revision_is_served(self, keystore: Keystore) -> None:
        envelopes = [sealed("V", 1, b"m1"), sealed("V", 1, b"m1", b"m2"), sealed("V", 1, b"m3")]
        with keystore.writing() as transaction:
            key_id = add(transaction, envelopes[0])
            for envelope in envelopes[1:]:
                transaction.add_envelope(key_id, envelope.encode(), 200)
                assert transaction.envelope(key_id) == envelope.encode()
            assert list(transaction.newest_envelopes()) == [(key_id, envelopes[2].encode())]
            count = text("SELECT count(*) FROM envelope")
            assert transaction.connection.execute(count).scalar() == 3

    def test_counted_by_recipient(self, keystore: Keystore) -> None:
        with keystore.writing() as transaction:
            assert transaction.envelopes_by_recipient() == Counter()
            rewrapped = add(transaction, sealed("V", 1, b"m1"))
            add(transaction, sealed("V", 2, b"m1", b"m2"))
            add(transaction, sealed("W", 1, b"m2"))
            transaction.add_envelope(rewrapped, sealed("V", 1, b"m2", b"m3").encode(), 200)
            expected = {b"m1": 1, b"m2": 3, b"m3": 1}
            assert transaction.envelopes_by_recipient() == expected

    def test_one_that_can_not_be_read_stops_the_count(self, keystore: Keystore) -> None:
        with keystore.writing() as transaction:
            key_id = add(transaction, sealed("V", 1))
            transaction.add_envelope(key_id, b"no envelope", 200)
            with pytest.raises(KeystoreError, match=key_id.hex()):
                transaction.envelopes_by_recipient()


class TestEvents:
    def test_comes_back_as_it_was(self, keystore: Keystore) -> None:
        full = Event(7, "röt", Operation.LABEL, Outcome.REFUSED, "V", b"\0" * 12, "42", "why; ä")
        bare = Event(8, "root", Operation.MASTER_CREATE, Outcome.OK)
        with keystore.writing() as transaction:
            numbers = [transaction.add_event(full), transaction.add_event(bare)]
        assert numbers[0] < numbers[1]
        with keystore.reading() as transaction:
            assert transaction.events()[1:] == [full, bare]
            assert transaction.events("V") == [full]
            assert transaction.events("W") == []

    def test_numbers_only_grow(self, keystore: Keystore) -> None:
        def one() -> None:
            for _ in range(5):
                with keystore.writing() as transaction:
                    number = transaction.add_event(Event(1, "tester", Operation.READ, Outcome.OK))
                os.write(1, f"{number}\n".encode())

        outputs = [output.decode().split() for output in forked.run_all([one] * 3)]
        assert len({number for numbers in outputs for number in numbers}) == 15
        for numbers in outputs:
            assert [int(number) for number in numbers] == sorted(map(int, numbers))

    def test_a_number_is_never_given_again(self, keystore: Keystore) -> None:
        event = Event(1, "tester", Operation.READ, Outcome.OK)
        with keystore.writing() as transaction:
            first = transaction.add_event(event)
        with suppress(BrokenOffError), keystore.writing() as transaction:
            transaction.add_event(event)
            raise BrokenOffError
        with keystore.writing() as transaction:
            assert transaction.add_event(event) > first
            assert len(transaction.events()) == 3


class TestTransactions:
    def test_an_error_undoes_all_of_it(self, keystore: Keystore) -> None:
        with suppress(BrokenOffError), keystore.writing() as transaction:
            give(transaction, add(transaction, sealed("V", 1)))
            raise BrokenOffError
        with keystore.reading() as transaction:
            assert transaction.generations("V") == []
            assert len(transaction.events()) == 1

    def test_a_reader_does_not_wait_for_a_writer(self, keystore: Keystore) -> None:
        with keystore.writing() as writer:
            add(writer, sealed("V", 1))
            with keystore.reading() as reader:
                assert reader.generations("V") == []

    def test_a_commit_is_on_disk(self, keystore: Keystore) -> None:
        asked: dict[str, dict[str, str | int]] = {
            "sqlite": {"PRAGMA journal_mode": "wal", "PRAGMA synchronous": 2},
            "postgresql": {"SHOW synchronous_commit": "on", "SHOW lock_timeout": "5s"},
        }
        with keystore.writing() as transaction:
            for question, answer in asked[keystore.engine.dialect.name].items():
                assert transaction.connection.exec_driver_sql(question).scalar() == answer


class TestDamagedRows:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE generation SET state = 'gone'",
            "UPDATE generation SET cipher = 'ROT13'",
            "UPDATE generation SET delivery = ''",
            "UPDATE master_key SET scheme = 'rot13'",
            "UPDATE master_key SET attributes = '{'",
            "UPDATE master_key SET state = 'lost'",
            "INSERT INTO event (at, who, operation, outcome, detail) VALUES (1, '', '?', 'ok', '')",
        ],
    )
    def test_name_themselves(self, keystore: Keystore, statement: str) -> None:
        with keystore.writing() as transaction:
            add(transaction, sealed("V", 1))
            transaction.add_master(MASTER)
        run(keystore, statement)
        with pytest.raises(KeystoreError, match="damaged") as caught:
            read_all(keystore)
        assert "backup" in caught.value.hint


class TestSource:
    def test_opens_once(self, keystore: Keystore, url: str) -> None:
        source = KeystoreSource(url)
        assert source.open() is source.open()
        assert not source.is_missing()

    def test_makes_one_where_there_is_none(self, url: str) -> None:
        source = KeystoreSource(url, "00ff")
        assert source.is_missing()
        made = source.open_or_create(5, "tester")
        assert source.open() is made
        assert source.open_or_create(6, "tester") is made

    def test_a_broken_one_is_not_missing(self, keystore: Keystore, url: str) -> None:
        run(keystore, "UPDATE alembic_version SET version_num = '0'")
        with pytest.raises(KeystoreError, match="revision 0"):
            KeystoreSource(url).is_missing()
