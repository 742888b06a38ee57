"""``hwkm drive`` through the agent: the same words as without, and nobody waits for a drive."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import signal
import subprocess
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from hwkm.agent import verbs
from hwkm.checks import fail, ok
from hwkm.drive_verbs import NO_LOAD, Outcome, Request, Verb
from hwkm.errors import DeviceError, ParseError, PolicyError
from hwkm.scsi import emulator
from hwkm.scsi.emulator.store import opened
from tests.getkey import process
from tests.getkey.home import STORAGE_ENV, VOLUME, Home
from tests.getkey.process import User
from tests.getkey.replies import read_reply
from tests.getkey.tape import CARTRIDGE, StorageDaemon

from .agents import until
from .test_drive_jobs import _hanging, _job, no_job_left  # noqa: F401  # a fixture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.getkey.process import Run

    from .agents import Agent

ALONE = ("--socket", "/nowhere/agent.sock")
"""Nobody listens there: the command does it by itself."""
TAPE = "Tape-0001"
ENV = {"PATH": STORAGE_ENV["PATH"], "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Station:
    """An emulated drive of an installation's, and perhaps an agent."""

    home: Home
    path: Path
    agent: Agent

    @property
    def device(self) -> str:
        return f"emulator:{self.path}"

    @property
    def daemon(self) -> StorageDaemon:
        return StorageDaemon(self.home, self.path, TAPE)

    def run(self, verb: str, *words: str) -> Run:
        return self.home.hwkm("drive", verb, self.device, *words)

    def load(self, *words: str) -> Run:
        done = self.run("load", "--volume", TAPE, *words)
        assert done.status == 0, done
        return done

    def start(self, verb: str, *words: str, **how: Any) -> subprocess.Popen[bytes]:
        before = ("--config", str(self.home.config), "drive", verb)
        return process.start([*before, self.device, *words], ENV, **how)

    def ask(self, verb: Verb, **more: Any) -> Outcome:
        """Ask the agent itself, without the command."""
        with self.agent.connect() as connection:
            first, document = connection.ask(*verbs.fields(Request(verb, self.device, **more)))
        assert first == b"ok", document
        return verbs.outcome_of(document)

    def asked(self) -> dict[str, int]:
        """Return how requests about drives ended so far."""
        found: dict[str, int] = self.agent.status()["requests"].get("drive", {})
        return found

    def loads(self) -> set[bytes]:
        """Return the names of the keys that are on record as loaded."""
        rows = self.home.query("SELECT key_id FROM proof WHERE kind = 'load' AND encrypted = 1")
        return {row[0] for row in rows}

    def start_afresh(self) -> None:
        """Load the cartridge anew: a load that was killed counts as a wrong key until then."""
        emulator.Drive(self.path).eject()
        emulator.Drive(self.path).insert(CARTRIDGE)


@pytest.fixture(name="auto")
def _auto(home: Home) -> Home:
    home.edit('delivery = "software"', 'delivery = "auto"')
    return home


@pytest.fixture(name="made")
def _made(auto: Home, start_agent: Callable[..., Agent], tmp_path: Path) -> Callable[..., Station]:
    def make(**limits: Any) -> Station:
        path = tmp_path / "drive"
        emulator.create(path, "hpe-lto-9", cartridge=CARTRIDGE)
        return Station(auto, path, start_agent(auto, **limits))

    return make


@pytest.fixture(name="station")
def _station(made: Callable[..., Station]) -> Station:
    return made()


def general(run: Run) -> tuple[str, str, int]:
    """Return how a command ended, without the names of keys, their generations, and counters."""
    out, err = (re.sub(r"\b[0-9a-f]{16,}\b", "{hex}", text.decode()) for text in (run.out, run.err))
    out = re.sub(r"\d+ became \d+", "{n}", out)
    return re.sub(r'((?:counter|generation)"?: )\d+', r"\1{n}", out), err, run.status


class TestSameAnswers:
    """What people and scripts see is the same with and without an agent."""

    @pytest.mark.parametrize("words", [(), ("--json",)])
    def test_a_tape_through_its_life(self, station: Station, words: tuple[str, ...]) -> None:
        first = station.load("--create", *words)
        alone = station.load("--create", *words, *ALONE)
        assert general(first) == general(alone)
        assert b"Tape-0001" in first.out
        station.daemon.append(b"data")
        for verb in ("probe", "status", "prove", "auto"):
            runs = [station.run(verb, *words, *more) for more in ((), ALONE)]
            assert runs[0].status == 0, runs
            assert general(runs[0]) == general(runs[1])
            assert runs[0].out
        assert station.asked() == {"done": 5}
        cleared = station.run("clear", *words)
        assert station.daemon.held() is None
        station.load(*ALONE)
        assert general(cleared) == general(station.run("clear", *words, *ALONE))

    @pytest.mark.parametrize("words", [(), ("--json",)])
    def test_a_blank_tape(self, station: Station, words: tuple[str, ...]) -> None:
        done = station.run("auto", *words)
        assert general(done) == general(station.run("auto", *words, *ALONE))
        assert b"the tape asks for no key" in done.out
        assert (done.status, b"key_format" in done.out) == (0, bool(words))

    def test_errors(self, station: Station) -> None:
        asked = (
            ("load", "--volume", "Unknown"),
            ("load", "--volume", VOLUME),
            ("prove",),
        )
        for words in asked:
            done, alone = station.run(*words), station.run(*words, *ALONE)
            assert (done.out, done.err, done.status) == (alone.out, alone.err, alone.status)
            assert done.err.startswith(b"error: ")
        assert station.asked() == {"failed": len(asked)}

    def test_a_device_that_is_none(self, station: Station) -> None:
        runs = [station.home.hwkm("drive", "status", "/dev/null", *more) for more in ((), ALONE)]
        assert runs[0].err == runs[1].err != b""
        assert [run.status for run in runs] == [5, 5]

    def test_checks_and_then_the_error(self, station: Station) -> None:
        """A drive that does not encrypt: all checks are printed, and the error after them."""
        station.daemon.drive.tell_lie("mode-ignored")
        words = ("load", "--volume", TAPE, "--create")
        done, alone = station.run(*words), station.run(*words, *ALONE)
        assert general(done) == general(alone)
        assert done.status == 5
        assert b"fail encryption mode" in done.out
        assert b"not encrypted, check 'encryption mode'" in done.err

    @pytest.mark.parametrize("verb", ["probe", "status"])
    def test_a_reset_in_between(self, station: Station, verb: str) -> None:
        """All is shown, and then the alarm."""
        station.load("--create")
        station.daemon.drive.reset()
        done = station.run(verb)
        assert done.status == 5
        assert b"controlled by: " in done.out
        assert b"WHAT IS WRITTEN NOW IS NOT ENCRYPTED WITH IT" in done.err

    def test_a_drive_that_can_not_encrypt(
        self, auto: Home, start_agent: Any, tmp_path: Path
    ) -> None:
        path = tmp_path / "drive"
        emulator.create(path, "ibm-lto-3", cartridge="L30001L3")
        station = Station(auto, path, start_agent(auto))
        for words in (("probe",), ("status",), ("load", "--volume", TAPE, "--create")):
            done, alone = station.run(*words), station.run(*words, *ALONE)
            assert general(done)[1:] == general(alone)[1:]
            assert done.status == (words != ("status",))
        assert station.asked() == {"done": 1, "not done": 2}

    def test_a_path_from_where_the_command_is_run(self, station: Station, tmp_path: Path) -> None:
        before = ("--config", str(station.home.config), "drive", "probe")
        started = process.start([*before, "emulator:drive"], ENV, cwd=tmp_path)
        done = process.finish(started)
        assert done.status == 0, done
        assert done.out.startswith(b"device: emulator:drive\n")
        assert station.asked() == {"done": 1}


class TestRecords:
    def test_who_asked_is_on_record(self, station: Station) -> None:
        station.load("--create")
        assert station.daemon.held() in station.loads()
        rows = station.home.query("SELECT who FROM event WHERE volume = ?", TAPE)
        assert {row[0] for row in rows} == {process.ME.name}

    def test_a_line_in_the_log(self, station: Station) -> None:
        station.load("--create")
        station.run("prove")  # nothing is on the tape
        lines = [line for line in station.home.log if "drive load" in line or "drive prove" in line]
        for line, verb in zip(lines, ("load Tape-0001", "prove"), strict=True):
            where = f"(job -, device {station.device}, user {process.ME.name}): "
            assert f"drive {verb} {where}" in line
        assert " info: " in lines[0]
        assert "key id " in lines[0]

    def test_fields_in_the_log(self, auto: Home, start_agent: Any, tmp_path: Path) -> None:
        with auto.config.open("a") as file:
            file.write('\n[agent]\nlog_format = "json"\n')
        path = tmp_path / "drive"
        emulator.create(path, "hpe-lto-9", cartridge=CARTRIDGE)
        station = Station(auto, path, start_agent(auto))
        station.load("--create")
        station.run("load", "--volume", "Unknown")
        lines = [json.loads(line) for line in auto.log if '"event": "drive"' in line]
        common = {"verb": "load", "device": station.device, "user": process.ME.name}
        expected = [{"volume": TAPE, "outcome": "done"}, {"volume": "Unknown", "outcome": "failed"}]
        for line, fields in zip(lines, expected, strict=True):
            assert {name: line[name] for name in (*common, *fields)} == {**common, **fields}
        assert lines[0]["key_id"]
        assert lines[1]["error"] == "NotFoundError"

    def test_figures(self, station: Station) -> None:
        station.run("status")
        station.run("probe")
        found = station.agent.status()
        assert found["requests"]["drive"] == {"done": 2}
        assert (found["drive_verbs"], found["operations"]) == (0, {})


class TestSecrets:
    def test_the_key_is_nowhere(self, station: Station) -> None:
        with station.agent.connect() as connection:
            wish = Request(Verb.LOAD, station.device, TAPE, create=True)
            _, document = connection.ask(*verbs.fields(wish))
        with opened(station.path) as (state, _):
            assert state.shared is not None
            key = state.shared.key
        assert len(key) == 32
        done = station.load("--json")
        said = [document, done.out, done.err, station.home.log_file.read_bytes()]
        said.append(station.agent.errors.read_bytes())
        for shown in (key, key.hex().encode(), base64.b64encode(key)):
            assert not any(shown in text for text in said)


class TestHanging:
    def test_no_key_waits_for_it(
        self, station: Station, hanging: Callable[[Path], None], tmp_path: Path
    ) -> None:
        agent, other = station.agent, replace(station, path=tmp_path / "other")
        emulator.create(other.path, "hpe-lto-9", cartridge="L90002L9")
        hanging(station.path)
        hung = station.start("status")
        until(lambda: agent.status()["drive_verbs"] == 1)
        for _ in range(20):
            assert read_reply(agent.getkey("READ", VOLUME)).key
        assert read_reply(agent.getkey("LABEL", "Files-0002")).key
        other.load("--create")
        assert hung.poll() is None
        assert agent.status()["drive_verbs"] == 1
        done = process.finish(hung)  # the emulator gives up by itself
        assert done.status == 5, done
        assert (done.out, done.err.count(b"\n")) == (b"", 1)  # no word of waiting
        assert b"was not answered in time" in done.err

    def test_a_person_is_told(
        self, station: Station, hanging: Callable[[Path], None], tmp_path: Path
    ) -> None:
        hanging(station.path)
        ours, theirs = pty.openpty()
        hung = station.start("status", stderr=theirs)
        os.close(theirs)
        with closing(os.fdopen(ours, "rb", buffering=0)) as terminal:
            told = terminal.read(1024)
        process.end_session(hung.pid)
        hung.communicate()
        assert f"Waiting for the drive {station.device}; ".encode() in told
        assert told.count(b"\n") == 1

    def test_its_time_is_limited(
        self, made: Callable[..., Station], hanging: Callable[[Path], None]
    ) -> None:
        """There is an answer even if the process that waits for the drive hangs itself."""
        station = made(verb_seconds=6.0)
        hanging(station.path)
        hung = station.start("clear")
        os.kill(_job(station.agent), signal.SIGSTOP)
        done = process.finish(hung)
        assert (done.status, b"there was no answer in time" in done.err) == (5, True)
        assert process.wait_until(lambda: no_job_left(station.agent), 10)
        assert "drive clear" in station.home.log[-1]
        assert read_reply(station.agent.getkey("READ", VOLUME)).key

    def test_places(
        self, made: Callable[..., Station], hanging: Callable[[Path], None], tmp_path: Path
    ) -> None:
        """Verbs, changers and requests for keys take no places from each other."""
        station = made(drive_verbs=1, changes=1, drive_jobs=1)
        other = replace(station, path=tmp_path / "other")
        emulator.create(other.path, "hpe-lto-9", cartridge="L90002L9")
        hanging(station.path)
        hung = station.start("status")
        until(lambda: station.agent.status()["drive_verbs"] == 1)
        refused = other.run("status")
        assert (refused.status, b"too many requests" in refused.err) == (1, True)
        assert other.ask(Verb.LOADED).ok
        words = ("--device", other.device)
        assert b"cipher: NULL" in station.agent.getkey("LABEL", TAPE, b"", *words)
        assert hung.poll() is None
        process.end_session(hung.pid)
        hung.communicate()


PLAN = """
import os, signal
from itertools import count
from pathlib import Path
from hwkm.scsi.worker import WorkerTransport

numbers, complete, me = count(), WorkerTransport.complete, os.getpid()

def ending(transport, command):
    at, whom = Path({plan!r}).read_text().split()
    if whom != "nobody" and next(numbers) == int(at):
        if whom == "job":
            os.kill(os.getpid(), signal.SIGKILL)
        if whom == "agent":
            os.kill(me, signal.SIGKILL)
            signal.pause()
        if whom == "stop":
            Path({stopped!r}).touch()
            os.kill(os.getpid(), signal.SIGSTOP)
    return complete(transport, command)

WorkerTransport.complete = ending
"""
"""Ends a process of the agent's, before a drive job's command of a certain number."""


@dataclass
class Killer:
    """A station whose agent, or its jobs, are killed in the middle."""

    home: Home
    path: Path
    folder: Path
    start_agent: Callable[..., Agent]
    station: Station | None = None

    @property
    def plan(self) -> Path:
        return self.folder / "plan"

    @property
    def stopped(self) -> Path:
        return self.folder / "stopped"

    def start(self) -> Station:
        """Start an agent that keeps to the plan."""
        paths = (str(self.folder), process.command().python_path)
        env = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        agent = self.start_agent(self.home, {"env": env})
        return Station(self.home, self.path, agent)

    def load(self, station: Station, at: int, whom: str) -> Outcome:
        self.plan.write_text(f"{at} {whom}")
        return station.ask(Verb.LOAD, volume=TAPE, create=True)

    def forget(self) -> None:
        self.plan.write_text("0 nobody")


@pytest.fixture(name="killer")
def _killer(auto: Home, start_agent: Callable[..., Agent], tmp_path: Path) -> Iterator[Killer]:
    path, folder = tmp_path / "drive", tmp_path / "site"
    folder.mkdir()
    emulator.create(path, "hpe-lto-9", cartridge=CARTRIDGE)
    killer = Killer(auto, path, folder, start_agent)
    text = PLAN.format(plan=str(killer.plan), stopped=str(killer.stopped))
    (folder / "sitecustomize.py").write_text(text)
    with auto.config.open("a") as file:
        file.write(f'\n[agent]\ndrives = ["emulator:{path}"]\n')
    killer.forget()
    yield killer
    killer.forget()


class TestKilled:
    """Afterwards the drive holds no key but one that is on record as loaded."""

    def test_the_job_before_any_command(self, killer: Killer) -> None:
        station, at, ends = killer.start(), 0, set()
        while True:
            outcome = killer.load(station, at, "job")
            held = station.daemon.held()
            assert held is None or held in station.loads(), at
            ends.add((outcome.ok, held is None))
            if outcome.ok:
                break
            assert isinstance(outcome.error, DeviceError)
            assert "it was ended by SIGKILL" in str(outcome.error)
            station.start_afresh()
            at += 1
        assert at > 20
        assert ends == {(False, True), (True, False)}
        assert any("was not on record as loaded: taken out" in line for line in killer.home.log)
        assert station.agent.status()["token_process"]["starts"] == 1

    def test_the_job_of_a_label(self, killer: Killer) -> None:
        """Bacula is answered at once, and its drive is looked at afterwards."""
        station, at, words = killer.start(), 20, ("--device", f"emulator:{killer.path}")
        while True:
            killer.plan.write_text(f"{at} job")
            answer = station.agent.getkey("LABEL", TAPE, b"", *words)
            until(lambda: station.daemon.held() in (None, *station.loads()))
            if b"cipher: NULL" in answer:
                break
            assert b"it was ended by SIGKILL" in answer, at
            station.start_afresh()
            at += 3
        until(
            lambda: any("was not on record as loaded: taken out" in one for one in killer.home.log)
        )

    @pytest.mark.parametrize("at", [10, 20, 24, 28, 32, 36, 40])
    def test_the_agent(self, killer: Killer, at: int) -> None:
        station = killer.start()
        killer.plan.write_text(f"{at} agent")
        done = station.run("load", "--volume", TAPE, "--create")
        assert station.agent.wait() == -signal.SIGKILL
        assert (done.status, b"did not say what came of it" in done.err) == (5, True)
        assert process.wait_until(lambda: process.session(station.agent.running.pid) == (), 20)
        killer.forget()
        killer.start()  # which looks at the drive
        until(lambda: station.daemon.held() is None or station.daemon.held() in station.loads())
        station.start_afresh()
        station.load("--create")
        assert station.daemon.held() in station.loads()

    def test_the_client(self, killer: Killer) -> None:
        """The load goes on to its end."""
        station = killer.start()
        killer.plan.write_text("24 stop")
        asking = station.start("load", "--volume", TAPE, "--create")
        until(killer.stopped.exists)
        process.end_session(asking.pid)
        asking.communicate()
        job = _job(station.agent)
        killer.forget()
        os.kill(job, signal.SIGCONT)
        until(lambda: f"drive load {TAPE}" in station.home.log[-1])
        assert "done" in station.home.log[-1]
        assert station.daemon.held() in station.loads()
        until(lambda: station.agent.status()["connections"] == 1)


SCRIPT = """#!/bin/sh
echo "$(id -un) $2" >>{log}
case $2 in
    fail) exit 7 ;;
    *) printf 'out\\377'; printf 'err' >&2 ;;
esac
"""
OTHER = "daemon"
"""Somebody who is neither root nor the owner of the installation."""


@dataclass(frozen=True)
class Library:
    """A changer that another user than the agent's runs; it says who ran it."""

    station: Station
    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "moves"

    def run(self, operation: str, *words: str, user: str = OTHER) -> Run:
        script, device = str(self.folder / "mtx-changer"), self.station.device
        more = ("--", script, "/dev/sch0", operation, "1", device, "0")
        where = words or ("--socket", str(self.station.agent.socket))
        return self.station.home.hwkm("drive", "changer", *where, *more, user=User.named(user))

    def moves(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture(name="library")
def _library(owned: Home, base: Path, start_agent: Callable[..., Agent]) -> Library:
    """An installation of nobody's, of which nobody else may read a thing."""
    home = owned
    home.edit('delivery = "software"', 'delivery = "auto"')
    with home.config.open("a") as file:
        file.write(f'\n[agent]\ngetkey = ["{OTHER}"]\nmode = "0666"\n')
    home.config.chmod(0o600)
    folder = home.path.with_name(f"{home.path.name}-library")
    folder.mkdir()
    folder.chmod(0o1777)
    path = folder / "drive"
    emulator.create(path, "hpe-lto-9", cartridge=CARTRIDGE)
    os.chown(path, home.user.uid, home.user.gid)
    script = folder / "mtx-changer"
    script.write_text(SCRIPT.format(log=folder / "moves"))
    script.chmod(0o755)
    home.path.chmod(0o711)
    (home.path / "run").chmod(0o711)
    return Library(Station(home, path, start_agent(home)), folder)


class TestChanger:
    def test_as_the_storage_daemons_user(self, library: Library) -> None:
        """The command runs as its own user; the key's part is the agent's."""
        station = library.station
        assert station.ask(Verb.LOAD, volume=TAPE, create=True).ok
        station.daemon.append(b"data")
        key_id = station.daemon.held()
        done = library.run("unload")
        assert (done.status, done.out, done.err) == (0, b"out\xff", b"err")
        assert station.daemon.held() is None
        station.start_afresh()
        done = library.run("load")
        assert (done.status, done.out, done.err) == (0, b"out\xff", b"err")
        assert station.daemon.held() == key_id
        assert library.moves() == [f"{OTHER} unload", f"{OTHER} load"]
        assert station.agent.status()["requests"]["changer"] == {"done": 2}
        assert f"drive loaded (job -, device {station.device}, user {OTHER}): done" in "\n".join(
            station.home.log
        )

    def test_a_tape_whose_key_does_not_go_in_is_taken_back(self, library: Library) -> None:
        station = library.station
        assert station.ask(Verb.LOAD, volume=TAPE, create=True).ok
        station.daemon.append(b"data")
        station.start_afresh()
        station.daemon.drive.tell_lie("mode-ignored")
        done = library.run("load")
        assert done.status == 5
        assert b"not encrypted, check 'encryption mode'" in done.err
        assert library.moves() == [f"{OTHER} load", f"{OTHER} unload"]
        assert station.daemon.held() is None

    def test_a_changer_that_fails(self, library: Library) -> None:
        assert library.run("fail").status == 7
        assert "changer" not in library.station.agent.status()["requests"]

    def test_neither_agent_nor_configuration(self, library: Library) -> None:
        done = library.run("load", "--socket", "/nowhere/agent.sock")
        assert (done.status, done.out, library.moves()) == (2, b"", [])
        said = done.err.decode()
        assert "no agent answers at /nowhere/agent.sock" in said
        assert f"the configuration {library.station.home.config} can't be read" in said

    def test_without_an_option_the_usual_socket_is_asked(self, library: Library) -> None:
        done = library.run("load", "--device", library.station.device)
        assert done.status == 2, done
        assert b"no agent answers at /run/hwkm/agent.sock" in done.err

    def test_who_may_not(self, library: Library) -> None:
        """Who may have keys may not do whatever hwkm drive can, and others may do nothing."""
        station = library.station
        socket = ("--socket", str(station.agent.socket))
        for user, verb in ((OTHER, "status"), ("games", "status")):
            done = station.home.hwkm("drive", verb, station.device, *socket, user=User.named(user))
            assert done.status == 1, done
            assert f"{user} may not ask for 'drive'" in done.err.decode()
        done = library.run("unload", user="games")
        assert (done.status, library.moves()) == (1, [])
        assert b"games may not ask for 'changer'" in done.err
        assert station.home.hwkm("drive", "status", station.device).status == 0

    def test_an_agent_of_a_stranger_is_not_asked(self, library: Library, base: Path) -> None:
        """Whoever can put a socket there could say that a drive encrypts."""
        path = library.folder / "agent.sock"  # anybody may make files in this folder of root's
        script = (
            "import socket, sys\nserver = socket.socket(socket.AF_UNIX)\n"
            "server.bind(sys.argv[1])\nserver.listen()\nprint(flush=True)\nserver.accept()\n"
            "print(server.accept()[0].recv(9))"
        )
        user = User.named("games")
        words = [process.command().interpreter, "-c", script, str(path)]
        stranger = subprocess.Popen(
            words, stdout=subprocess.PIPE, user=user.uid, group=user.gid, extra_groups=[]
        )
        assert stranger.stdout is not None
        stranger.stdout.readline()
        path.chmod(0o666)
        done = library.run("load", "--socket", str(path))
        stranger.kill()
        stranger.communicate()
        assert (done.status, library.moves()) == (2, [])
        assert f"listens user id {user.uid}, who does not own the folder" in done.err.decode()


class TestRequests:
    def test_there_and_back(self) -> None:
        request = Request(Verb.LOAD, "/dev/nst0", "V", create=True, accept="S", barcode="B")
        asked = verbs.parse(verbs.fields(request, "7"), "me")
        assert (asked.request, asked.job, asked.who) == (request, "7", "me")
        changer = Request(Verb.UNLOADING, "/dev/nst0")
        assert verbs.fields(changer) == [b"changer", b"unloading", b"/dev/nst0", b""]
        assert verbs.parse(verbs.fields(changer), "me").request == changer
        assert verbs.parse([b"changer", b"loaded", b"/dev/nst0"], "me").job == ""

    @pytest.mark.parametrize(
        "fields",
        [
            [b"drive"],
            [b"drive", b""],
            [b"drive", b"{}"],
            [b"drive", b"[1]"],
            [b"drive", b"\xff"],
            [b"drive", b'{"verb": "eat", "device": "x"}'],
            [b"drive", b'{"verb": "loaded", "device": "x"}'],
            [b"drive", b'{"verb": "load", "device": ""}'],
            [b"drive", b'{"verb": "load", "device": "x\\n"}'],
            [b"drive", b'{"verb": "load", "device": "x", "create": 1}'],
            [b"drive", b'{"verb": "load", "device": "x", "key": "x"}'],
            [b"drive", b'{"verb": "probe", "device": "x"}', b""],
            [b"drive", b"[" * 60000],
            [b"changer"],
            [b"changer", b"loaded"],
            [b"changer", b"load", b"x"],
            [b"changer", b"clear", b"x"],
            [b"changer", b"loaded", b"\xff"],
            [b"changer", b"loaded", b"x", b"7", b"8"],
        ],
    )
    def test_hostile_ones(self, fields: list[bytes]) -> None:
        with pytest.raises(ParseError):
            verbs.parse(fields, "me")
        assert verbs.verb_of(fields) == "other"

    def test_a_hostile_one_is_refused(self, station: Station) -> None:
        with station.agent.connect() as connection:
            first, why = connection.ask(b"drive", b"{}")
        assert first == b"no"
        assert b"not as it should be" in why

    @pytest.mark.parametrize(
        "outcome",
        [
            Outcome(),
            Outcome({"b": 1, "a": [True, None, {"x": "é"}]}, (), ok=False),
            Outcome({"encrypted": False}, rest=NO_LOAD),
            Outcome({"x": 1}, (ok("a", "b"), fail("c", "d", "e")), ok=False),
        ],
    )
    def test_outcomes(self, outcome: Outcome) -> None:
        assert verbs.outcome_of(verbs.document_of(outcome)) == outcome

    @pytest.mark.parametrize("kind", [DeviceError, PolicyError])
    def test_errors_keep_words_and_status(self, kind: type[DeviceError]) -> None:
        found = verbs.outcome_of(verbs.document_of(verbs.failed(kind("what", hint="do"))))
        assert (type(found.error), str(found.error), found.ok) == (kind, "what", False)
        assert found.error is not None
        assert (found.error.hint, found.error.exit_code) == ("do", kind.exit_code)

    @pytest.mark.parametrize("document", [b"", b"{}", b"[]", b'{"shown": 1}'])
    def test_no_outcome(self, document: bytes) -> None:
        with pytest.raises(ParseError):
            verbs.outcome_of(document)
