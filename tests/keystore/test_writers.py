"""Several writers at once: every generation is kept, and has a number of its own."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from hwkm.errors import KeystoreError
from hwkm.keystore import migrate
from hwkm.keystore.engine import Keystore
from hwkm.keystore.records import Event, Operation, Outcome, State

from . import forked, homes
from .envelopes import add, sealed
from .homes import COMMAND_SECONDS, Answer
from .ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from .homes import Home

WRITERS = 8


def ask_all(home: Home, requests: list[tuple[str, str, bytes]]) -> list[Answer]:
    """Run the real command for all ``requests`` at once."""
    processes = [home.start(*request) for request in requests]
    outputs = [process.communicate(timeout=COMMAND_SECONDS)[0] for process in processes]
    return [Answer.parse(output) for output in outputs]


class TestCommands:
    def test_labelling_one_volume_and_many(self, site: Home) -> None:
        ledger = Ledger(site)
        names = ["Same"] * WRITERS + [f"Other-{number}" for number in range(WRITERS)]
        for answer in ask_all(site, [("LABEL", name, b"") for name in names]):
            assert answer.has_key, answer.error
            ledger.take("LABEL", answer)
        numbers = Counter((a.envelope.header.volume, a.generation) for _, a in ledger.answers)
        others = {(f"Other-{number}", 1): 1 for number in range(WRITERS)}
        assert numbers == {("Same", number): 1 for number in range(1, WRITERS + 1)} | others
        assert len({answer.key for _, answer in ledger.answers}) == 2 * WRITERS
        ledger.check_all()

    def test_labelling_and_reading_one_volume(self, site: Home) -> None:
        ledger = Ledger(site)
        first = ledger.label("V")
        requests = [("READ", "V", first.label), ("LABEL", "V", b"")] * (WRITERS // 2)
        for (operation, _, _), answer in zip(requests, ask_all(site, requests), strict=True):
            assert answer.has_key, answer.error
            ledger.take(operation, answer)
            assert (answer.key == first.key) == (operation == "READ")
        ledger.check_all()

    def test_first_readers_of_a_bare_machine(self, home: Home) -> None:
        ledger = Ledger(home)
        labels = [ledger.label(name) for name in ("A", "B")]
        home.database.unlink()
        requests = [("READ", a.envelope.header.volume, a.label) for a in labels * (WRITERS // 2)]
        for number, answer in enumerate(ask_all(home, requests)):
            assert answer.has_key, answer.error
            assert answer.key == labels[number % 2].key
        with home.keystore().reading() as transaction:
            assert len(list(transaction.all_generations())) == 2
        assert home.keystore().problems() == []


class TestTransactions:
    """Without tokens, whose lock would let only one process at a time come so far."""

    @pytest.fixture(autouse=True)
    def _keystore(self, url: str) -> None:
        migrate.create(url, "", now=1, who="tester")

    def test_labelling(self, url: str) -> None:
        def work() -> None:
            keystore = Keystore.open(url)
            for volume in ("Same", f"Other-{os.getpid()}", "Same"):
                os.write(1, f"{self._label(keystore, volume)}\n".encode())

        outputs = forked.run_all([work] * WRITERS)
        given = [int(line) for output in outputs for line in output.decode().split()]
        assert len(given) == 3 * WRITERS
        with Keystore.open(url).reading() as transaction:
            records = transaction.generations("Same")
            numbers = [record.generation for record in records]
            assert numbers == list(range(1, 2 * WRITERS + 1))
            states = Counter(record.state for record in records)
            assert states == {State.ACTIVE: 1, State.DEACTIVATED: 2 * WRITERS - 1}
            assert len(list(transaction.all_generations())) == 3 * WRITERS
            assert len(transaction.events()) == 1 + 3 * WRITERS

    @staticmethod
    def _label(keystore: Keystore, volume: str) -> int:
        with keystore.writing() as transaction:
            number = transaction.next_generation(transaction.lock_volume(volume))
            key_id = add(transaction, sealed(volume, number))
            event = Event(1, "tester", Operation.LABEL, Outcome.OK, volume, key_id)
            transaction.hand_out(key_id, transaction.add_event(event))
        return number


def test_reading_a_key_that_another_host_is_importing(home: Home, url: str) -> None:
    given = home.label("V")
    homes.move_to(home, url)

    def import_it(pause: Callable[[], object]) -> None:
        with home.keystore().writing() as transaction:
            add(transaction, given.envelope)
            pause()

    with forked.meanwhile(import_it):
        reader = home.start("READ", "V", given.envelope.encode())
        time.sleep(1)
        assert reader.poll() is None
    answer = Answer.parse(reader.communicate(timeout=COMMAND_SECONDS)[0])
    assert answer.has_key, answer.error
    assert answer.key == given.key.expose()


class TestWaiting:
    @pytest.fixture(autouse=True)
    def _keystore(self, url: str) -> None:
        migrate.create(url, "", now=1, who="tester")

    def test_has_a_limit(self, url: str) -> None:
        with forked.meanwhile(lambda pause: self._label(url, pause)):
            started = time.monotonic()
            with pytest.raises(KeystoreError) as caught:
                self._label(url)
            assert 4 < time.monotonic() - started < 15
            assert "Another process" in caught.value.hint
        self._label(url)

    @staticmethod
    def _label(url: str, pause: Callable[[], object] = lambda: None) -> None:
        with Keystore.open(url).writing() as transaction:
            transaction.lock_volume("V")
            pause()
