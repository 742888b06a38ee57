"""A keystore that can't be written, can't be read, or isn't one."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from hwkm.errors import HwkmError, KeystoreError
from hwkm.keystore.engine import Keystore, KeystoreMissingError

from . import forked, homes, postgres
from .homes import CALLER, OBEYING_MODES
from .ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hwkm.manager import Handout, KeyManager

    from .homes import Answer, Home
    from .postgres import Server

VOLUME = "Vol-0001"
PAGE = 4096
ANSWER_SECONDS = 20


def generations(home: Home) -> int:
    with home.keystore().reading() as transaction:
        return len(list(transaction.all_generations()))


@contextmanager
def small_disk(disk: Path, size: int) -> Iterator[Path]:
    """Mount a file system of ``size`` bytes at ``disk``, if this process may."""
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system can't be mounted: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(disk: Path, pages: int) -> None:
    """Take all room on ``disk`` but that for so many pages."""
    free = shutil.disk_usage(disk).free
    (disk / "filling").write_bytes(bytes(max(0, free - pages * PAGE)))


class TestFullDisk:
    @pytest.fixture(name="disk")
    def _disk(self, tmp_path: Path) -> Iterator[Path]:
        with small_disk(tmp_path / "disk", 256 * 1024) as disk:
            yield disk

    @pytest.fixture(name="full")
    def _full(self, home: Home, disk: Path) -> Home:
        """A home whose keystore is on the small disk."""
        shutil.move(home.database, disk / "keystore.db")
        home.use_keystore(f"sqlite:///{disk}/keystore.db")
        return home

    def test_at_every_amount_of_room(self, full: Home, disk: Path) -> None:
        ledger = Ledger(full)
        given = ledger.label(VOLUME)
        errors = set()
        for pages in range(40):
            before = generations(full)
            fill(disk, pages)
            labelled = ledger.take("LABEL", forked.ask(full, "LABEL", VOLUME))
            again = ledger.take("READ", forked.ask(full, "READ", VOLUME, given.label))
            (disk / "filling").unlink()
            assert generations(full) - before == labelled.has_key
            assert again.key == given.key if again.has_key else again.error
            errors |= {answer.error for answer in (labelled, again) if answer.error}
            ledger.check()
            if labelled.has_key and again.has_key:
                break
        assert pages > 3
        assert labelled.has_key
        assert [error for error in errors if "Make room on the disk" not in error] == []
        for kind in ("disk is full", "disk I/O error"):
            assert any(kind in error for error in errors), f"{kind!r} was not met"
        ledger.check_all()

    def test_a_new_one_finds_no_room(self, full: Home, disk: Path) -> None:
        given = full.ask("LABEL", VOLUME)
        (disk / "keystore.db").unlink()
        for pages in (0, 1, 10, 20):
            fill(disk, pages)
            refused = full.ask("READ", VOLUME, given.label)
            assert "Make room" in refused.error
            (disk / "filling").unlink()
        assert full.ask("READ", VOLUME, given.label).key == given.key


class TestReadOnly:
    """As the owner, who has no more rights than the modes say."""

    @pytest.mark.parametrize("kind", ["file", "folder", "both"])
    def test_no_key_without_its_event(self, home: Home, kind: str) -> None:
        (home.folder / "keys").mkdir()
        database = home.folder / "keys" / "keystore.db"
        shutil.move(home.database, database)
        home.use_keystore(f"sqlite:///{database}")
        ledger = Ledger(home)
        given = ledger.label(VOLUME)
        modes = {database: 0o600, database.parent: 0o700}
        for path, mode in modes.items():
            if kind in ("both", "folder" if path.is_dir() else "file"):
                path.chmod(mode & 0o555)
        for operation, label in (("LABEL", b""), ("READ", given.label)):
            refused = home.ask(operation, VOLUME, label, OBEYING_MODES)
            assert "must belong to the user that hwkm runs as" in refused.error
        for path, mode in modes.items():
            path.chmod(mode)
        assert generations(home) == 1
        assert ledger.label(VOLUME).generation == 2
        ledger.check_all()


class TestNoDatabase:
    @pytest.mark.parametrize("content", [b"not a database\n" * 100, b"\0" * 8192, b"SQLite format"])
    def test_is_refused(self, home: Home, content: bytes) -> None:
        given = home.ask("LABEL", VOLUME)
        home.database.write_bytes(content)
        for request in (("LABEL", VOLUME), ("READ", VOLUME, given.label), ("READ", VOLUME)):
            refused = home.ask(*request)
            assert "file is not a database" in refused.error
            assert "Restore it from its backup" in refused.error
        assert home.database.read_bytes() == content

    def test_an_empty_file_is_a_missing_keystore(self, home: Home) -> None:
        given = home.ask("LABEL", VOLUME)
        home.database.write_bytes(b"")
        with pytest.raises(KeystoreMissingError):
            home.label(VOLUME)
        assert home.ask("READ", VOLUME, given.label).key == given.key

    def test_a_folder(self, home: Home) -> None:
        home.database.unlink()
        home.database.mkdir()
        with pytest.raises(KeystoreError, match="unable to open") as caught:
            home.label(VOLUME)
        assert "belong to the user" in caught.value.hint


class TestDamagedFile:
    """Whatever is wrong in the file: the right key, or none and a reason."""

    VOLUMES = tuple(f"Vol-{number:04}" for number in range(20))

    @pytest.fixture(name="labels")
    def _labels(self, home: Home) -> dict[str, Handout]:
        with home.manager() as manager:
            return {name: manager.label(name, CALLER) for name in self.VOLUMES}

    @pytest.mark.parametrize("pages", [1, 5, 12, 17])
    def test_cut_off(self, home: Home, labels: dict[str, Handout], pages: int) -> None:
        whole = home.database.read_bytes()
        assert len(whole) > pages * PAGE
        home.database.write_bytes(whole[: pages * PAGE])
        assert set(self._check(home, labels)) == {"KeystoreError"}
        with pytest.raises(KeystoreError, match="malformed") as caught:
            home.label(VOLUME)
        assert "move it away" in caught.value.hint
        home.database.unlink()
        for name, handout in labels.items():
            assert home.read(name, handout.envelope.encode()).key == handout.key

    def test_overwritten_anywhere(self, home: Home, labels: dict[str, Handout]) -> None:
        whole = home.database.read_bytes()
        chance = random.Random(7)
        outcomes: dict[str, int] = {}
        for _ in range(150):
            size = chance.choice((1, 4, 64, 512, PAGE))
            at = chance.randrange(100, len(whole) - size)
            damage = chance.choice((bytes(size), chance.randbytes(size), b"\xff" * size))
            home.database.write_bytes(whole[:at] + damage + whole[at + size :])
            for outcome in self._check(home, labels):
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
        assert outcomes["KeystoreError"] > 50
        assert outcomes["key"] > 50

    def _check(self, home: Home, labels: dict[str, Handout]) -> list[str]:
        """Read some volumes, with their labels and without; return how it went."""
        names = random.Random(len(labels)).sample(self.VOLUMES, 3)
        with home.manager() as manager:
            return [
                self._outcome(manager, labels[name], label)
                for name in names
                for label in (labels[name].envelope.encode(), None)
            ]

    @staticmethod
    def _outcome(manager: KeyManager, right: Handout, label: bytes | None) -> str:
        try:
            handout = manager.read(right.envelope.header.volume, label, CALLER)
        except HwkmError as error:
            return type(error).__name__ if error.hint else f"{error} without advice"
        assert handout.key == right.key
        return "key"


def test_a_copy_without_its_wal_is_older(home: Home, tmp_path: Path) -> None:
    """Why docs/keystore.md says not to copy the file while hwkm runs."""
    first = home.label(VOLUME)
    reader = sqlite3.connect(home.database)
    reader.execute("PRAGMA journal_mode").fetchone()
    reader.execute("SELECT 1 FROM event").fetchone()
    second = home.label(VOLUME)
    copied = tmp_path / "keystore.db"
    shutil.copy(home.database, copied)
    reader.close()
    home.use_keystore(f"sqlite:///{copied}")
    assert generations(home) == 1
    assert home.read(VOLUME).key == first.key
    assert home.read(VOLUME, second.envelope.encode()).key == second.key
    assert generations(home) == 2


class TestLocked:
    """Somebody else has the keystore for longer than hwkm waits."""

    def test_sqlite(self, home: Home) -> None:
        self._check(home, "BEGIN EXCLUSIVE")

    def test_sqlite_by_an_exclusive_user(self, home: Home) -> None:
        self._check(home, "PRAGMA locking_mode=EXCLUSIVE; BEGIN EXCLUSIVE")

    def _check(self, home: Home, statements: str) -> None:
        ledger = Ledger(home)
        given = ledger.label(VOLUME)
        other = sqlite3.connect(home.database, isolation_level=None)
        other.executescript(statements)
        other.execute("UPDATE generation SET created = created")
        refused = self._ask(home, "READ", VOLUME, given.label)
        other.execute("ROLLBACK")
        other.close()
        assert "locked" in refused.error
        assert "Another process" in refused.error
        assert ledger.label(VOLUME).generation == 2
        ledger.check_all()

    def test_postgresql(self, home: Home, server: Server) -> None:
        homes.move_to(home, server.new_database())
        ledger = Ledger(home)
        given = ledger.label(VOLUME)
        with home.keystore().writing() as transaction:
            transaction.lock_volume(VOLUME)
            refused = self._ask(home, "READ", VOLUME, given.label)
        assert "lock timeout" in refused.error
        assert "Another process" in refused.error
        assert ledger.label(VOLUME).generation == 2
        ledger.check_all()

    @staticmethod
    def _ask(home: Home, operation: str, volume: str, label: bytes) -> Answer:
        started = time.monotonic()
        answer = home.ask(operation, volume, label)
        assert time.monotonic() - started < ANSWER_SECONDS
        assert not answer.has_key
        return answer


class TestPostgresql:
    """What its own errors become."""

    @pytest.mark.parametrize(
        ("old", "new", "says", "advice"),
        [
            ("host=", "host=/nowhere", "No such file", "See that the server runs"),
            ("hwkm@", "nobody-here@", "does not exist", "lets this user in"),
            ("@/", "@/no_such_", "does not exist", "that keystore names it"),
        ],
    )
    def test_no_connection(
        self, server: Server, old: str, new: str, says: str, advice: str
    ) -> None:
        url = server.new_database().replace(old, new)
        with pytest.raises(KeystoreError, match=says) as caught:
            Keystore.open(url)
        assert advice in caught.value.hint
        assert "\n" not in caught.value.diagnostics()

    def test_no_rights(self, home: Home, server: Server) -> None:
        homes.move_to(home, server.new_database())
        server.run("psql", "--dbname", "postgres", "--command", "CREATE ROLE guest LOGIN")
        with pytest.raises(KeystoreError, match="permission denied") as caught:
            Keystore.open(home.config().keystore.replace("hwkm@", "guest@"))
        assert "Give its tables" in caught.value.hint

    def test_read_only(self, home: Home, server: Server) -> None:
        homes.move_to(home, server.new_database())
        given = home.ask("LABEL", VOLUME)
        home.edit("?host=", "?options=-c%20default_transaction_read_only%3Don&host=")
        refused = home.ask("READ", VOLUME, given.label)
        assert "read-only transaction" in refused.error
        assert "It must be writable" in refused.error

    def test_full_disk(self, home: Home) -> None:
        with postgres.running() as server, small_disk(server.folder / "disk", 2**24) as disk:
            server.own(disk)
            homes.move_to(home, server.new_database(disk))
            ledger = Ledger(home)
            answer = ledger.label(VOLUME)
            fill(disk, 0)
            while answer.has_key:
                answer = ledger.take("LABEL", forked.ask(home, "LABEL", VOLUME))
            assert "No space left on device" in answer.error
            assert "Make room on the disk" in answer.error
            ledger.check()
            (disk / "filling").unlink()
            ledger.label(VOLUME)
            ledger.check_all()
            server.crash()
