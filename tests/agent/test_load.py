"""An hour of eight Storage Daemons with four drives each, in a minute.

All of them ask at once, mount after mount, while the token is killed and brought back ten times.
What is compressed is the hour and what the agent waits for, nothing else: agent, token, keystore,
drives and ``hwkm-getkey`` are whole ones. The two daemons that have tape drives name their devices,
as Bacula's %a does, so each of their requests is a drive job.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from hwkm.envelope import Envelope
from hwkm.scsi import commands, emulator
from tests.bacula import volume as bacula
from tests.getkey.home import Answer
from tests.getkey.replies import RefusedError, Reply, read_reply
from tests.getkey.tape import StorageDaemon, label_block, refusal

from . import raw
from .agents import Agent, until
from .lean import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.getkey.home import Home

DAEMONS, DRIVES = 8, 4
WITH_TAPES = 2
"""So many of the daemons have tape drives, two each, and name the device of each drive."""
MINUTES = 60
SECONDS_OF_A_MINUTE = 0.7
TAPE_MINUTES = 5
"""How often a tape is mounted; a disk volume is every minute."""
VOLUMES = 2
"""Of each drive."""
BY_SCRIPT = 0.1
"""The share of the mounts for which ``hwkm-getkey`` is started, where there is no tape."""
LIMITS = {"answer_seconds": 10.0, "restart_seconds": 0.7, "reload_seconds": 0.7}
"""What the agent waits for, compressed less than the hour: drives and disks are as slow as ever."""
SERVED_SECONDS = 60.0
"""Whatever was done to the token: who asks again and again is served before that."""
ASK_AGAIN_SECONDS = 0.3
AWAY_SECONDS = 1.0
PROFILES = ("ibm-lto-8", "hpe-lto-9")
BLOWS = 10
TAPES = """[[policy]]
volumes = "HW.*"
cipher = "AES_256_XTS"
delivery = "drive"
"""
"""Goes before the rule for all other volumes."""

EXPLAINED = {
    "the token process ended": r"the process that owns the token ended",
    "the token process hung": r"the process that owns the token did not answer in time",
    "the token was busy": r"the token was busy with others for too long",
    "the token is away": r"token 'main' was lost \d+ s ago \(.+\)",
    "the token failed": r"CKR_\w+",
    "the token is gone": r"no token matches|no token at hand",
    # By the process that is stopped, if that happens while it writes.
    "the keystore was locked": r"the keystore failed: database is locked",
    "the drive did not answer": r"drive.* was not answered in time|there was no answer in time",
}
"""What may be the reason of a refusal here, by what it is counted as."""
ENTRIES = {"LABEL": ("label",), "READ": ("read", "drive-hold", "drive-load")}
"""What the events of an answer are called."""


# --- what the daemons got ---


@dataclass(frozen=True, slots=True)
class Given:
    """A key that was given, and for what."""

    operation: str
    volume: str
    job: str
    reply: Reply

    @property
    def key_id(self) -> bytes:
        """The name of the key, from the envelope."""
        return Envelope.parse(self.reply.wrapped).header.key_id


@dataclass(slots=True)
class Ledger:
    """What all daemons got; written by many threads, each entry in one step."""

    given: list[Given] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    """Job and reason."""
    unanswered: list[str] = field(default_factory=list)
    """What became of a connection whose request nobody answered: the agent was killed."""
    mounts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    script_jobs: set[str] = field(default_factory=set)

    def labels(self) -> list[Given]:
        """Return the answers to LABEL."""
        return [one for one in self.given if one.operation == "LABEL"]

    def expect(self, *, true: bool, otherwise: str) -> None:
        """Note a fault; the play goes on, so that all of them are seen."""
        if not true:
            self.faults.append(otherwise)


@dataclass
class Daemon:
    """The Storage Daemon's side for one drive: every request is made until it is answered."""

    number: int
    socket: Path
    config: Path
    client: Client
    ledger: Ledger
    device: str = ""
    requests: int = 0

    def ask(self, operation: str, volume: str, wrapped: bytes = b"", *, script: bool) -> Reply:
        """Ask again and again, as an operator has Bacula do."""
        end = time.monotonic() + SERVED_SECONDS
        while time.monotonic() < end:
            answer = self._ask_once(operation, volume, wrapped, script=script)
            if answer is not None:
                return answer
            time.sleep(ASK_AGAIN_SECONDS)
        raise AssertionError(f"{operation} {volume} was not answered in {SERVED_SECONDS} s")

    def _ask_once(
        self, operation: str, volume: str, wrapped: bytes, *, script: bool
    ) -> Reply | None:
        self.requests += 1
        job = f"{self.number + 1}{self.requests:05}"
        words = ("--job", job, *(("--device", self.device) if self.device else ()))
        try:
            if script:
                self.ledger.script_jobs.add(job)
                answer = self._by_script(operation, volume, wrapped, words)
            else:
                answer = self._by_socket(operation, volume, wrapped, words)
        except (raw.ClosedError, ConnectionError, FileNotFoundError) as error:
            self.ledger.unanswered.append(type(error).__name__)
            return None
        if answer.reply is None:
            self.ledger.refused.append((job, answer.error))
            return None
        self.ledger.given.append(Given(operation, volume, job, answer.reply))
        return answer.reply

    def _by_socket(
        self, operation: str, volume: str, wrapped: bytes, words: Sequence[str]
    ) -> Answer:
        with raw.connected(self.socket) as connection:
            out = connection.getkey(operation, volume, wrapped, words)
        try:
            return Answer(out, read_reply(out), "")
        except RefusedError:
            found = re.fullmatch(rb"error: ([^\r\n]+)\n", out)
            assert found is not None, out
            return Answer(out, None, found[1].decode())

    def _by_script(
        self, operation: str, volume: str, wrapped: bytes, words: Sequence[str]
    ) -> Answer:
        request = raw.getkey_fields(operation, volume, wrapped)
        names = ("OPERATION", "VOLUME_NAME", "ENC_CIPHER_KEY", "MASTER_KEYID")
        return self.client.ask(
            before=("--socket", str(self.socket), "--config", str(self.config)),
            options=words,
            env=dict(zip(names, request[1:], strict=True)),
        )


# --- drives ---


@dataclass
class Disk:
    """A volume in a file: its label, as the Storage Daemon wrote it."""

    name: str
    label: Reply | None = None


@dataclass
class DiskDrive:
    """A drive whose volumes software encrypts."""

    daemon: Daemon
    volumes: list[Disk]
    chance: random.Random
    minutes = 1

    def mount(self) -> None:
        """Mount a volume for whatever Bacula wants of it."""
        disk = self.chance.choice(self.volumes)
        script = self.chance.random() < BY_SCRIPT
        if disk.label is None:
            kind = "new"
            self._label(disk, script=script)
        else:
            kind = self.chance.choice(("recycled", "append", "restore"))
        self._read(disk, script=script)
        if kind in ("new", "recycled"):
            self._label(disk, script=script)
        self.daemon.ledger.mounts.append(kind)

    def _label(self, disk: Disk, *, script: bool) -> None:
        disk.label = self.daemon.ask("LABEL", disk.name, script=script)

    def _read(self, disk: Disk, *, script: bool) -> None:
        assert disk.label is not None
        reply = self.daemon.ask("READ", disk.name, disk.label.wrapped, script=script)
        self.daemon.ledger.expect(true=reply == disk.label, otherwise=f"{disk.name}: another key")


@dataclass
class Cartridge:
    """A tape: its label and its data, as the Storage Daemon wrote them."""

    barcode: str
    label: Reply | None = None
    data: bytes = b""


@dataclass
class TapeDrive:
    """A drive that encrypts; that a key is the right one shows when it reads what it wrote."""

    daemon: Daemon
    drive: StorageDaemon
    volumes: list[Cartridge]
    chance: random.Random
    minutes = TAPE_MINUTES
    loaded: str = ""
    autos: Counter[str] = field(default_factory=Counter)

    def mount(self) -> None:
        """Mount a cartridge for whatever Bacula wants of it."""
        tape = self.chance.choice(self.volumes)
        self.load(tape)
        if tape.label is None:
            kind = "new tape"
            self._label(tape)
        else:
            kind = self.chance.choice(("recycled tape", "restore from tape"))
        self.read(tape)
        if kind != "restore from tape":
            self._label(tape)
        self.daemon.ledger.mounts.append(kind)

    def load(self, tape: Cartridge) -> None:
        """Put a cartridge in, and have its key brought in as a changer script does."""
        if self.loaded != tape.barcode:
            self.drive.drive.insert(tape.barcode)
            self.loaded = tape.barcode
        if tape.label is not None:
            until(self._auto)

    def _auto(self) -> bool:
        run = self.drive.hwkm("auto")
        self.autos["good" if run.status == 0 else run.err.decode().splitlines()[-1]] += 1
        return run.status == 0

    def read(self, tape: Cartridge, *, script: bool = False) -> None:
        """Read the label, ask, and read the data."""
        assert tape.label is not None
        self.drive.run(commands.rewind())
        scratch = self.drive.path.with_suffix(".label")
        scratch.write_bytes(self.drive.read())
        wrapped = bacula.label(scratch).wrapped_key
        self._expect(wrapped == tape.label.wrapped, f"{tape.barcode}: another label")
        reply = self.daemon.ask("READ", tape.barcode, wrapped, script=script)
        self._expect(reply == tape.label, f"{tape.barcode}: another answer")
        self.drive.run(commands.locate(2))
        how = refusal(self.drive)
        self._expect(how == "read", f"{tape.barcode} can't be read: {how}")
        self.drive.run(commands.locate(2))
        self._expect(self.drive.read() == tape.data, f"{tape.barcode}: other data")

    def _label(self, tape: Cartridge) -> None:
        reply = self.daemon.ask("LABEL", tape.barcode, script=False)
        named = Envelope.parse(reply.wrapped).header.key_id
        self._expect(reply.cipher == "NULL", f"{tape.barcode}: {reply.cipher}")
        self._expect(self.drive.held() == named, f"{tape.barcode}: another key in the drive")
        tape.data = named.ljust(1024, b"\0")
        self.drive.run(commands.rewind())
        self.drive.append(label_block(tape.barcode, reply.wrapped, reply.master_id))
        self.drive.run(commands.write_filemarks(1))
        self.drive.append(tape.data)
        tape.label = reply

    def _expect(self, true: bool, otherwise: str) -> None:
        self.daemon.ledger.expect(true=true, otherwise=otherwise)


def play(drive: DiskDrive | TapeDrive, begin: threading.Barrier, over: threading.Event) -> None:
    """Mount on the minute, all drives at once, for an hour; until it is ``over`` if that is later.

    Whoever is late goes on at once.
    """
    begin.wait()
    start = time.monotonic()
    for minute in itertools.count(0, drive.minutes):
        if minute >= MINUTES and over.is_set():
            return
        time.sleep(max(0.0, start + minute * SECONDS_OF_A_MINUTE - time.monotonic()))
        drive.mount()


# --- what happens to the token ---


@dataclass
class Fate:
    """Kills the token and brings it back; each way leaves it working."""

    home: Home
    agent: Agent
    done: list[str] = field(default_factory=list)

    def blows(self) -> Iterator[Callable[[], None]]:
        """Return what is done, in turn."""
        yield from (self.token_killed, self.folder_away, self.agent_killed, self.token_hangs)
        yield from (self.token_crashes, self.killed_while_away, self.agent_told_to_end)
        yield from (self.folder_away, self.agent_killed, self.killed_twice)

    def strike(self, blow: Callable[[], None]) -> None:
        """Do it, and wait until the agent has given a key again."""
        blow()
        self.done.append(blow.__name__)
        before = self._given()
        until(lambda: self._given() > before)

    def token_killed(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Wait until another process is in its place."""
        pid, starts = self.agent.token_pid(), self._starts()
        os.kill(pid, number)
        until(lambda: self._starts() > starts)

    def token_crashes(self) -> None:
        self.token_killed(signal.SIGSEGV)

    def token_hangs(self) -> None:
        """It is found out, and killed, when a request has waited for it too long."""
        self.token_killed(signal.SIGSTOP)

    def killed_twice(self) -> None:
        """The second time it may not be started anew at once."""
        self.token_killed()
        self.token_killed()

    def folder_away(self) -> None:
        with self._away():
            time.sleep(AWAY_SECONDS)

    def killed_while_away(self) -> None:
        """The process that takes its place finds no token."""
        with self._away():
            self.token_killed()
            time.sleep(AWAY_SECONDS)

    def agent_killed(self) -> None:
        self.agent.running.kill()
        self.agent.running.wait()
        self._begin_again()

    def agent_told_to_end(self, *, again: bool = True) -> None:
        self.agent.signal(signal.SIGTERM)
        assert self.agent.wait() == 0
        if again:
            self._begin_again()

    def _begin_again(self) -> None:
        time.sleep(AWAY_SECONDS / 2)
        self.agent = Agent.start(self.home, LIMITS)

    @contextmanager
    def _away(self) -> Iterator[None]:
        here, there = self.home.path / "tokens", self.home.path / "taken-away"
        here.rename(there)
        try:
            yield
        finally:
            if here.exists():
                shutil.rmtree(here)
            there.rename(here)

    def _given(self) -> int:
        return int(self.agent.status()["requests"].get("getkey", {}).get("given", 0))

    def _starts(self) -> int:
        return int(self.agent.status()["token_process"]["starts"])


# --- the play, and what is looked at afterwards ---


def drives_of(home: Home, client: Client, ledger: Ledger) -> list[DiskDrive | TapeDrive]:
    """Return the drives of all daemons."""
    socket = home.path / "run" / "agent.sock"
    return [
        _drive(Daemon(number, socket, home.config, client, ledger), home)
        for number in range(DAEMONS * DRIVES)
    ]


def _drive(daemon: Daemon, home: Home) -> DiskDrive | TapeDrive:
    number, chance = daemon.number, random.Random(daemon.number)
    named = number < WITH_TAPES * DRIVES
    if named and number % 2:
        return _tape_drive(daemon, home, chance)
    if named:
        folder = home.path / f"disk-{number}"
        folder.mkdir()
        daemon.device = str(folder)
    return DiskDrive(daemon, [Disk(f"Disk-{number}-{n}") for n in range(VOLUMES)], chance)


def _tape_drive(daemon: Daemon, home: Home, chance: random.Random) -> TapeDrive:
    path = home.path / f"drive-{daemon.number}"
    profile = PROFILES[daemon.number // 2 % 2]
    emulator.create(path, profile, serial=f"LOAD{daemon.number:06}")
    drive = StorageDaemon(home, path)
    daemon.device = drive.device
    ending = f"L{profile[-1]}"
    tapes = [Cartridge(f"HW{daemon.number:02}{n:02}{ending}") for n in range(VOLUMES)]
    return TapeDrive(daemon, drive, tapes, chance)


def hour(drives: Sequence[DiskDrive | TapeDrive], fate: Fate) -> None:
    """Play it through."""
    begin, over = threading.Barrier(len(drives) + 1), threading.Event()
    with ThreadPoolExecutor(len(drives)) as pool:
        played = [pool.submit(play, drive, begin, over) for drive in drives]
        begin.wait()
        try:
            for blow in fate.blows():
                time.sleep(2 * SECONDS_OF_A_MINUTE)
                fate.strike(blow)
        finally:
            over.set()
        for one in played:
            one.result()


def look_at_labels(ledger: Ledger) -> None:
    """Each LABEL gave a key of its own."""
    labels = ledger.labels()
    ledger.expect(
        true=len({one.key_id for one in labels}) == len(labels), otherwise="a key id came twice"
    )
    keys = [one.reply.key for one in labels if one.reply.cipher != "NULL"]
    ledger.expect(true=len(set(keys)) == len(keys), otherwise="a key came twice")


def look_at_keystore(home: Home, ledger: Ledger) -> None:
    """No generation is lost, and what was given is on record before it was."""
    rows = home.query("SELECT key_id, name FROM generation JOIN volume USING (volume_id)")
    known = dict(rows)
    events = home.query("SELECT operation, volume, key_id, job FROM event WHERE outcome = 'ok'")
    recorded = set(events)
    for one in ledger.given:
        ledger.expect(
            true=known.get(one.key_id) == one.volume,
            otherwise=f"{one.volume}: a generation is lost",
        )
        entries = {(name, one.volume, one.key_id, one.job) for name in ENTRIES[one.operation]}
        ledger.expect(
            true=bool(entries & recorded), otherwise=f"{one.operation}, job {one.job}: no event"
        )


def look_at_refusals(home: Home, ledger: Ledger) -> Counter[str]:
    """Return how many there were by their reasons; each names one, and has its line in the log."""
    lines: dict[str, list[str]] = {}
    for line in home.log:
        if " error: " in line and (found := re.search(r"\(job (\d+),", line)):
            lines.setdefault(found[1], []).append(line)
    counts: Counter[str] = Counter()
    for job, reason in ledger.refused:
        counts[explained(reason)] += 1
        said = any(reason[:200] in line for line in lines.get(job, []))
        ledger.expect(true=said, otherwise=f"job {job}: not in the log: {reason}")
    return counts


def explained(reason: str) -> str:
    """Return what a reason is counted as; one that is not to be here as it is."""
    return next((name for name, said in EXPLAINED.items() if re.search(said, reason)), reason)


def ask_agent_again(agent: Agent, ledger: Ledger) -> None:
    """Every key that software ever was given is given again for its label."""
    for one in ledger.labels():
        if one.reply.cipher != "NULL":
            again = read_reply(agent.getkey("READ", one.volume, one.reply.wrapped))
            ledger.expect(true=again == one.reply, otherwise=f"{one.volume}: the agent errs")


def ask_without_agent(home: Home, disks: Sequence[Disk], ledger: Ledger) -> None:
    """A process that knows nothing of the hour gives each volume its key."""
    options = ("--no-agent", "the test wants it so")

    def ask(disk: Disk) -> None:
        assert disk.label is not None
        again = home.getkey("READ", disk.name, disk.label.wrapped, options=options)
        ledger.expect(true=again.reply == disk.label, otherwise=f"{disk.name}: {again.error}")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ask, disks))


def read_without_agent(drive: TapeDrive) -> None:
    """Read a drive's tapes, its key taken out before; each request is a process of its own."""
    for tape in drive.volumes:
        assert drive.drive.hwkm("clear").status == 0
        drive.load(tape)
        drive.read(tape, script=True)


@pytest.fixture
def client(tmp_path: Path) -> Client:
    made = Client.create(tmp_path)
    made.use_hwkm()
    return made


@pytest.fixture
def fate(home: Home) -> Iterator[Fate]:
    """An agent under which tape drives encrypt; it ends with the test."""
    home.edit('delivery = "software"', 'delivery = "auto"')
    home.edit("[[policy]]", f"{TAPES}\n[[policy]]")
    fate = Fate(home, Agent.start(home, LIMITS))
    yield fate
    fate.agent.kill()


@pytest.mark.timeout(900)  # a minute, unless others use the machine too
def test_an_hour(
    home: Home, client: Client, fate: Fate, capsys: pytest.CaptureFixture[str]
) -> None:
    """No wrong key, no generation lost, each refusal explained."""
    ledger = Ledger()
    drives = drives_of(home, client, ledger)
    hour(drives, fate)
    ask_agent_again(fate.agent, ledger)
    fate.agent_told_to_end(again=False)
    look_at_labels(ledger)
    look_at_keystore(home, ledger)
    refusals = look_at_refusals(home, ledger)
    disks = [drive for drive in drives if isinstance(drive, DiskDrive)]
    tapes = [drive for drive in drives if isinstance(drive, TapeDrive)]
    with capsys.disabled():
        tell(ledger, refusals, fate, sum((drive.autos for drive in tapes), Counter()))
    ask_without_agent(home, [one for drive in disks for one in drive.volumes if one.label], ledger)
    for drive in tapes:
        read_without_agent(drive)
    assert ledger.faults == [], "\n".join(ledger.faults)
    assert set(refusals) <= set(EXPLAINED)
    # Else nothing of this happened while keys were asked for.
    assert len(fate.done) == BLOWS
    assert refusals.total()
    assert any("the agent was not used" in line for line in home.log)


def tell(ledger: Ledger, refusals: Counter[str], fate: Fate, changes: Counter[str]) -> None:
    """Print what it came to."""
    mounts = Counter(ledger.mounts)
    print(f"\n{mounts.total()} mounts: {dict(mounts)}")
    print(f"{len(ledger.given)} keys given, {len(ledger.labels())} of them at LABEL")
    print(f"{len(ledger.script_jobs)} requests made by hwkm-getkey")
    print(f"{refusals.total()} refusals: {dict(refusals)}")
    print(f"without an answer, the agent being gone: {dict(Counter(ledger.unanswered))}")
    print(f"tapes' keys brought in by hwkm drive auto: {dict(changes)}")
    print(f"what was done: {', '.join(fate.done)}")
