"""Killed at any point: every answer that got out can be had again."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from . import forked, homes
from .homes import COMMAND_SECONDS, OBEYING_MODES, Answer
from .ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .homes import Home
    from .postgres import Server

VOLUME = "Vol-0001"


class TestAtEveryWrite:
    """Death at every system call that changes the keystore's files, one after the other."""

    def test_labelling(self, home: Home, tmp_path: Path) -> None:
        ledger = Ledger(home)
        ledger.label(VOLUME)
        deaths, unseen = 0, 0
        for kill in forked.kills(home.database, tmp_path / "strace.log"):
            before = self._generations(home)
            answer = ledger.take("LABEL", forked.ask(home, "LABEL", VOLUME, kill=kill))
            new = self._generations(home) - before
            ledger.check(again=1)
            ledger.read_without_label(VOLUME)
            deaths += kill.happened
            unseen += new and not answer.has_key
            assert new == 1 or not answer.has_key
        assert deaths > 40
        assert 0 < unseen < deaths, "no death came between the commit and the answer"
        ledger.check_all()

    def test_reading(self, home: Home, tmp_path: Path) -> None:
        ledger = Ledger(home)
        first, second = ledger.label(VOLUME), ledger.label(VOLUME)
        deaths = 0
        for kill in forked.kills(home.database, tmp_path / "strace.log"):
            wanted = (first, second)[deaths % 2]
            answer = forked.ask(home, "READ", VOLUME, wanted.label, kill)
            if ledger.take("READ", answer).has_key:
                assert answer.key == wanted.key
            ledger.check()
            deaths += kill.happened
        assert deaths > 30
        assert self._generations(home) == 2
        ledger.check_all()

    def test_reading_on_a_bare_machine(self, home: Home, tmp_path: Path) -> None:
        ledger = Ledger(home)
        first = ledger.label(VOLUME)
        deaths = 0
        for kill in forked.kills(home.database, tmp_path / "strace.log", suffixes=("", "-wal")):
            forked.remove(home.database)
            forked.ask(home, "READ", VOLUME, first.label, kill)
            deaths += kill.happened
            assert forked.ask(home, "READ", VOLUME, first.label).key == first.key
            assert home.keystore().problems() == []
            assert self._generations(home) == 1
        assert deaths > 60

    @staticmethod
    def _generations(home: Home) -> int:
        with home.keystore().reading() as transaction:
            return len(list(transaction.all_generations()))


def test_the_answer_leaves_after_the_commit_is_on_disk(home: Home, tmp_path: Path) -> None:
    """A power cut takes what was written but not synced: then the answer must not be out yet."""
    home.label(VOLUME)
    log = tmp_path / "strace.log"
    trace = ("strace", "-f", "-y", "-o", str(log), "-e", "trace=pwrite64,fdatasync,write")

    def read(pause: Callable[[], object]) -> None:
        with home.keystore().reading() as transaction:
            transaction.events()
            pause()

    with forked.meanwhile(read):  # as long as somebody reads, the WAL is not emptied at the end
        answer = home.ask("LABEL", VOLUME, prefix=trace)
    assert answer.generation == 2
    lines = log.read_text().splitlines()
    writes = _numbers(lines, r"pwrite64\(.*keystore\.db-wal>")
    (sync,) = _numbers(lines, r"fdatasync\(.*keystore\.db-wal>")[-1:]
    leaves = _numbers(lines, r"write\(.*volume_name: ")
    assert _numbers(lines, r"keystore\.db>") == []
    assert writes[-1] < sync < leaves[0]


def _numbers(lines: list[str], pattern: str) -> list[int]:
    return [number for number, line in enumerate(lines) if re.search(pattern, line)]


class TestAtRandomTimes:
    """Whole process groups of the real command, killed whatever they are at."""

    def test_sqlite(self, home: Home) -> None:
        self._run(home, 50)

    def test_postgresql(self, home: Home, server: Server) -> None:
        homes.move_to(home, server.new_database())
        self._run(home, 10)

    def _run(self, home: Home, deaths: int) -> None:
        ledger = Ledger(home)
        labels = {name: ledger.label(name) for name in ("A", "B")}
        started = time.monotonic()
        ledger.read("A", labels["A"].label)
        usual = time.monotonic() - started
        unanswered = 0
        for number in range(deaths):
            volume = "AB"[number % 2]
            operation = random.choice(("LABEL", "READ"))
            label = labels[volume].label if operation == "READ" else b""
            delay = random.uniform(0.4, 1.1) * usual
            answer = ledger.take(operation, _killed(home, operation, volume, label, delay))
            unanswered += not answer.has_key
            ledger.check()
            labels[volume] = ledger.read_without_label(volume)
        assert unanswered > deaths / 10
        ledger.check_all()


def _killed(home: Home, operation: str, volume: str, label: bytes, delay: float) -> Answer:
    """Kill the command after ``delay`` seconds; return its answer, if one came before."""
    # With root's rights, SoftHSM would rewrite its token at each login, and the kill destroy it.
    process = home.start(operation, volume, label, OBEYING_MODES)
    try:
        output, _ = process.communicate(timeout=delay)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=COMMAND_SECONDS)
    return Answer.parse(output)


class TestServerCrash:
    def test_every_answer_survives(self, home: Home, server: Server) -> None:
        homes.move_to(home, server.new_database())
        ledger = Ledger(home)
        for _ in range(3):
            ledger.label("A")
            server.crash()
            refused = home.ask("LABEL", "A")
            server.start()
            assert "keystore" in refused.error
            ledger.check()
        assert ledger.label("A").generation == 4
        ledger.check_all()

    def test_in_the_middle_of_a_label(self, home: Home, server: Server) -> None:
        homes.move_to(home, server.new_database())
        ledger = Ledger(home)
        ledger.label("A")
        for delay in (0.15, 0.2, 0.25, 0.3):
            process = home.start("LABEL", "A")
            time.sleep(delay)
            server.crash()
            output, _ = process.communicate(timeout=COMMAND_SECONDS)
            server.start()
            ledger.take("LABEL", Answer.parse(output))
            ledger.check()
        ledger.check_all()


@pytest.fixture(autouse=True)
def _same_every_time() -> None:
    random.seed(20260101)
