"""Backups of a keystore: made while others write, checked whole, restored whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.engine import URL

from hwkm import token_copy
from hwkm.errors import KeystoreError, TokenError
from hwkm.keystore import backup, migrate, schema, workplace
from hwkm.keystore.engine import Keystore, KeystoreMissingError
from hwkm.keystore.records import Event, Operation, Outcome
from hwkm.keystore.restore import restore
from hwkm.keystore.tally import Tally
from hwkm.keystore.workplace import PREFIX

from . import envelopes, forked
from .ledger import Ledger
from .test_copy import rows
from .test_damage import fill, small_disk
from .test_secrets import find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .homes import Home

VOLUMES = ("A", "B", "A")
INSTALLATION = "00112233445566ff"


@pytest.fixture(name="safe")
def _safe(tmp_path: Path) -> Path:
    folder = tmp_path / "safe"
    folder.mkdir()
    return folder


@pytest.fixture(name="filled")
def _filled(tmp_path: Path) -> str:
    """The URL of a keystore with some rows that nobody can open."""
    url = f"sqlite:///{tmp_path}/filled.db"
    keystore = migrate.create(url, INSTALLATION, now=1, who="tester")
    with keystore.writing() as transaction:
        for number in range(40):
            envelopes.add(transaction, envelopes.sealed(f"V{number}", 1))
            transaction.add_event(Event(2, "tester", Operation.LABEL, Outcome.OK, f"V{number}"))
    return url


@pytest.fixture(name="good")
def _good(filled: str, safe: Path) -> Path:
    path = safe / "good"
    make(filled, path)
    return path


def make(url: str, path: Path) -> backup.Manifest:
    return backup.make(url, "", path, now=1000, who="tester")


def put_back(path: Path, url: str, installation: str = INSTALLATION) -> None:
    restore(url, installation, path, now=2000, who="tester")


def without_last_event(found: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    last = max(row[0] for row in found["event"])
    return found | {"event": [row for row in found["event"] if row[0] != last]}


def is_empty(url: str) -> bool:
    try:
        Keystore.open(url)
    except KeystoreMissingError:
        return True
    return False


class TestCommand:
    """The whole way, in real processes, from each kind of database to each."""

    def test_there_and_back(self, site: Home, url: str, safe: Path) -> None:
        ledger = Ledger(site)
        for volume in VOLUMES:
            ledger.take("LABEL", forked.ask(site, "LABEL", volume))
        before = rows(site.keystore())
        file = safe / "backup"
        code, printed = site.hwkm("keystore", "backup", str(file), "--json")
        assert code == 0, printed
        said = json.loads(printed)
        assert (said["volumes"], said["generations"], said["envelopes"]) == (2, 3, 3)
        assert (said["installation"], said["keys_in_clear"]) == (site.config().installation, 0)
        assert said["newest_event"] is not None
        assert file.stat().st_mode & 0o777 == 0o600
        assert list(safe.iterdir()) == [file]
        assert without_last_event(rows(site.keystore())) == before

        site.use_keystore(url)
        code, printed = site.hwkm("keystore", "restore", str(file), "--json")
        assert code == 0, printed
        said = json.loads(printed)
        assert (said["opened"], said["unopened"], said["checks"]) == (3, 0, [])
        assert without_last_event(rows(site.keystore())) == before
        with site.keystore().reading() as transaction:
            assert transaction.events()[-1].operation is Operation.KEYSTORE_RESTORE
        ledger.check()
        assert ledger.label("A").generation == 3
        ledger.check_all()

    def test_says_what_would_not_open(self, home: Home, safe: Path) -> None:
        good, bad = home.label("Good"), home.label("Bad")
        envelopes.store(
            home,
            bad.envelope.header.key_id,
            envelopes.with_broken_stanza(bad.envelope).encode(),
        )
        assert home.hwkm("keystore", "backup", str(safe / "backup"))[0] == 0
        forked.remove(home.database)
        code, printed = home.hwkm("keystore", "restore", str(safe / "backup"))
        assert code == 1
        assert "opened: 1\nunopened: 1\n" in printed
        assert "fail volume Bad, generation 1: does not open with" in printed
        assert "Good" not in printed
        assert home.read("Good").key == good.key

    def test_without_the_token(self, home: Home, safe: Path) -> None:
        """It is restored all the same: the token may come later."""
        given = home.label("A")
        assert home.hwkm("keystore", "backup", str(safe / "backup"))[0] == 0
        forked.remove(home.database)
        (home.folder / "tokens").rename(home.folder / "away")
        (home.folder / "tokens").mkdir()
        code, printed = home.hwkm("keystore", "restore", str(safe / "backup"))
        assert code == 1
        assert "unopened: 1" in printed
        (home.folder / "tokens").rmdir()
        (home.folder / "away").rename(home.folder / "tokens")
        assert home.read("A").key == given.key

    def test_only_into_an_empty_place(self, site: Home, safe: Path) -> None:
        site.label("A")
        assert site.hwkm("keystore", "backup", str(safe / "backup"))[0] == 0
        before = rows(site.keystore())
        code, printed = site.hwkm("keystore", "restore", str(safe / "backup"))
        assert code == 6
        assert "there is a keystore where one is to be restored" in printed
        assert rows(site.keystore()) == before

    def test_another_installation(self, home: Home, safe: Path) -> None:
        assert home.hwkm("keystore", "backup", str(safe / "backup"))[0] == 0
        forked.remove(home.database)
        home.edit(home.config().installation, INSTALLATION)
        code, printed = home.hwkm("keystore", "restore", str(safe / "backup"))
        assert code == 6
        assert f"the configuration to {INSTALLATION}" in printed
        assert not home.database.exists()
        code, printed = home.hwkm("keystore", "backup", str(safe / "second"))
        assert code == 6
        assert not (safe / "second").exists()

    def test_copy(self, home: Home, url: str) -> None:
        home.label("A")
        before = rows(home.keystore())
        code, printed = home.hwkm("keystore", "copy", url)
        assert (code, printed) == (0, "generations: 1\ncompared: yes\n")
        assert rows(Keystore.open(url)) == before
        assert home.hwkm("keystore", "copy", url)[0] == 6

    def test_nothing_secret_is_in_it(self, home: Home, safe: Path) -> None:
        handouts = [home.label(volume) for volume in VOLUMES]
        assert home.hwkm("keystore", "backup", str(safe / "backup"))[0] == 0
        content = (safe / "backup").read_bytes()
        assert all(handout.envelope.encode() in content for handout in handouts)
        assert (
            find({safe / "backup": content}, {handout.key.expose() for handout in handouts}) == []
        )
        for name in ("user-pin", "so-pin"):
            assert (home.folder / name).read_bytes().strip() not in content


class TestChecklist:
    """What ``hwkm check`` says must be kept."""

    def test_ticked(self, site: Home, safe: Path) -> None:
        found = self._kept(site)
        assert found == dict.fromkeys(
            ("keystore", "token main", "PIN of main", "configuration"), "warn"
        )
        assert site.hwkm("keystore", "backup", str(safe / "backup"))[0] == 0
        assert site.hwkm("keystore", "kept", "token") == (
            0,
            "Noted: there is a copy of token main.\n",
        )
        assert site.hwkm("keystore", "kept", "pin", "--token", "main")[0] == 0
        assert site.hwkm("keystore", "kept", "configuration")[0] == 0
        assert site.hwkm("keystore", "kept", "something")[0] == 2
        assert set(self._kept(site).values()) == {"ok"}

    def test_what_is_new_unticks(self, home: Home) -> None:
        now = int(time.time())
        with home.keystore().writing() as transaction:
            for detail in ("token main", "pin main", "configuration"):
                transaction.add_event(
                    Event(now + 9, "tester", Operation.KEPT, Outcome.OK, detail=detail)
                )
            transaction.add_event(
                Event(now - 7 * 86400 - 9, "tester", Operation.KEYSTORE_BACKUP, Outcome.OK)
            )
        assert self._kept(home)["keystore"] == "warn"
        home.edit('log = "', 'backup_days = 8\nlog = "')
        found = self._kept(home)
        assert set(found.values()) == {"ok"}
        assert home.hwkm("master", "create", "--replace")[0] == 0
        os.utime(home.config_path, (now + 20, now + 20))
        found = self._kept(home)
        assert found.pop("token main") == found.pop("configuration") == "warn"
        assert set(found.values()) == {"ok"}

    @staticmethod
    def _kept(home: Home) -> dict[str, str]:
        code, printed = home.hwkm("check", "--json")
        assert code == 0, printed
        return {
            check["name"].removeprefix("kept: "): check["status"]
            for check in json.loads(printed)["checks"]
            if check["name"].startswith("kept: ")
        }


class TestMeanwhile:
    """Another process writes, in transactions of several rows, as fast as it can."""

    def test_each_is_of_one_moment(self, url: str, safe: Path) -> None:
        keystore = migrate.create(url, INSTALLATION, now=1, who="tester")
        with writing(keystore):
            made = [make(url, safe / str(number)) for number in range(6)]
        for number, manifest in enumerate(made):
            labels = manifest.rows("generation")
            assert manifest.rows("envelope") == manifest.rows("volume") == labels
            assert manifest.rows("event") == labels + 1 + number
            assert backup.read(safe / str(number)).manifest == manifest
        counts = [manifest.rows("generation") for manifest in made]
        assert counts == sorted(counts)
        assert counts[0] < counts[-1], "nothing was written meanwhile"


class writing:  # noqa: N801  # it is used like a function
    """Labels one volume after the other in a child, for as long as the block lasts."""

    def __init__(self, keystore: Keystore) -> None:
        self._keystore = keystore

    def __enter__(self) -> None:
        self._child = os.fork()
        if self._child == 0:
            try:
                self._label_on()
            finally:
                os._exit(1)
        while self._count() < 3:
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)

    def _label_on(self) -> None:
        number = 0
        while True:
            number += 1
            envelope = envelopes.sealed(f"V{number}", 1)
            with self._keystore.writing() as transaction:
                transaction.add_event(Event(2, "t", Operation.LABEL, Outcome.OK, f"V{number}"))
                envelopes.add(transaction, envelope)

    def _count(self) -> int:
        with self._keystore.reading() as transaction:
            return len(list(transaction.all_generations()))


class TestNames:
    """Nothing is overwritten, and nothing is left behind."""

    @pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling"])
    def test_what_is_there_stays(self, filled: str, safe: Path, kind: str) -> None:
        path, other = safe / "backup", safe / "other"
        match kind:
            case "file":
                path.write_bytes(b"mine")
            case "folder":
                path.mkdir()
            case "link":
                other.write_bytes(b"mine")
                path.symlink_to(other)
            case "dangling":
                path.symlink_to(other)
        before = sorted(safe.iterdir())
        with pytest.raises(KeystoreError, match=r"there is .* already"):
            make(filled, path)
        assert sorted(safe.iterdir()) == before

    def test_what_comes_in_between_stays(
        self, filled: str, safe: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = backup.read

        def and_somebody_is_quicker(path: Path) -> backup.Backup:
            (safe / "backup").write_bytes(b"mine")
            return read(path)

        monkeypatch.setattr(backup, "read", and_somebody_is_quicker)
        with pytest.raises(KeystoreError, match=r"there is .* already"):
            make(filled, safe / "backup")
        assert [path.read_bytes() for path in safe.iterdir()] == [b"mine"]

    @pytest.mark.parametrize("taken", [False, True])
    def test_where_there_are_no_links(
        self, filled: str, safe: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
    ) -> None:
        def refuse(_made: Path, path: Path) -> None:
            if taken:
                path.write_bytes(b"mine")
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
        if taken:
            with pytest.raises(KeystoreError, match=r"there is .* already"):
                make(filled, safe / "backup")
            assert (safe / "backup").read_bytes() == b"mine"
        else:
            make(filled, safe / "backup")
            put_back(safe / "backup", f"sqlite:///{safe}/keystore.db")

    def test_no_folder(self, filled: str, safe: Path) -> None:
        with pytest.raises(KeystoreError, match="nothing can be made in"):
            make(filled, safe / "none" / "backup")

    def test_of_nothing(self, safe: Path) -> None:
        with pytest.raises(KeystoreMissingError):
            make(f"sqlite:///{safe}/none.db", safe / "backup")
        assert list(safe.iterdir()) == []

    def test_of_a_damaged_one(self, filled: str, safe: Path, tmp_path: Path) -> None:
        database = tmp_path / "filled.db"
        whole = database.read_bytes()
        database.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(KeystoreError, match="malformed"):
            make(filled, safe / "backup")
        assert list(safe.iterdir()) == []


class TestFullDisk:
    @pytest.fixture(name="disk")
    def _disk(self, tmp_path: Path) -> Iterator[Path]:
        with small_disk(tmp_path / "disk", 512 * 1024) as disk:
            yield disk

    def test_backup(self, filled: str, disk: Path) -> None:
        def attempt() -> None:
            make(filled, disk / "backup")

        assert attempts(disk, attempt, lambda: not (disk / "backup").exists()) > 3
        assert backup.read(disk / "backup").manifest.rows("generation") == 40

    def test_restore(self, good: Path, disk: Path, filled: str) -> None:
        url = f"sqlite:///{disk}/keystore.db"
        assert attempts(disk, lambda: put_back(good, url), lambda: is_empty(url)) > 3
        expected = rows(Keystore.open(filled))
        assert without_last_event(rows(Keystore.open(url))) == without_last_event(expected)

    def test_a_limit_on_files(self, home: Home, safe: Path) -> None:
        home.label("A")

        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
            try:
                make(home.config().keystore, safe / "backup")
            except KeystoreError as error:
                os.write(1, error.diagnostics().encode())

        said = forked.run(limited).decode()
        assert f"no backup was made in {safe}" in said
        assert "Make room on the disk" in said
        assert list(safe.iterdir()) == []


def error_of(work: Callable[[], object]) -> str:
    try:
        work()
    except KeystoreError as error:
        return error.diagnostics()
    return ""


def attempts(disk: Path, work: Callable[[], object], is_undone: Callable[[], bool]) -> int:
    """Try with more and more room until it works; return how often it did not."""
    for number in range(200):
        fill(disk, number * 2)
        said = error_of(work)
        (disk / "filling").unlink()
        if not said:
            return number
        assert "Make room" in said or "No space left" in said
        assert is_undone()
        assert [path for path in disk.iterdir() if path.name.startswith(PREFIX)] == []
    raise AssertionError("there was never room enough")


class TestKilled:
    def test_restoring_at_every_write(self, good: Path, filled: str, tmp_path: Path) -> None:
        target = tmp_path / "place" / "keystore.db"
        target.parent.mkdir()
        url = f"sqlite:///{target}"
        before = without_last_event(rows(Keystore.open(filled)))
        outcomes = set()
        for kill in forked.kills(
            target, tmp_path / "strace.log", ("fdatasync", "ftruncate", "unlink")
        ):
            forked.remove(target)
            forked.run(lambda: put_back(good, url), kill)
            if is_empty(url):
                assert kill.happened
                outcomes.add("nothing")
                if random.random() < 0.2:
                    put_back(good, url)
                    assert without_last_event(rows(Keystore.open(url))) == before
            else:
                assert without_last_event(rows(Keystore.open(url))) == before
                outcomes.add("all")
        assert outcomes == {"all", "nothing"}

    def test_at_random_times(self, filled: str, good: Path, tmp_path: Path) -> None:
        """Backup and restore, by a kill that does not wait for a write."""
        random.seed(7)
        place = tmp_path / "place"
        place.mkdir()
        target, made = place / "keystore.db", place / "backup"
        before = without_last_event(rows(Keystore.open(filled)))
        outcomes = set()
        for work in (
            lambda: make(filled, made),
            lambda: put_back(good, f"sqlite:///{target}"),
        ) * 20:
            killed_after(random.uniform(0, 0.6), work)
            if made.exists():
                assert backup.read(made).manifest.rows("generation") == 40
                outcomes.add("backup")
                made.unlink()
            if not is_empty(f"sqlite:///{target}"):
                found = rows(Keystore.open(f"sqlite:///{target}"))
                assert without_last_event(found) == before
                outcomes.add("restored")
                forked.remove(target)
        assert outcomes == {"backup", "restored"}
        make(filled, made)
        assert [path.name for path in place.iterdir() if path.name.startswith(PREFIX)] == []

    def test_one_that_works_is_not_cleared_away(self, safe: Path, filled: str) -> None:
        with workplace.private(safe) as folder:
            make(filled, safe / "backup")
            assert folder.exists()


def killed_after(seconds: float, work: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


class TestHostileFiles:
    """Whatever is in the file: the same rows, or an error and an empty place."""

    @pytest.fixture(name="url")
    def _url(self, tmp_path: Path) -> str:
        (tmp_path / "place").mkdir()
        return f"sqlite:///{tmp_path}/place/keystore.db"

    def refused(self, path: Path, url: str, why: str = "no sound backup") -> None:
        with pytest.raises(KeystoreError, match=why) as caught:
            put_back(path, url)
        assert caught.value.hint
        assert is_empty(url)

    @pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
    def test_cut_off(self, good: Path, url: str, share: float) -> None:
        whole = good.read_bytes()
        good.write_bytes(whole[: int(len(whole) * share)])
        self.refused(good, url)

    def test_bits_flipped(self, good: Path, url: str, filled: str) -> None:
        """A bit that nothing was written with may be either."""
        whole = good.read_bytes()
        expected = without_last_event(rows(Keystore.open(filled)))
        chance = random.Random(7)
        refused = 0
        for _ in range(120):
            at = chance.randrange(len(whole))
            bit = 1 << chance.randrange(8)
            good.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            if said := error_of(lambda: backup.read(good)):
                assert "no sound backup" in said
                refused += 1
            elif chance.random() < 0.2:
                put_back(good, url)
                assert without_last_event(rows(Keystore.open(url))) == expected
                for file in good.parent.parent.joinpath("place").iterdir():
                    file.unlink()
        assert refused > 8

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE volume SET name = 'x' WHERE volume_id = 1",
            "INSERT INTO event VALUES (999, 1, 't', 'read', 'ok', NULL, NULL, NULL, '')",
            "DELETE FROM envelope WHERE created = 100",
            "UPDATE installation SET installation_id = 'x'",
            "UPDATE backup SET manifest = replace(manifest, '1000', '1001')",
            "UPDATE backup SET manifest = '{}'",
            "DELETE FROM backup",
            "INSERT INTO backup SELECT * FROM backup",
            "DROP TABLE backup",
            "DROP TABLE proof",
            "DROP TABLE attached",
            "INSERT INTO attached VALUES ('x', x'00')",
            "DROP TRIGGER event_no_update",
            "CREATE TABLE more (x)",
            "CREATE VIEW more AS SELECT 1",
            "CREATE TRIGGER more AFTER INSERT ON event BEGIN SELECT 1; END",
            "CREATE VIRTUAL TABLE more USING fts5(x)",
            "ALTER TABLE drive ADD COLUMN more TEXT",
            "DROP TABLE backup; CREATE VIEW backup AS SELECT 'x' AS manifest, x'00' AS sha256",
            "DROP TABLE drive; CREATE VIEW drive AS SELECT 1 AS serial",
        ],
    )
    def test_changed(self, good: Path, url: str, statement: str) -> None:
        with closing(sqlite3.connect(good)) as connection:
            connection.executescript(statement)
        self.refused(good, url)

    def test_a_whole_other_manifest(self, good: Path, url: str) -> None:
        """Its own digest fits; what it says does not."""
        with closing(sqlite3.connect(good)) as connection:
            (text,) = connection.execute("SELECT manifest FROM backup").fetchone()
        for key, value, why in (
            ("revision", "0001", "tables are not those"),
            ("revision", "9999", "at revision 9999"),
            ("revision", "../x", "at revision"),
            ("format", 2, "a later release made"),
            ("tables", {}, "each of its tables"),
            ("tables", [1], "no sound backup"),
            ("newest_event", "x", "no sound backup"),
            ("made", None, "no sound backup"),
        ):
            self._forge(good, json.loads(text) | {key: value})
            self.refused(good, url, why)

    @staticmethod
    def _forge(path: Path, manifest: dict[str, object]) -> None:
        forged = json.dumps(manifest)
        digest = hashlib.sha256(forged.encode()).digest()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE backup SET manifest = ?, sha256 = ?", (forged, digest))
            connection.commit()

    def test_another_programs(self, safe: Path, url: str, filled: str, tmp_path: Path) -> None:
        with closing(sqlite3.connect(safe / "other")) as connection:
            connection.execute("CREATE TABLE backup (manifest TEXT, sha256 BLOB)")
        self.refused(safe / "other", url, "not made by hwkm keystore backup")
        shutil.copy(tmp_path / "filled.db", safe / "copy")
        self.refused(safe / "copy", url, "not made by hwkm keystore backup")
        assert "filled" in filled

    def test_no_file(self, safe: Path, url: str, good: Path) -> None:
        self.refused(safe / "none", url, "can't be read")
        self.refused(safe, url, "no sound backup")
        os.mkfifo(safe / "pipe")
        self.refused(safe / "pipe", url, "no sound backup")
        (safe / "to-pipe").symlink_to(safe / "pipe")
        self.refused(safe / "to-pipe", url, "no sound backup")
        (safe / "loop").symlink_to(safe / "loop")
        self.refused(safe / "loop", url, "can't be read")
        (safe / "zeros").write_bytes(bytes(8192))
        self.refused(safe / "zeros", url)
        (safe / "noise").write_bytes(random.randbytes(8192))
        self.refused(safe / "noise", url)
        (safe / "newest").symlink_to(good)
        put_back(safe / "newest", url)

    @pytest.mark.parametrize("suffix", ["-wal", "-journal", "-shm"])
    def test_what_lies_beside_it(self, good: Path, url: str, suffix: str) -> None:
        expected = backup.read(good).manifest
        good.with_name(good.name + suffix).write_bytes(random.randbytes(5000))
        assert backup.read(good).manifest == expected
        put_back(good, url)

    @pytest.mark.parametrize("suffix", ["-wal", "-journal", "-shm"])
    def test_what_lies_beside_the_place(
        self, good: Path, url: str, suffix: str, tmp_path: Path, filled: str
    ) -> None:
        (tmp_path / "place" / f"keystore.db{suffix}").write_bytes(random.randbytes(5000))
        put_back(good, url)
        keystore = Keystore.open(url)
        assert keystore.problems() == []
        expected = without_last_event(rows(Keystore.open(filled)))
        assert without_last_event(rows(keystore)) == expected

    def test_an_empty_file_is_an_empty_place(self, good: Path, url: str, tmp_path: Path) -> None:
        (tmp_path / "place" / "keystore.db").write_bytes(b"")
        put_back(good, url)

    def test_another_programs_place(self, good: Path, url: str, tmp_path: Path) -> None:
        place = tmp_path / "place" / "keystore.db"
        with closing(sqlite3.connect(place)) as connection:
            connection.execute("CREATE TABLE other (x)")
        before = place.read_bytes()
        with pytest.raises(KeystoreError, match="holds something else"):
            put_back(good, url)
        assert before[100:] == place.read_bytes()[100:]  # a header's numbers change by looking


def test_two_at_once(good: Path, url: str) -> None:
    """One restores, the other is told that there is something."""

    def work() -> None:
        try:
            put_back(good, url)
        except KeystoreError as error:
            os.write(1, str(error).encode())

    said = forked.run_all([work, work])
    assert sorted(bool(text) for text in said) == [False, True], said
    assert len(rows(Keystore.open(url))["generation"]) == 40


def test_of_an_older_release(safe: Path, url: str) -> None:
    """A backup at revision 0001 is brought up to this release's."""
    path = safe / "old"
    place = migrate.place(URL.create("sqlite", database=str(path)))
    with place.writing() as transaction:
        connection = transaction.connection
        migrate.make_tables(connection, "0001")
        transaction.set_installation(INSTALLATION, 1)
        envelopes.add(transaction, envelopes.sealed("V", 1))
    seal(path, "0001")
    put_back(path, url)
    found = rows(Keystore.open(url))
    assert len(found["generation"]) == len(found["envelope"]) == 1
    assert set(found) == set(schema.metadata.tables)


def seal(path: Path, revision: str) -> None:
    """Make a backup of a keystore's file, as it stands."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        tables = {}
        for (name,) in names:
            tally = Tally()
            for row in connection.execute(f"SELECT * FROM {name}"):
                tally.add(row)
            tables[name] = (tally.rows, f"{tally.sum:064x}")
        del tables["alembic_version"]
        connection.execute(
            "CREATE TABLE attached (name TEXT NOT NULL, content BLOB NOT NULL) STRICT"
        )
        tables["attached"] = 0, f"{0:064x}"
        text = backup.Manifest(5, "hwkm 0", INSTALLATION, revision, None, tables).encode()
        connection.execute(
            "CREATE TABLE backup (manifest TEXT NOT NULL, sha256 BLOB NOT NULL) STRICT"
        )
        digest = hashlib.sha256(text.encode()).digest()
        connection.execute("INSERT INTO backup VALUES (?, ?)", (text, digest))
        connection.commit()


def test_a_note_that_fails(home: Home, safe: Path) -> None:
    """The file is there all the same, and the text says so."""

    other = sqlite3.connect(home.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    code, printed = home.hwkm("keystore", "backup", str(safe / "backup"))
    other.execute("ROLLBACK")
    other.close()
    assert code == 6
    assert "was made, but the keystore could not note it" in printed
    assert backup.read(safe / "backup").manifest.rows("master_key") == 1


class TestToken:
    """A SoftHSM's files in the backup: everything in one file, behind the PIN."""

    def test_there_and_back(self, home: Home, safe: Path) -> None:
        given = home.label("A")
        file, folder = safe / "backup", safe / "tokens"
        code, printed = home.hwkm("keystore", "backup", str(file), "--with-token")
        assert code == 0, printed
        assert "tokens behind their pin: main\nkeys in clear: 0\n" in printed
        for name in ("user-pin", "so-pin"):
            assert (home.folder / name).read_bytes().strip() not in file.read_bytes()
        assert "ok   kept: token main: copy noted" in home.hwkm("check")[1]
        forked.remove(home.database)
        shutil.rmtree(home.folder / "tokens")
        code, printed = home.hwkm("keystore", "restore", str(file), "--token-to", str(folder))
        assert (code, "unopened: 1" in printed) == (1, True), printed
        assert {path.stat().st_mode & 0o77 for path in folder.rglob("*")} == {0}
        (folder / "main" / "tokens").rename(home.folder / "tokens")
        assert home.read("A").key == given.key

    def test_while_others_use_it(self, home: Home, safe: Path) -> None:
        """They take turns: no file is copied that is half written."""
        home.label("A")
        other = home.start("LABEL", "B")
        assert home.hwkm("keystore", "backup", str(safe / "backup"), "--with-token")[0] == 0
        other.communicate(timeout=60)
        config = home.config()
        with (config.runtime_dir / "tokens.lock").open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(TokenError, match="another hwkm process uses the token"):
                token_copy.make_backup(config, safe / "second", 0.2, now=1, who="tester")
        assert not (safe / "second").exists()

    def test_names_that_lead_elsewhere(self, safe: Path) -> None:
        for name in ("../x", "/x", "a/../../x", "", "a\0b"):
            with pytest.raises(KeystoreError, match="leads elsewhere"):
                token_copy.unpack([backup.Attached(name, b"x")], safe / "tokens")
            assert list(safe.iterdir()) == []

    def test_a_folder_that_is_there(self, safe: Path) -> None:
        (safe / "tokens").mkdir()
        with pytest.raises(KeystoreError, match="already"):
            token_copy.unpack([backup.Attached("x", b"x")], safe / "tokens")
        assert list((safe / "tokens").iterdir()) == []

    def test_none_in_it(self, good: Path, safe: Path) -> None:
        with pytest.raises(KeystoreError, match="made without --with-token"):
            token_copy.unpack(backup.attached_files(backup.read(good)), safe / "tokens")
        assert list(safe.iterdir()) == [good]
