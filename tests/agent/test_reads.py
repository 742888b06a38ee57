"""READs that wait together: each gets its own answer, and none passes a LABEL."""

from __future__ import annotations

import base64
import signal
import sqlite3
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from hwkm.agent.messages import Ask, GetKey, Message, MessageReader, Open, pack_ask
from hwkm.agent.reads import Reads
from hwkm.config import load
from hwkm.installation import Installation
from hwkm.log import Log
from hwkm.token.pin import PinReader
from tests.getkey.home import VOLUME
from tests.getkey.replies import read_reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.getkey.home import Home

    from .agents import Agent

CLIENTS = 8
FOR_EACH = 25


def question(
    operation: str = "READ", label: bytes = b"label", words: tuple[str, ...] = ()
) -> GetKey:
    environment = {
        b"OPERATION": operation.encode(),
        b"VOLUME_NAME": VOLUME.encode(),
        b"ENC_CIPHER_KEY": base64.b64encode(label),
    }
    return GetKey(environment, list(words), "tester")


def ask(what: Message, number: int = 1, seconds: float = 60) -> Message:
    (message,) = MessageReader(Ask).feed(pack_ask(number, time.monotonic() + seconds, what))
    return message


@pytest.fixture(name="reads")
def _reads(home: Home, tmp_path: Path) -> Iterator[Reads]:
    site = Installation(load(home.config), PinReader())
    with site.tokens() as tokens:
        yield Reads(
            site, site.manager(tokens, site.keystore(keep=True)), Log(str(tmp_path / "log"))
        )


def test_those_at_the_front_are_taken(reads: Reads) -> None:
    queue = deque([ask(question(), 1), ask(question(), 2), ask(question(), 3)])
    assert [read.ask.number for read in reads.take(queue)] == [1, 2]
    assert [read.ask.number for read in reads.take(queue)] == [3]
    assert not queue
    assert reads.take(queue) == []


@pytest.mark.parametrize(
    "other",
    [
        ask(question("LABEL")),
        ask(question(label=b"")),
        ask(question("BOTH")),
        ask(question(words=("--what",))),
        ask(Open()),
        ask(question(), seconds=-1),
    ],
    ids=["label", "without a label", "neither", "unknown option", "another verb", "too late"],
)
def test_none_passes_another(reads: Reads, other: Message) -> None:
    queue = deque([ask(question()), other, ask(question())])
    assert len(reads.take(queue)) == 1
    assert len(queue) == 2
    assert reads.take(queue) == []
    assert queue[0] is other


def test_each_gets_its_own_answer(agent: Agent) -> None:
    """Many at once, some of them for nothing; a volume's own LABEL is among them."""
    names = [f"Vol-{number}" for number in range(CLIENTS)]
    given = {name: read_reply(agent.getkey("LABEL", name)) for name in names}

    def client(name: str) -> None:
        other = names[names.index(name) - 1]
        with agent.connect() as connection:
            for turn in range(FOR_EACH):
                reply = connection.getkey("READ", name, given[name].wrapped)
                assert read_reply(reply) == given[name]
                refused = connection.getkey("READ", name, given[other].wrapped)
                assert refused.startswith(b"error: the label's envelope belongs to"), refused
                if turn % 10 == 0:
                    newer = read_reply(connection.getkey("LABEL", name))
                    assert read_reply(connection.getkey("READ", name, newer.wrapped)) == newer

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, names))


def test_each_has_its_line_in_the_log(agent: Agent, home: Home) -> None:
    names = [f"Vol-{number}" for number in range(CLIENTS)]
    given = {name: read_reply(agent.getkey("LABEL", name)) for name in names}

    def client(name: str) -> None:
        with agent.connect() as connection:
            for turn in range(FOR_EACH):
                words = ("--job", f"{turn}")
                read_reply(connection.getkey("READ", name, given[name].wrapped, words))

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, names))
    agent.signal(signal.SIGTERM)  # the last line may come after its answer
    assert agent.wait() == 0
    found = Counter(line.partition(": gave")[0] for line in home.log if ": READ Vol-" in line)
    asked = [f"READ {name} (job {turn}, device -)" for name in names for turn in range(FOR_EACH)]
    assert sorted(line.partition("info: ")[2] for line in found.elements()) == sorted(asked)


def test_one_that_is_damaged_keeps_no_other(agent: Agent, home: Home) -> None:
    names = [f"Vol-{number}" for number in range(CLIENTS)]
    given = {name: read_reply(agent.getkey("LABEL", name)) for name in names}
    with closing(sqlite3.connect(home.path / "keystore.db")) as connection, connection:
        connection.execute(
            "UPDATE generation SET state = 'odd' WHERE volume_id = "
            "(SELECT volume_id FROM volume WHERE name = ?)",
            (names[0],),
        )

    def client(name: str) -> None:
        with agent.connect() as connection:
            for _ in range(FOR_EACH):
                reply = connection.getkey("READ", name, given[name].wrapped)
                if name == names[0]:
                    assert reply.startswith(b"error: a generation is damaged"), reply
                else:
                    assert read_reply(reply) == given[name]

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, names))
