"""docs/keystore.md: its tables are the schema's, and its commands work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hwkm.errors import KeystoreError
from hwkm.keystore import schema
from hwkm.keystore.records import Operation, Outcome, State
from tests.transcripts.runner import blocks

from . import forked, homes
from .homes import ROOT
from .ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Table

    from .homes import Home
    from .postgres import Server

DOCUMENT = (ROOT / "docs" / "keystore.md").read_text()
BLOCKS = dict(blocks(DOCUMENT, "run"))


@pytest.fixture(name="backup")
def _backup(tmp_path: Path) -> Path:
    folder = tmp_path / "backup"
    folder.mkdir()
    return folder


def run(name: str, home: Home, changes: dict[str, str], **environment: str) -> str:
    """Run a block of the document, in ``home``, with other places than it names."""
    script = BLOCKS[name]
    for old, new in {**changes, "/var/lib/hwkm": str(home.folder)}.items():
        assert old == "/var/lib/hwkm" or old in script
        script = script.replace(old, new)
    script = f'hwkm() {{ (cd {ROOT} && {sys.executable} -m hwkm "$@"); }}\n{script}'
    script = script.replace("--config config.toml", f"--config {home.config_path}")
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=home.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=homes.COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class TestTables:
    @pytest.mark.parametrize("table", schema.metadata.tables.values(), ids=lambda table: table.name)
    def test_columns(self, table: Table) -> None:
        section = DOCUMENT.split(f"\n### `{table.name}`\n")[1].split("\n## ")[0].split("\n### ")[0]
        assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [c.name for c in table.c]

    @pytest.mark.parametrize("word", [*State, *Operation, *Outcome])
    def test_words(self, word: str) -> None:
        assert f"`{word}`" in DOCUMENT


def used(home: Home) -> Ledger:
    ledger = Ledger(home)
    for volume in ("A", "B", "A"):
        ledger.take("LABEL", forked.ask(home, "LABEL", volume))
    return ledger


class TestSqlite:
    def test_backup_and_restore(self, home: Home, backup: Path) -> None:
        ledger = used(home)
        with forked.meanwhile(lambda pause: self._hold(home, pause)):
            run("backup", home, {"/backup": str(backup)})
        later = forked.ask(home, "LABEL", "B")
        home.database.write_bytes(b"ruined")
        home.database.with_name("keystore.db-wal").write_bytes(b"left over")
        printed = run("restore", home, {"/backup": str(backup)})
        assert printed.count("opens with") == 3
        assert home.database.stat().st_mode & 0o777 == 0o600
        ledger.check_all()
        again = forked.ask(home, "READ", "B", later.label)
        assert again.key == later.key

    @staticmethod
    def _hold(home: Home, pause: Callable[[], object]) -> None:
        with home.keystore().reading() as transaction:
            transaction.events()
            pause()


class TestPostgresql:
    @pytest.fixture(name="shared")
    def _shared(self, home: Home, server: Server) -> Home:
        homes.move_to(home, server.new_database())
        return home

    def test_backup_and_restore(self, shared: Home, server: Server, backup: Path) -> None:
        ledger = used(shared)
        url = shared.config().keystore
        name = url.rpartition("@/")[2].partition("?")[0]
        environment = {
            "PATH": f"{server.tools}:{os.environ['PATH']}",
            "PGHOST": str(server.folder),
            "PGUSER": "hwkm",
        }
        changes = {"/backup": str(backup)}
        run("backup-postgresql", shared, changes | {" hwkm\n": f" {name}\n"}, **environment)
        changes |= {"hwkm_restored": f"{name}_restored"}
        run("restore-postgresql", shared, changes, **environment)
        shared.edit(f"@/{name}?", f"@/{name}_restored?")
        ledger.check()
        assert ledger.label("A").generation == 3
        with pytest.raises(KeystoreError, match="rows are kept as they are"):
            self._delete_events(shared)
        ledger.check_all()

    @staticmethod
    def _delete_events(home: Home) -> None:
        with home.keystore().writing() as transaction:
            transaction.connection.exec_driver_sql("DELETE FROM event")


def test_move(home: Home, server: Server) -> None:
    ledger = used(home)
    url = server.new_database()
    old = "'postgresql+psycopg://hwkm@/hwkm?host=/run/postgresql'"
    run("move", home, {old: f"'{url}'"})
    home.use_keystore(url)
    ledger.check()
    assert ledger.label("A").generation == 3
    ledger.check_all()


def test_lost(home: Home) -> None:
    ledger = used(home)
    master = ledger.answers[0][1].envelope.stanzas[0].recipient_id.hex()
    home.database.unlink()
    for _, answer in list(ledger.answers):
        volume = answer.envelope.header.volume
        ledger.take("READ", forked.ask(home, "READ", volume, answer.label))
    assert "no active master key" in forked.ask(home, "LABEL", "A").error
    printed = run("lost", home, {}, MASTER_ID=master)
    assert printed.count("opens with") == 3
    assert ledger.label("A").generation == 3
