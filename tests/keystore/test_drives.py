"""What the keystore holds of drives: proofs, wrapping keys, and names of other programs' keys."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hwkm.checks import Status, warn
from hwkm.errors import KeystoreError, PolicyError
from hwkm.keys import Cipher
from hwkm.keystore import migrate
from hwkm.keystore.copy import copy
from hwkm.keystore.records import Operation, Outcome, Proof, ProofKind
from hwkm.policy import Delivery
from hwkm.proofs import best_proofs, check_all, check_proof

from .drives import FAILED, add_tape, proof
from .envelopes import add, run, sealed

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.keystore.engine import Keystore
    from hwkm.keystore.store import Transaction

    from .postgres import Server

LOAD, PROVE, CLEAR = ProofKind.LOAD, ProofKind.PROVE, ProofKind.CLEAR
DKI = bytes.fromhex("58595a0123456789abcdef01")


@pytest.fixture(name="keystore")
def _keystore(url: str) -> Keystore:
    return migrate.create(url, "", now=1, who="tester")


@pytest.fixture(name="key_id")
def _key_id(keystore: Keystore) -> bytes:
    with keystore.writing() as transaction:
        return add_tape(transaction, "V")


def put(keystore: Keystore, *proofs: Proof) -> None:
    with keystore.writing() as transaction:
        for given in proofs:
            transaction.add_proof(given, "tester")


def name(transaction: Transaction, volume: str, called: bytes, generation: int = 1) -> bytes:
    key_id = add_tape(transaction, volume, generation)
    transaction.add_key_name(key_id, called)
    return key_id


class TestProofs:
    def test_come_back_as_they_were(self, keystore: Keystore, key_id: bytes) -> None:
        full = proof(key_id, checks=(warn("x", "ö", "y"), FAILED), encrypted=False)
        bare = Proof(key_id, 501, LOAD, encrypted=True, drive_serial="S")
        put(keystore, full, bare)
        with keystore.reading() as transaction:
            assert transaction.proofs(key_id) == [full, bare]
            assert transaction.proofs(b"?" * 12) == []

    def test_generation_is_a_drives(self, keystore: Keystore, key_id: bytes) -> None:
        with keystore.reading() as transaction:
            record = transaction.generation(key_id)
            assert record is not None
            assert (record.delivery, record.cipher) == (Delivery.DRIVE, Cipher.AES_256_GCM)

    def test_the_last_is_that_which_came_last(self, keystore: Keystore, key_id: bytes) -> None:
        """Not the one with the latest time: clocks go back."""
        with keystore.writing() as transaction:
            other = add_tape(transaction, "W")
        first, second = proof(key_id, at=900), proof(key_id, at=100)
        load = proof(key_id, LOAD)
        put(keystore, first, second, load, proof(other))
        with keystore.reading() as transaction:
            assert transaction.last_proof(key_id, PROVE) == second
            assert transaction.last_proof(key_id, LOAD) == load
            assert transaction.last_proof(key_id, CLEAR) is None
            assert transaction.newest_proofs(PROVE) == {key_id: second, other: proof(other)}
            assert transaction.newest_proofs(CLEAR) == {}

    @pytest.mark.parametrize(
        ("given", "operation", "outcome"),
        [
            (proof(b"", LOAD), Operation.DRIVE_LOAD, Outcome.OK),
            (proof(b"", LOAD, encrypted=False), Operation.DRIVE_LOAD, Outcome.FAILED),
            (proof(b"", PROVE), Operation.DRIVE_PROVE, Outcome.OK),
            (proof(b"", PROVE, checks=(FAILED,)), Operation.DRIVE_PROVE, Outcome.FAILED),
            (proof(b"", CLEAR), Operation.DRIVE_CLEAR, Outcome.OK),
            (proof(b"", CLEAR, encrypted=True), Operation.DRIVE_CLEAR, Outcome.FAILED),
            (proof(b"", CLEAR, checks=(FAILED,)), Operation.DRIVE_CLEAR, Outcome.FAILED),
        ],
    )
    def test_each_is_one_event(
        self,
        keystore: Keystore,
        key_id: bytes,
        given: Proof,
        operation: Operation,
        outcome: Outcome,
    ) -> None:
        put(keystore, replace(given, key_id=key_id))
        with keystore.reading() as transaction:
            (event,) = transaction.events("V")
        assert (event.operation, event.outcome, event.key_id) == (operation, outcome, key_id)
        assert (event.at, event.who, event.job) == (500, "tester", "7")
        assert event.detail.startswith("drive 1068000073, cartridge HE1234567890")
        assert ("algorithm: 0 instead of 1" in event.detail) == (FAILED in given.checks)

    def test_only_of_a_key_on_record(self, keystore: Keystore) -> None:
        with pytest.raises(KeystoreError, match="3f3f3f3f3f3f3f3f3f3f3f3f is on record"):
            put(keystore, proof(b"?" * 12))

    @pytest.mark.parametrize(
        "statement", ["UPDATE proof SET encrypted = 1", "DELETE FROM proof", "TRUNCATE proof"]
    )
    def test_are_kept(self, keystore: Keystore, key_id: bytes, statement: str) -> None:
        put(keystore, proof(key_id, encrypted=False))
        if "TRUNCATE" in statement and keystore.engine.dialect.name == "sqlite":
            statement = "DELETE FROM proof"  # SQLite has no other way to empty a table
        with pytest.raises(KeystoreError, match="rows are kept as they are"):
            run(keystore, statement)

    @pytest.mark.parametrize("checks", ["{", "[1]", '[{"name": ""}]', "null", '[{"status": "?"}]'])
    def test_damaged_ones_name_themselves(
        self, keystore: Keystore, key_id: bytes, checks: str
    ) -> None:
        statement = (
            "INSERT INTO proof (key_id, at, kind, encrypted, drive_serial, cartridge_serial, "
            "barcode, key_format, checks) VALUES (:key_id, 1, 'load', 1, '', '', '', '', :checks)"
        )
        run(keystore, statement, key_id=key_id, checks=checks)
        with (
            keystore.reading() as transaction,
            pytest.raises(KeystoreError, match="a proof is dam"),
        ):
            transaction.proofs(key_id)


class TestWrappingKeys:
    def test_pinned_until_another_is_accepted(self, keystore: Keystore) -> None:
        first, second = b"\x01" * 32, b"\x02" * 32
        with keystore.writing() as transaction:
            assert transaction.pinned_wrapping_key("S1") is None
            transaction.pin_wrapping_key("S1", first, 10, "root")
            transaction.pin_wrapping_key("S2", second, 11, "root")
        with keystore.writing() as transaction:
            assert transaction.pinned_wrapping_key("S1") == first
            transaction.pin_wrapping_key("S1", second, 12, "eve")
        with keystore.reading() as transaction:
            assert transaction.pinned_wrapping_key("S1") == second
            events = transaction.events()[1:]
        assert [(e.operation, e.at, e.who) for e in events] == [
            (Operation.DRIVE_PIN, 10, "root"),
            (Operation.DRIVE_PIN, 11, "root"),
            (Operation.DRIVE_PIN, 12, "eve"),
        ]
        detail = f"drive S1: wrapping key {second.hex()}, in place of {first.hex()}"
        assert events[-1].detail == detail


class TestKeyNames:
    def test_our_own_is_the_key_id(self, keystore: Keystore, key_id: bytes) -> None:
        with keystore.reading() as transaction:
            found = transaction.find_by_key_name(key_id)
            assert found is not None
            assert found.key_id == key_id
            assert transaction.key_name(key_id) is None

    @pytest.mark.parametrize(
        ("called", "on_tape"),
        [
            (DKI, DKI),
            (b"Weekly tapes", b"Weekly tapes"),
            (b"Weekly tapes", b"Weekly tapes".ljust(32)),
            (b"Weekly tapes", b"Weekly tapes".ljust(32, b"\0")),
            (DKI[:11] + b"\0", DKI[:11] + b"\0"),
            (DKI[:11] + b" ", DKI[:11] + b" "),
        ],
    )
    def test_found_as_the_tape_has_it(
        self, keystore: Keystore, called: bytes, on_tape: bytes
    ) -> None:
        with keystore.writing() as transaction:
            name(transaction, "Other", b"Daily tapes")
            key_id = name(transaction, "V", called)
        with keystore.reading() as transaction:
            found = transaction.find_by_key_name(on_tape)
            assert found is not None
            assert (found.key_id, found.volume) == (key_id, "V")
            assert transaction.key_name(key_id) == called

    @pytest.mark.parametrize("unknown", [b"", b"  ", b"\0", b"Weekly", b"weekly tapes", b"?" * 12])
    def test_unknown(self, keystore: Keystore, unknown: bytes) -> None:
        with keystore.writing() as transaction:
            name(transaction, "V", b"Weekly tapes")
            assert transaction.find_by_key_name(unknown) is None

    def test_newest_of_a_volume(self, keystore: Keystore) -> None:
        with keystore.writing() as transaction:
            keys = [name(transaction, "V", b"Weekly tapes", number) for number in (1, 2, 10)]
            found = transaction.find_by_key_name(b"Weekly tapes")
        assert found is not None
        assert found.key_id == keys[-1]

    def test_of_several_volumes_is_never_guessed(self, keystore: Keystore) -> None:
        with keystore.writing() as transaction:
            for volume in ("B", "A"):
                name(transaction, volume, b"Weekly tapes")
        with (
            keystore.reading() as transaction,
            pytest.raises(PolicyError, match="called the same: A, B"),
        ):
            transaction.find_by_key_name(b"Weekly tapes")


class TestJudging:
    def test_best_is_the_last_look_at_the_tape(self, keystore: Keystore, key_id: bytes) -> None:
        order = (proof(key_id, LOAD), proof(key_id), proof(key_id, LOAD), proof(key_id, CLEAR))
        shown = []
        for given in order:
            put(keystore, given)
            with keystore.reading() as transaction:
                shown.append(best_proofs(transaction)[key_id].kind)
        assert shown == [LOAD, PROVE, PROVE, PROVE]

    def test_clearing_alone_is_none(self, keystore: Keystore, key_id: bytes) -> None:
        put(keystore, proof(key_id, CLEAR))
        with keystore.reading() as transaction:
            assert best_proofs(transaction) == {}

    @pytest.mark.parametrize(
        ("kind", "encrypted", "status"),
        [
            (None, True, Status.WARN),
            (LOAD, True, Status.WARN),
            (PROVE, True, Status.OK),
            (PROVE, False, Status.FAIL),
        ],
    )
    def test_one(
        self,
        keystore: Keystore,
        key_id: bytes,
        kind: ProofKind | None,
        encrypted: bool,
        status: Status,
    ) -> None:
        with keystore.reading() as transaction:
            record = transaction.generation(key_id)
        assert record is not None
        given = None if kind is None else proof(key_id, kind, encrypted=encrypted)
        (found,) = check_proof(record, given)
        assert (found.name, found.status) == ("volume V, generation 1", status)
        assert ("(drive 1068000073, cartridge HE1234567890)" in found.detail) == (kind is PROVE)
        assert bool(found.advice) == (status is not Status.OK)

    def test_neither_software_nor_what_was_written_over(
        self, keystore: Keystore, key_id: bytes
    ) -> None:
        with keystore.writing() as transaction:
            add(transaction, sealed("V", 2))
            assert check_all(transaction) == []
            for record in transaction.all_generations():
                assert check_proof(record, None) == []

    def test_all_in_one_line_for_each_outcome(self, keystore: Keystore) -> None:
        with keystore.writing() as transaction:
            keys = {f"V{number}": add_tape(transaction, f"V{number}") for number in range(9)}
            transaction.add_proof(proof(keys["V3"]), "tester")
            transaction.add_proof(proof(keys["V4"], encrypted=False), "tester")
        with keystore.reading() as transaction:
            found = {check.status: check.detail for check in check_all(transaction)}
        assert list(found) == [Status.WARN, Status.OK, Status.FAIL]
        assert found[Status.WARN].startswith("V0, V1, V2, V5, V6 and 2 more: ")
        assert found[Status.OK].startswith("V3: ")
        assert found[Status.FAIL].startswith("V4: ")


def test_checks_are_stored_as_json(keystore: Keystore, key_id: bytes) -> None:
    put(keystore, proof(key_id))
    with keystore.reading() as transaction:
        stored = transaction.connection.exec_driver_sql("SELECT checks FROM proof").scalar_one()
    first = json.loads(stored)[0]
    assert first == {"name": "mode", "status": "ok", "detail": "ENCRYPT", "advice": ""}


def test_numbers_go_on_after_a_copy(keystore: Keystore, key_id: bytes, tmp_path: Path) -> None:
    put(keystore, proof(key_id), proof(key_id, LOAD))
    there = f"sqlite:///{tmp_path}/copy.db"
    url = keystore.engine.url.render_as_string(hide_password=False)
    copied = copy(url, there)
    put(copied, proof(key_id, CLEAR))
    with copied.reading() as transaction:
        assert [given.kind for given in transaction.proofs(key_id)] == [PROVE, LOAD, CLEAR]


def test_numbers_go_on_after_a_copy_to_postgresql(server: Server, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/keystore.db"
    keystore = migrate.create(url, "", now=1, who="tester")
    with keystore.writing() as transaction:
        key_id = add_tape(transaction, "V")
        transaction.pin_wrapping_key("S", b"\x01" * 32, 10, "root")
        transaction.add_key_name(key_id, DKI)
    put(keystore, proof(key_id), proof(key_id, LOAD))
    copied = copy(url, server.new_database())
    put(copied, proof(key_id, CLEAR))
    with copied.reading() as transaction:
        assert [given.kind for given in transaction.proofs(key_id)] == [PROVE, LOAD, CLEAR]
        assert transaction.pinned_wrapping_key("S") == b"\x01" * 32
        assert transaction.key_name(key_id) == DKI
