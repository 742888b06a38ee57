"""How many READs an agent answers, how soon, and what it takes up; on SoftHSM.

The agents are whole ones, started by the command, each with a keystore of its own in the folder for
temporary files (``TMPDIR``: it should be on a disk). Clients are processes that each ask over one
connection, again and again, for a volume at random, and compare each answer. What else the machine
does is in all figures alike: so what is compared is measured in turns. From the project's folder:

    python -m benchmarks.agent                       # READs a second, client, LABEL, fsync
    python -m benchmarks.agent --volumes 1000000     # the same beside a big keystore
    python -m benchmarks.agent --long 1000000        # memory over a long run
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import socket
import sqlite3
import statistics
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.client import BARE, CLIENT, prepare
from hwkm.bacula import reply_lines
from hwkm.config import load
from hwkm.installation import Installation
from hwkm.manager import Caller
from hwkm.token.pin import PinReader
from tests.agent import agents, raw
from tests.getkey.home import OPTIONS, STORAGE_ENV, Home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

REAL = 1000
"""Volumes with a label; the others are only there."""
WARM_UP_SECONDS = 1.0
TICKS = os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure an agent on SoftHSM.")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--volumes", type=int, default=0, help="in a second, bigger keystore")
    parser.add_argument("--long", type=int, default=0, help="READs to see the memory over")
    parser.add_argument("--rounds", type=int, default=100, help="of the client and of LABEL")
    options = parser.parse_args(arguments)
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {platform_of_cpu()}")
    with ExitStack() as stack, tempfile.TemporaryDirectory() as name:
        sizes = [REAL, options.volumes] if options.volumes else [REAL]
        sites = []
        for size in sizes:
            site = Site.make(Path(name) / f"home-{size}", size)
            stack.callback(site.agent.kill)
            sites.append(site)
        if options.long:
            watch_memory(sites[-1], options.clients, options.long)
        else:
            in_turns(sites, options.clients, options.seconds, options.turns)
            whole_processes(sites[0], Path(name), options.rounds)


def platform_of_cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "an unknown CPU"


@dataclass(frozen=True, slots=True)
class Question:
    """A request's frame, and the frame of its answer."""

    frame: bytes
    answer: bytes


@dataclass(frozen=True, slots=True)
class Site:
    """An agent, the volumes that can be asked for, and how many there are in all."""

    agent: agents.Agent
    questions: list[Question]
    volumes: int

    @classmethod
    def make(cls, path: Path, volumes: int) -> Site:
        home = Home.create(path)
        questions = label(home, volumes // REAL - 1)
        return cls(agents.Agent.start(home, {}), questions, volumes)

    @property
    def processes(self) -> dict[str, int]:
        """Its two processes."""
        return {"front": self.agent.running.pid, "token": self.agent.token_pid()}


def label(home: Home, others: int) -> list[Question]:
    """Label volumes, each followed by ``others`` that only fill the keystore."""
    site = Installation(load(home.config), PinReader())
    questions = []
    with site.tokens() as tokens, closing(sqlite3.connect(home.path / "keystore.db")) as database:
        manager = site.manager(tokens, site.keystore(keep=True))
        for number in range(REAL):
            handout = manager.label(f"Vol-{number}", Caller("benchmark"))
            blob = handout.envelope.encode()
            fields = raw.getkey_fields("READ", f"Vol-{number}", blob, OPTIONS[2:])
            answer = raw.frame(b"ok", reply_lines(handout))
            questions.append(Question(raw.frame(*fields), answer))
            if others:
                fill(database, number, others, blob)
    return questions


def fill(database: sqlite3.Connection, number: int, count: int, blob: bytes) -> None:
    """Add volumes that nobody asks for; their envelopes are as long as ``blob``."""
    first = database.execute("SELECT max(volume_id) FROM volume").fetchone()[0] + 1
    event = database.execute("SELECT max(event_id) FROM event").fetchone()[0] + 1
    keys = [os.urandom(12) for _ in range(count)]
    names = [f"Other-{number}-{place}" for place in range(count)]
    rows = list(
        zip(range(first, first + count), range(event, event + count), names, keys, strict=True)
    )
    with database:
        database.executemany("INSERT INTO volume VALUES (?, ?)", ((v, n) for v, _, n, _ in rows))
        database.executemany(
            "INSERT INTO event VALUES (?, 1, 'benchmark', 'label', 'ok', ?, ?, NULL, '')",
            ((e, n, k) for _, e, n, k in rows),
        )
        database.executemany(
            "INSERT INTO generation (key_id, volume_id, generation, cipher, state, delivery, "
            "created, handed_out) VALUES (?, ?, 1, 'AES_256_XTS', 'active', 'software', 1, ?)",
            ((k, v, e) for v, e, _, k in rows),
        )
        database.executemany(
            "INSERT INTO envelope VALUES (?, 1, 1, ?)",
            ((k, k + blob[12:]) for _, _, _, k in rows),
        )


# many clients


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn came to. Seconds of one READ, sorted; CPU seconds of each process."""

    took: list[float]
    seconds: float
    cpu: dict[str, float]

    @property
    def rate(self) -> float:
        return len(self.took) / self.seconds

    def quantile(self, share: float) -> float:
        return self.took[min(int(share * len(self.took)), len(self.took) - 1)]


def in_turns(sites: Sequence[Site], clients: int, seconds: float, turns: int) -> None:
    print(
        f"\n{clients} clients, turns of {seconds:.0f} s; CPU microseconds per READ, of each process"
    )
    print(
        f"{'volumes':>9} {'READs/s':>8} {'p50 ms':>7} {'p99 ms':>7} {'p99/p50':>7}"
        f" {'front':>6} {'token':>6} {'clients':>7} {'fsync ms':>8}"
    )
    rates: dict[int, list[float]] = {site.volumes: [] for site in sites}
    for site in sites:
        one_turn(site, clients, WARM_UP_SECONDS)
    for _ in range(turns):
        for site in sites:
            turn = one_turn(site, clients, seconds)
            rates[site.volumes].append(turn.rate)
            p50, p99 = (1000 * turn.quantile(share) for share in (0.5, 0.99))
            cpu = [1e6 * turn.cpu[name] / len(turn.took) for name in ("front", "token", "clients")]
            print(
                f"{site.volumes:9} {turn.rate:8.0f} {p50:7.2f} {p99:7.2f} {p99 / p50:7.1f}"
                f" {cpu[0]:6.0f} {cpu[1]:6.0f} {cpu[2]:7.0f} {fsync(site.agent.home.path):8.2f}"
            )
    if len(sites) > 1:
        small, big = (statistics.median(rates[site.volumes]) for site in sites)
        print(f"READs/s with {sites[1].volumes} volumes: {big / small:.2f} of {sites[0].volumes}")


def one_turn(site: Site, clients: int, seconds: float, most: int = 2**62) -> Turn:
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    begin = context.Barrier(clients + 1)
    started = [
        context.Process(target=ask, args=(site, number, seconds, most, begin, results))
        for number in range(clients)
    ]
    for process in started:
        process.start()
    before = cpu_of(site)
    begin.wait()
    start = time.perf_counter()
    answers = [results.get() for _ in started]
    took = time.perf_counter() - start
    after = cpu_of(site)
    for process in started:
        process.join()
    cpu = {name: after[name] - before[name] for name in after}
    cpu["clients"] = sum(own for _, own in answers)
    return Turn(sorted(one for times, _ in answers for one in times), took, cpu)


def ask(  # in a process of its own
    site: Site, seed: int, seconds: float, most: int, begin: object, results: object
) -> None:
    choose = random.Random(seed).choice
    times: list[float] = []
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.connect(str(site.agent.socket))
        begin.wait()  # type: ignore[attr-defined]  # of multiprocessing
        own, end = time.process_time(), time.perf_counter() + seconds
        now = time.perf_counter()
        while now < end and len(times) < most:
            question = choose(site.questions)
            connection.sendall(question.frame)
            answer = connection.recv(65536)
            while len(answer) < len(question.answer):
                answer += connection.recv(65536)
            assert answer == question.answer, answer
            before, now = now, time.perf_counter()
            times.append(now - before)
    results.put((times, time.process_time() - own))  # type: ignore[attr-defined]


def cpu_of(site: Site) -> dict[str, float]:
    """Return the CPU seconds that each of an agent's processes has had."""
    return {name: _cpu_of(pid) for name, pid in site.processes.items()}


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def fsync(folder: Path) -> float:
    """Return how many milliseconds the disk takes to keep a page; the median of some."""
    times = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(20):
            file.write(bytes(4096))
            start = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def watch_memory(site: Site, clients: int, count: int) -> None:
    """Print the memory of an agent's processes as it answers ``count`` READs."""
    print(f"\n{'READs':>9} {'front KiB':>10} {'token KiB':>10} {'keystore MiB':>13}")
    done, step = 0, max(count // 10, clients)
    while True:
        size = (site.agent.home.path / "keystore.db").stat().st_size
        front, token = (agents.memory(pid) // 1024 for pid in site.processes.values())
        print(f"{done:9} {front:10} {token:10} {size / 2**20:13.0f}", flush=True)
        if done >= count:
            return
        done += len(one_turn(site, clients, 3600, step // clients).took)


# whole processes


def whole_processes(site: Site, folder: Path, rounds: int) -> None:
    """Time the client's READ and LABEL beside Python's start and the disk."""
    commands = prepare(folder)
    (folder / "agent.sock").symlink_to(site.agent.socket)
    client = [word for word in commands[CLIENT] if word not in OPTIONS[:2]]
    read, label = environments(site)
    kinds: dict[str, Callable[[], float]] = {
        BARE: lambda: timed(commands[BARE], {}),
        "hwkm-getkey READ": lambda: timed(client, next(read)),
        "hwkm-getkey LABEL": lambda: timed(client, next(label)),
        "fsync of a page": lambda: fsync(site.agent.home.path),
    }
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(-5, rounds):
        for name, measure in kinds.items():
            took = measure()
            if number >= 0:
                times[name].append(took)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"\n{'median of ' + str(rounds) + ' whole processes':34} {'ms':>7} {'ratio':>6}")
    for name, median in medians.items():
        print(f"{name:34} {median:7.2f} {median / medians[BARE]:6.2f}")
    bare, reading, labelling, disk = medians.values()
    print(f"READ is {reading / bare:.2f} of starting Python (at most 1.5)")
    print(f"LABEL is {labelling / (2 * reading + disk):.2f} of 2 READs and an fsync (at most 1)")


def environments(site: Site) -> tuple[Iterator[dict[str, str]], Iterator[dict[str, str]]]:
    """Return what Bacula's requests for a READ and for a LABEL are made of, again and again."""

    def read() -> Iterator[dict[str, str]]:
        while True:
            for question in site.questions:
                verb, operation, name, wrapped, *_ = fields_of(question.frame)
                assert (verb, operation) == (b"getkey", b"READ")
                yield environment("READ", name.decode(), wrapped.decode())

    def label() -> Iterator[dict[str, str]]:
        number = 0
        while True:
            number += 1
            yield environment("LABEL", f"New-{number}", "")

    return read(), label()


def environment(operation: str, name: str, wrapped: str) -> dict[str, str]:
    asked = {"OPERATION": operation, "VOLUME_NAME": name, "ENC_CIPHER_KEY": wrapped}
    return {**STORAGE_ENV, **asked}


def fields_of(frame: bytes) -> list[bytes]:
    fields, rest = [], frame[8:]
    while rest:
        length = int.from_bytes(rest[:4], "big")
        fields.append(rest[4 : 4 + length])
        rest = rest[4 + length :]
    return fields


def timed(argv: list[str], env: dict[str, str]) -> float:
    """Return how many milliseconds a whole process took; it must have given a key, if asked to."""
    reading, writing = os.pipe()
    start = time.perf_counter()
    out = [(os.POSIX_SPAWN_DUP2, writing, 1)]
    pid = os.posix_spawn(argv[0], argv, env, file_actions=out)
    os.waitpid(pid, 0)
    took = time.perf_counter() - start
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    assert not env or b"cipher_key: " in answer, answer
    return 1000 * took


if __name__ == "__main__":
    main()
