"""Tape drives through the agent: a process for each request, and none holds up another."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hwkm.envelope import Envelope
from hwkm.scsi import emulator
from tests.getkey import process
from tests.getkey.home import VOLUME, Answer
from tests.getkey.replies import RefusedError, read_reply
from tests.getkey.tape import CARTRIDGE, StorageDaemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.getkey.home import Home

    from .agents import Agent

NOTHING = bytes(16)
DATA = b"what the job writes".ljust(1024, b"\0")


def answer_of(reply: bytes) -> Answer:
    try:
        return Answer(reply, read_reply(reply), "")
    except RefusedError:
        return Answer(reply, None, reply.decode().removeprefix("error: ").strip())


@dataclass(frozen=True)
class Station(StorageDaemon):
    """A Storage Daemon that asks the agent."""

    asked: Agent | None = None

    @property
    def agent(self) -> Agent:
        """The agent that it asks."""
        assert self.asked is not None
        return self.asked

    def ask(self, operation: str, wrapped: bytes = b"", *more: str) -> Answer:
        """Ask as its Encryption Command does."""
        words = ("--device", self.device, "--job", "7", *more)
        return answer_of(self.agent.getkey(operation, self.volume, wrapped, *words))


def station(agent: Agent, path: Path, volume: str = "Tape-0001") -> Station:
    emulator.create(path, "hpe-lto-9", cartridge=CARTRIDGE)
    return Station(agent.home, path, volume, agent)


@pytest.fixture(name="auto")
def _auto(home: Home) -> Home:
    home.edit('delivery = "software"', 'delivery = "auto"')
    return home


@pytest.fixture(name="made")
def _made(auto: Home, start_agent: Callable[..., Agent], tmp_path: Path) -> Callable[..., Station]:
    def make(**limits: Any) -> Station:
        return station(start_agent(auto, **limits), tmp_path / "drive")

    return make


def key_id(wrapped: bytes) -> bytes:
    return Envelope.parse(wrapped).header.key_id


def no_job_left(agent: Agent) -> bool:
    """Return whether the agent's only processes are itself and the one with the token."""
    return len(process.session(agent.running.pid)) == 2


class TestMounts:
    def test_a_volume_through_its_life(self, made: Callable[..., Station]) -> None:
        """LABEL, READ, recycled: the drive holds the key in the label, and it is on record."""
        daemon = made()
        first, again = daemon.label(), daemon.mount()
        daemon.append(DATA)
        second = daemon.label()
        for answer in (first, again, second):
            assert (answer.given.cipher, answer.given.key) == ("NULL", NOTHING)
        assert again.given.wrapped == first.given.wrapped
        ids = [key_id(one.given.wrapped) for one in (first, second)]
        assert daemon.key_ids() == ids
        assert daemon.held() == ids[1]
        assert daemon.proofs() == [("load", 1, "7"), ("hold", 1, "7"), ("load", 1, "7")]
        assert "encrypts: it was given the key" in daemon.home.log[-1]
        assert process.wait_until(lambda: no_job_left(daemon.agent), 5)

    def test_a_device_that_is_no_drive(self, made: Callable[..., Station], tmp_path: Path) -> None:
        agent = made().agent
        words = ("--device", str(tmp_path))
        given = read_reply(agent.getkey("LABEL", "Disk-1", b"", *words))
        assert given.cipher == "AES_256_XTS"
        assert read_reply(agent.getkey("READ", "Disk-1", given.wrapped, *words)) == given

    def test_only_the_label_says_that_it_is_a_drives(
        self, home: Home, start_agent: Callable[..., Agent], tmp_path: Path
    ) -> None:
        """Where the policy knows no drives, a volume of one is still found to be a drive's."""
        home.edit('delivery = "software"', 'delivery = "auto"')
        daemon = station(start_agent(home), tmp_path / "drive")
        wrapped = daemon.label().given.wrapped
        daemon.hwkm("clear")
        home.edit('delivery = "auto"', 'delivery = "software"')
        daemon.agent.signal(signal.SIGHUP)
        assert process.wait_until(lambda: daemon.agent.status()["reloads"] == 1, 20)
        assert daemon.ask("READ", wrapped).given.cipher == "NULL"
        assert daemon.held() == key_id(wrapped)

    def test_what_the_token_refuses_reaches_the_drive(
        self, auto: Home, shim_module: Path, start_agent: Callable[..., Agent], tmp_path: Path
    ) -> None:
        """An error crosses two processes with its words; the drive then holds no key."""
        auto.use_shim(shim_module)
        auto.plan("C_GenerateRandom:error=0x30")
        daemon = station(start_agent(auto), tmp_path / "drive")
        answer = daemon.label()
        assert "the token or its connection is faulty (CKR_DEVICE_ERROR, 0x30)" in answer.error
        assert daemon.held() is None
        assert daemon.key_ids() == []
        assert ("label", "failed", "Tape-0001", "7") in daemon.home.events()

    def test_a_refusal_of_the_policy_is_recorded_as_one(
        self, auto: Home, start_agent: Callable[..., Agent], tmp_path: Path
    ) -> None:
        auto.edit('delivery = "auto"', 'delivery = "drive"')
        agent = start_agent(auto)
        answer = answer_of(agent.getkey("LABEL", "T", b"", "--device", str(tmp_path)))
        assert "the policy wants the drive to encrypt, and it can't" in answer.error
        assert ("label", "refused", "T", None) in auto.events()


@pytest.fixture(name="hanging")
def _hanging(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Returns what lets a drive hang until the test is over."""
    held = []

    def hang(path: Path) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        held.append(closing(connection))

    yield hang
    for one in held:
        one.__exit__()


class TestHanging:
    def test_no_key_waits_for_a_drive(
        self, made: Callable[..., Station], hanging: Callable[[Path], None], tmp_path: Path
    ) -> None:
        """Not even one for another drive."""
        daemon = made()
        agent = daemon.agent
        other = station(agent, tmp_path / "other", "Tape-0002")
        hanging(daemon.path)
        with ThreadPoolExecutor(1) as pool:
            hung = pool.submit(daemon.ask, "LABEL")
            assert process.wait_until(lambda: agent.status()["drive_jobs"] == 1, 10)
            assert read_reply(agent.getkey("READ", VOLUME)).key
            assert other.label().given.cipher == "NULL"
            assert agent.status()["drive_jobs"] == 1
            assert not hung.done()
            # Nobody knows whether it holds a key, with which all would be encrypted once more.
            assert "was not answered in time" in hung.result().error
        assert "was not answered in time" in agent.home.log[-1]

    def test_at_the_deadline_its_process_is_ended(
        self, made: Callable[..., Station], hanging: Callable[[Path], None]
    ) -> None:
        """There is an answer even if the process that waits for the drive hangs itself."""
        daemon = made(answer_seconds=6.0)
        agent = daemon.agent
        hanging(daemon.path)
        with ThreadPoolExecutor(1) as pool:
            hung = pool.submit(daemon.ask, "LABEL")
            os.kill(_job(agent), signal.SIGSTOP)
            assert "there was no answer in time" in hung.result().error
        assert process.wait_until(lambda: no_job_left(agent), 10)
        assert read_reply(agent.getkey("READ", VOLUME)).key

    def test_a_process_that_is_killed(
        self, made: Callable[..., Station], hanging: Callable[[Path], None]
    ) -> None:
        daemon = made()
        agent = daemon.agent
        hanging(daemon.path)
        with ThreadPoolExecutor(1) as pool:
            hung = pool.submit(daemon.ask, "LABEL")
            os.kill(_job(agent), signal.SIGKILL)
            assert "it was ended by SIGKILL" in hung.result().error
        assert read_reply(agent.getkey("READ", VOLUME)).key
        assert agent.status()["token_process"]["starts"] == 1

    def test_not_too_many_at_once(
        self, made: Callable[..., Station], hanging: Callable[[Path], None]
    ) -> None:
        daemon = made(drive_jobs=1)
        agent = daemon.agent
        hanging(daemon.path)
        with ThreadPoolExecutor(1) as pool:
            hung = pool.submit(daemon.ask, "LABEL")
            _job(agent)
            assert "too many" in daemon.ask("LABEL").error
            assert read_reply(agent.getkey("READ", VOLUME)).key
            assert not hung.done()

    def test_the_token_ends_in_between(
        self, made: Callable[..., Station], hanging: Callable[[Path], None], tmp_path: Path
    ) -> None:
        """What the drive job asked for is asked of the process that takes its place, or refused."""
        daemon = made()
        agent = daemon.agent
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(daemon.ask, "LABEL")
            _job(agent)
            os.kill(agent.token_pid(), signal.SIGKILL)
            reply = answer.result()
        assert reply.reply is None or reply.given.cipher == "NULL"
        assert process.wait_until(lambda: agent.status()["token_process"]["starts"] == 2, 10)
        assert daemon.label().given.cipher == "NULL"
        assert daemon.held() == daemon.key_ids()[-1]

    def test_the_end_of_the_agent_is_the_end_of_its_jobs(
        self, made: Callable[..., Station], hanging: Callable[[Path], None]
    ) -> None:
        daemon = made(end_seconds=1.0)
        agent = daemon.agent
        hanging(daemon.path)
        with ThreadPoolExecutor(1) as pool:
            hung = pool.submit(_ask_until_closed, daemon)
            _job(agent)
            agent.signal(signal.SIGTERM)
            assert agent.wait() == 0
            assert hung.result() == "closed"
        assert process.wait_until(lambda: process.session(agent.running.pid) == (), 10)


def _ask_until_closed(daemon: Station) -> str:
    from .raw import ClosedError

    try:
        return daemon.ask("LABEL").error
    except ClosedError:
        return "closed"


def _job(agent: Agent) -> int:
    """Wait for a drive job, and return its process."""
    known = {agent.running.pid, agent.token_pid()}

    def jobs() -> list[int]:
        """Processes of the agent's own: not those that they hold devices with."""
        return [pid for pid in process.session(agent.running.pid) if _parent(pid) in known]

    assert process.wait_until(lambda: set(jobs()) - known != set(), 10)
    (job,) = set(jobs()) - known
    time.sleep(0.3)  # until it waits for the drive
    return job


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
