"""Making a keystore, and bringing one up to this release."""

from __future__ import annotations

import os
import sqlite3
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import select, text

from hwkm.errors import ConfigError, KeystoreError
from hwkm.keystore import migrate, schema
from hwkm.keystore.engine import REVISION, Keystore, KeystoreMissingError, revision_of
from hwkm.keystore.records import EscrowKey, Event, Operation, Outcome, State
from hwkm.policy import Delivery

from . import forked
from .drives import add_tape, proof
from .envelopes import run

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.keystore.store import Transaction

    from .homes import Home
    from .postgres import Server

ADD_VOLUME = """
INSERT INTO volume (name) VALUES ('V');
INSERT INTO generation (key_id, volume_id, generation, cipher, state, delivery, created)
SELECT :key_id, volume_id, 1, 'AES_256_XTS', 'active', 'software', 1 FROM volume;
INSERT INTO envelope (key_id, revision, created, blob) VALUES (:key_id, 1, 1, :blob)
"""


def create(url: str, installation: str = "", now: int = 1) -> Keystore:
    return migrate.create(url, installation, now=now, who="tester")


def installations(keystore: Keystore) -> list[tuple[str, int]]:
    with keystore.reading() as transaction:
        rows = transaction.connection.execute(select(schema.installation)).all()
    return [(row.installation_id, row.created) for row in rows]


def add_volume(transaction: Transaction) -> None:
    """Add one volume with a generation and an envelope, by SQL alone."""
    for statement in ADD_VOLUME.split(";"):
        transaction.connection.execute(text(statement), {"key_id": b"id", "blob": b"blob"})


def first_release(url: str) -> Keystore:
    """Make a keystore of revision 0001, with a volume in it."""
    keystore = migrate.place(url)
    with keystore.writing() as transaction:
        config = Config()
        config.set_main_option("script_location", str(migrate.MIGRATIONS))
        config.attributes["connection"] = transaction.connection
        command.upgrade(config, "0001")
        transaction.set_installation("00ff", 5)
        add_volume(transaction)
        number = transaction.add_event(Event(6, "tester", Operation.LABEL, Outcome.OK, "V"))
        transaction.hand_out(b"id", number)
    return keystore


class TestCreate:
    def test_is_what_the_schema_says(self, url: str) -> None:
        with create(url).engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, schema.metadata) == []

    def test_begins_with_its_own_event(self, url: str) -> None:
        with create(url, "00ff", now=5).reading() as transaction:
            (event,) = transaction.events()
            assert (event.at, event.who) == (5, "tester")
            assert event.operation is Operation.KEYSTORE_CREATE
            assert transaction.masters() == []

    def test_twice_keeps_the_first(self, url: str) -> None:
        first = create(url, now=5)
        second = create(url, now=6)
        assert installations(second) == installations(first)
        assert installations(second)[0][1] == 5
        with second.reading() as transaction:
            assert len(transaction.events()) == 1

    def test_never_takes_another_installations(self, url: str) -> None:
        create(url, "1111111111111111")
        with pytest.raises(KeystoreError, match="belongs to installation 1111111111111111"):
            create(url, "2222222222222222")

    def test_killed_at_any_write_leaves_all_or_nothing(self, tmp_path: Path) -> None:
        database = tmp_path / "keystore.db"
        url = f"sqlite:///{database}"
        deaths, made = 0, 0
        for kill in forked.kills(database, tmp_path / "strace.log"):
            forked.remove(database)
            forked.run(lambda: create(url, "00ff"), kill)
            deaths += kill.happened
            made += self._whole(url)
            assert installations(create(url, "00ff", now=2))[0][0] == "00ff"
        assert deaths > 50
        assert 0 < made < deaths

    @staticmethod
    def _whole(url: str) -> bool:
        """Return whether there is a whole keystore; fail if there is a part of one."""
        try:
            keystore = Keystore.open(url, "00ff")
        except KeystoreMissingError:
            return False
        assert keystore.problems() == []
        with keystore.reading() as transaction:
            assert len(transaction.events()) == 1
        return True

    # Two that meet at the wrong moment are rare: one round in fifty, before they waited.
    @pytest.mark.parametrize("_round", range(10))
    def test_at_once_in_many_processes(self, url: str, _round: int) -> None:
        def make() -> None:
            os.write(1, installations(create(url))[0][0].encode())

        made = forked.run_all([make] * 6)
        assert [len(name) for name in made] == [16] * 6
        assert len(set(made)) == 1


class TestOpen:
    def test_missing(self, url: str) -> None:
        with pytest.raises(KeystoreMissingError, match="no keystore"):
            Keystore.open(url)

    def test_somebody_elses_database(self, url: str) -> None:
        keystore = create(url)
        run(keystore, "DROP TABLE alembic_version")
        with pytest.raises(KeystoreError, match="something else") as caught:
            Keystore.open(url)
        assert not isinstance(caught.value, KeystoreMissingError)

    @pytest.mark.parametrize("revision", ["0000", "9999", "not one of ours"])
    def test_of_another_release(self, url: str, revision: str) -> None:
        run(create(url), f"UPDATE alembic_version SET version_num = '{revision}'")
        with pytest.raises(
            KeystoreError, match=f"revision {revision}, this release needs {REVISION}"
        ):
            Keystore.open(url)

    def test_of_another_installation(self, url: str) -> None:
        create(url, "1111111111111111")
        with pytest.raises(KeystoreError, match="to 2222222222222222") as caught:
            Keystore.open(url, "2222222222222222")
        assert "restore the right backup" in caught.value.hint

    @pytest.mark.parametrize(
        "url", ["keystore.db", "sqlite://", "sqlite:///relative.db", "mysql://host/name"]
    )
    def test_no_place_for_a_keystore(self, url: str) -> None:
        with pytest.raises((ConfigError, KeystoreError), match=r"URL|kind 'mysql'"):
            Keystore.open(url)


class TestMigrate:
    def test_current_one_stays_as_it_is(self, url: str) -> None:
        before = installations(create(url))
        assert migrate.migrate(url) == REVISION
        assert installations(Keystore.open(url)) == before

    def test_nothing_there(self, url: str, tmp_path: Path) -> None:
        with pytest.raises(KeystoreError, match="no keystore"):
            migrate.migrate(url)
        assert list(tmp_path.iterdir()) == []

    def test_of_a_newer_release(self, url: str) -> None:
        run(create(url), "UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(KeystoreError, match="9999") as caught:
            migrate.migrate(url)
        assert "newer release" in caught.value.hint

    def test_command(self, site: Home) -> None:
        assert site.hwkm("keystore", "migrate") == (0, f"The keystore is at revision {REVISION}.\n")
        run(site.keystore(), "UPDATE alembic_version SET version_num = '9999'")
        status, output = site.hwkm("keystore", "migrate")
        assert status == 6
        assert "9999" in output


class TestFromTheFirstRelease:
    """A keystore of revision 0001, with all that there can be in it."""

    @pytest.fixture(name="keystore")
    def _keystore(self, url: str) -> Keystore:
        return first_release(url)

    def test_is_refused_until_it_is_migrated(self, keystore: Keystore, url: str) -> None:
        with pytest.raises(KeystoreError, match="revision 0001, this release needs") as caught:
            Keystore.open(url)
        assert "hwkm keystore migrate" in caught.value.hint

    def test_keeps_all_that_is_in_it(self, keystore: Keystore, url: str) -> None:
        before = self._rows(keystore)
        assert migrate.migrate(url) == REVISION
        migrated = Keystore.open(url, "00ff")
        assert self._rows(migrated) == before
        assert migrated.problems() == []
        with migrated.reading() as transaction:
            (record,) = transaction.all_generations()
            assert (record.volume, record.last_used) == ("V", 6)
            assert record.delivery is Delivery.SOFTWARE
            assert transaction.proofs(record.key_id) == []
            assert transaction.pinned_wrapping_key("S") is None
            assert transaction.escrow_keys() == []

    def test_is_then_what_the_schema_says(self, keystore: Keystore, url: str) -> None:
        migrate.migrate(url)
        with keystore.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, schema.metadata) == []

    def test_works_on(self, keystore: Keystore, url: str) -> None:
        migrate.migrate(url)
        with Keystore.open(url).writing() as transaction:
            key_id = add_tape(transaction, "V", 2)
            transaction.add_proof(proof(key_id), "tester")
        with pytest.raises(KeystoreError, match="rows are kept as they are"):
            run(keystore, "DELETE FROM proof")
        with Keystore.open(url).reading() as transaction:
            assert [e.operation for e in transaction.events("V")] == [
                Operation.LABEL,
                Operation.DRIVE_PROVE,
            ]

    def test_by_the_command(self, site: Home) -> None:
        for table in ("proof", "drive", "key_name", "escrow_key"):
            run(site.keystore(), f"DROP TABLE {table}")
        run(site.keystore(), "UPDATE alembic_version SET version_num = '0001'")
        status, output = site.hwkm("volume", "list")
        assert status == 6
        assert "hwkm keystore migrate" in output
        assert site.hwkm("keystore", "migrate") == (0, f"The keystore is at revision {REVISION}.\n")
        assert site.hwkm("volume", "list")[0] == 0

    def test_killed_at_any_write_is_the_one_or_the_other(self, tmp_path: Path) -> None:
        database = tmp_path / "keystore.db"
        url = f"sqlite:///{database}"
        revisions = []
        for kill in forked.kills(database, tmp_path / "strace.log", ("fdatasync", "ftruncate")):
            forked.remove(database)
            keystore = first_release(url)
            before = self._rows(keystore)
            forked.run(lambda: migrate.migrate(url), kill)
            assert self._rows(keystore) == before
            assert keystore.problems() == []
            with keystore.reading() as transaction:
                revisions.append(revision_of(transaction.connection))
            assert migrate.migrate(url) == REVISION
        assert set(revisions) == {"0001", REVISION}

    @staticmethod
    def _rows(keystore: Keystore) -> list[list[tuple[object, ...]]]:
        tables = ("installation", "volume", "generation", "envelope", "event")
        with keystore.reading() as transaction:
            query = transaction.connection.exec_driver_sql
            return [[tuple(row) for row in query(f"SELECT * FROM {name}")] for name in tables]


class TestFromTheSecondRevision:
    """A keystore of revision 0002, which had no escrow keys."""

    def test_keeps_all_that_is_in_it(self, url: str) -> None:
        keystore = create(url)
        with keystore.writing() as transaction:
            add_volume(transaction)
            key_id = add_tape(transaction, "W", 2)
            transaction.add_proof(proof(key_id), "tester")
        before = self._rows(keystore)
        run(keystore, "DROP TABLE escrow_key")
        run(keystore, "UPDATE alembic_version SET version_num = '0002'")
        with pytest.raises(KeystoreError, match="revision 0002, this release needs"):
            Keystore.open(url)
        assert migrate.migrate(url) == REVISION
        migrated = Keystore.open(url)
        assert self._rows(migrated) == before
        assert migrated.problems() == []
        with migrated.writing() as transaction:
            assert transaction.escrow_keys() == []
            public = b"\x01" * 1216
            key = EscrowKey(sha256(public).digest(), public, State.ACTIVE, 7, "tester")
            transaction.add_escrow_key(key)
            assert transaction.escrow_keys() == [key]

    def test_is_then_what_the_schema_says(self, url: str) -> None:
        keystore = create(url)
        run(keystore, "DROP TABLE escrow_key")
        run(keystore, "UPDATE alembic_version SET version_num = '0002'")
        migrate.migrate(url)
        with keystore.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, schema.metadata) == []

    @staticmethod
    def _rows(keystore: Keystore) -> list[list[tuple[object, ...]]]:
        tables = ("installation", "volume", "generation", "envelope", "proof", "event")
        with keystore.reading() as transaction:
            query = transaction.connection.exec_driver_sql
            return [[tuple(row) for row in query(f"SELECT * FROM {name}")] for name in tables]


class TestProtection:
    """What the database itself refuses, whoever asks."""

    @pytest.fixture(name="keystore")
    def _keystore(self, url: str) -> Keystore:
        keystore = create(url)
        with keystore.writing() as transaction:
            add_volume(transaction)
        return keystore

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE event SET at = 0",
            "DELETE FROM event",
            "UPDATE envelope SET revision = 2",
        ],
    )
    def test_rows_are_kept(self, keystore: Keystore, statement: str) -> None:
        with pytest.raises(KeystoreError, match="rows are kept as they are"):
            run(keystore, statement)

    @pytest.mark.parametrize(
        "statement",
        [
            "DELETE FROM generation",
            "DELETE FROM volume",
            "UPDATE generation SET volume_id = 99",
            "UPDATE generation SET handed_out = 99",
        ],
    )
    def test_nothing_points_at_nothing(self, keystore: Keystore, statement: str) -> None:
        with pytest.raises(KeystoreError, match=r"(?i)foreign key"):
            run(keystore, statement)

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE generation SET created = 'today'",
            "UPDATE generation SET generation = NULL",
            "UPDATE installation SET created = 'x'",
            "INSERT INTO master_key (master_id) VALUES (NULL)",
            "INSERT INTO volume (name) VALUES ('V')",
        ],
    )
    def test_wrong_values(self, keystore: Keystore, statement: str) -> None:
        with pytest.raises(KeystoreError):
            run(keystore, statement)

    @pytest.mark.parametrize("table", ["event", "envelope", "proof"])
    def test_postgresql_tables_are_not_emptied(self, server: Server, table: str) -> None:
        keystore = create(server.new_database())
        with pytest.raises(KeystoreError, match="rows are kept as they are"):
            run(keystore, f"TRUNCATE {table} CASCADE")

    def test_all_sqlite_tables_are_strict(self, tmp_path: Path) -> None:
        create(f"sqlite:///{tmp_path}/keystore.db")
        with sqlite3.connect(tmp_path / "keystore.db") as connection:
            listed = connection.execute("PRAGMA table_list").fetchall()
        strict = {name: bool(is_strict) for _, name, _, _, _, is_strict in listed}
        assert {name for name in schema.metadata.tables if not strict[name]} == set()
        connection.close()
