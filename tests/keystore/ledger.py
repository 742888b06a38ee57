"""Every answer that was ever received, to be asked for again."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hwkm.checks import Status
from hwkm.envelope import Envelope
from hwkm.keystore.records import Operation, Outcome
from hwkm.manager import by_id
from hwkm.recipients import open_envelope
from hwkm.verify import check_volumes

from . import forked
from .homes import CALLER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwkm.recipients import Identity

    from .homes import Answer, Home


@dataclass(slots=True)
class Ledger:
    """What one home has answered so far."""

    home: Home
    answers: list[tuple[str, Answer]] = field(default_factory=list)

    def take(self, operation: str, answer: Answer) -> Answer:
        """Write down ``answer``, if a key is in it."""
        if answer.has_key:
            same = [a.key for _, a in self.answers if a.key_id == answer.key_id]
            assert all(key == answer.key for key in same), "another key under the same id"
            self.answers.append((operation, answer))
        return answer

    def label(self, volume: str) -> Answer:
        return self._certain("LABEL", self.home.ask("LABEL", volume))

    def read(self, volume: str, label: bytes = b"") -> Answer:
        return self._certain("READ", self.home.ask("READ", volume, label))

    def read_without_label(self, volume: str) -> Answer:
        """Read a volume whose label has lost its envelope, and return the answer.

        It must be the last that was received; or a later generation, made by a process that was
        killed when the answer was on its way out.
        """
        last = [a for _, a in self.answers if a.envelope.header.volume == volume][-1]
        given = self._certain("READ", forked.ask(self.home, "READ", volume))
        assert given.key == last.key or given.generation > last.generation
        return given

    def _certain(self, operation: str, answer: Answer) -> Answer:
        assert answer.has_key, answer.error
        return self.take(operation, answer)

    def check(self, *, again: int = 3) -> None:
        """Check that the keystore is sound and holds all answers, each with its events.

        The last ``again`` answers are also asked for again, out of their labels.
        """
        keystore = self.home.keystore()
        assert keystore.problems() == []
        self._check_events()
        with self.home.tokens() as tokens:
            with keystore.reading() as transaction:
                identities = tokens.identities(by_id(transaction.masters()))
            findings = check_volumes(keystore, identities, [])
            assert [finding for finding in findings if finding.status is not Status.OK] == []
            self._check_stored(identities)
        self._ask_again(self.answers[-again:])

    def check_all(self) -> None:
        """Do all that :meth:`check` does, with every answer, and run ``hwkm volume check``."""
        self.check(again=len(self.answers))
        status, output = self.home.hwkm("volume", "check")
        assert status == 0, output

    def _check_events(self) -> None:
        with self.home.keystore().reading() as transaction:
            events = transaction.events()
            unused = [r for r in transaction.all_generations() if r.last_used is None]
        assert unused == [], "a generation was committed without its event"
        given = Counter((e.operation, e.key_id) for e in events if e.outcome is Outcome.OK)
        received = Counter((Operation(o.lower()), a.key_id) for o, a in self.answers)
        assert received <= given, "a key was given without an event"

    def _check_stored(self, identities: Sequence[Identity]) -> None:
        by_key = {answer.key_id: answer for _, answer in self.answers}
        with self.home.keystore().reading() as transaction:
            for key_id, answer in by_key.items():
                stored = transaction.envelope(key_id)
                assert stored is not None
                opened = open_envelope(Envelope.parse(stored), identities)
                assert opened.key.expose() == answer.key
                record = transaction.generation(key_id)
                assert record is not None
                assert record.generation == answer.generation

    def _ask_again(self, answers: Sequence[tuple[str, Answer]]) -> None:
        with self.home.manager() as manager:
            for _, answer in answers:
                given = manager.read(answer.envelope.header.volume, answer.label, CALLER)
                assert given.key.expose() == answer.key
