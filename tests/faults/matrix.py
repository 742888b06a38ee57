"""Fails every call of a whole job, one run for each, and sees that all that was given still is.

Arguments: a configuration file, an error code, which part of how many. It prints the run that it
begins, and in the end what came of all.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hwkm.errors import HwkmError
from hwkm.token import session

from .faulty import Until
from .site import OLD, Site, opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwkm.manager import Handout


class Way(NamedTuple):
    """How a call fails: how long that goes on, and whether the module does its work first.

    ``idle``: every use of the token is taken for the first after a while, so that it is looked
    whether the session is still there, and those calls fail too.
    """

    until: Until
    after: bool = False
    idle: bool = False

    def __str__(self) -> str:
        parts = (self.until.name.lower(), "after its work" * self.after, "idle" * self.idle)
        return " ".join(filter(None, parts))

    def begin(self) -> None:
        """Let the token be idle, or never."""
        session.IDLE_SECONDS = 0 if self.idle else math.inf


WAYS = (
    Way(Until.ONCE, idle=True),
    Way(Until.ONCE, after=True),
    Way(Until.HEALED),
    Way(Until.RELOADED),
)


@dataclass(slots=True)
class Results:
    """What came of the runs so far."""

    calls: int
    runs: int = 0
    given: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)


def main(config: str, code: str, part: str, parts: str) -> None:
    with opened(Path(config)) as site:
        old = site.label(OLD)
        calls = {way: calls_of(site, old, way) for way in WAYS}
        results = Results(max(calls.values()))
        for way in WAYS:
            for number in range(1 + int(part), calls[way] + 1, int(parts)):
                run(site, old, int(code), number, way, results)
    print(json.dumps(asdict(results)))


def calls_of(site: Site, old: Handout, way: Way) -> int:
    """Return how many calls a whole job makes when all goes well."""
    way.begin()
    site.tokens.release()
    site.faulty.fail(0, at=0)
    answers = job(site, "Healthy", old)
    assert len(answers) == 3, "the job does not go well even if nothing fails"
    return site.faulty.counted


def run(site: Site, old: Handout, code: int, number: int, way: Way, results: Results) -> None:
    """Do the job once, with its ``number``-th call failing, and look at what is left."""
    volume = f"Vol-{number:04}-{WAYS.index(way)}"
    name = f"call {number}, {way}"
    print(name, flush=True)
    results.runs += 1
    try:
        site.tokens.release()
        way.begin()
        before = site.given()
        site.faulty.fail(code, number, until=way.until, after=way.after)
        answers = job(site, volume, old)
        site.faulty.heal()
        assert site.faulty.failed > 0, "no call failed"
        assert site.given() - before == len(answers), "what was given is not what is on record"
        if way.until is not Until.HEALED:
            assert len(answers) >= 2, "what passed cost more than one request"
        look(site, volume, old, answers)
    except Exception as error:  # noqa: BLE001  # the other runs tell something too
        site.faulty.heal()
        results.failures.append(f"{name}: {type(error).__name__}: {error}"[:300])
        answers = {}
    results.given += len(answers)
    results.refused += 3 - len(answers)


def job(site: Site, volume: str, old: Handout) -> dict[str, Handout]:
    """Log in, label a volume, read another with and without its label, log out."""
    label = old.envelope.encode()
    asked: dict[str, Callable[[], Handout]] = {
        "label": lambda: site.label(volume),
        "read with label": lambda: site.read(OLD, label),
        "read": lambda: site.read(OLD),
    }
    answers = {}
    for name, ask in asked.items():
        try:
            answers[name] = ask()
        except HwkmError:
            continue  # told no
    site.tokens.release()
    return answers


def look(site: Site, volume: str, old: Handout, answers: dict[str, Handout]) -> None:
    """See that each answer can be given again, and that all works without a restart."""
    new = answers.pop("label", None)
    for handout in answers.values():
        assert handout.key == old.key, "a wrong key was given"
    assert site.generations(volume) == (new is not None), "a key is on record that nobody has"
    given = new or site.label(volume)
    assert site.read(volume).key == given.key, "the keystore has another key"
    assert site.open_alone(given.envelope.encode()) == given.key, "the label has another key"
    assert site.open_alone(old.envelope.encode()) == old.key
    if new is not None:
        answers["label"] = new


if __name__ == "__main__":
    main(*sys.argv[1:])
