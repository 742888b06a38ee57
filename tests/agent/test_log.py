"""The agent's log: sentences as ever, or fields, and never a key."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from hwkm.agent import structured_log
from hwkm.agent.structured_log import StructuredLog
from hwkm.envelope import Envelope
from hwkm.log import Log
from tests.getkey import devlog, process
from tests.getkey.home import VOLUME
from tests.getkey.process import IS_ROOT
from tests.getkey.replies import read_reply
from tests.leaks.spellings import search

from . import raw
from .agents import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.getkey.home import Home

    from .agents import Agent

FIRST = ["time", "level", "event", "message", "pid"]


def use_json(home: Home) -> None:
    home.edit("[token.main]", '[agent]\nlog_format = "json"\n\n[token.main]')


def lines(home: Home) -> list[dict[str, Any]]:
    """Return the log's lines; each must be one JSON object."""
    return [json.loads(line) for line in home.log]


def about_keys(home: Home) -> list[dict[str, Any]]:
    return [line for line in lines(home) if line["event"] == "key"]


@pytest.fixture(name="json_agent")
def _json_agent(home: Home, start_agent: Callable[..., Agent]) -> Agent:
    use_json(home)
    home.log_file.write_text("")
    return start_agent(home)


class TestJson:
    def test_a_key_that_is_given(self, json_agent: Agent) -> None:
        home = json_agent.home
        reply = read_reply(
            json_agent.getkey("LABEL", "A", b"", "--job", "77", "--device=/dev/nst3")
        )
        header = Envelope.parse(reply.wrapped).header
        (line,) = about_keys(home)
        assert list(line)[:5] == FIRST
        assert line["level"] == "info"
        assert line["message"].startswith("LABEL A (job 77, device /dev/nst3): gave generation 1")
        assert line["pid"] == json_agent.token_pid()
        assert line["milliseconds"] > 0
        wanted = {
            "operation": "label",
            "volume": "A",
            "job": "77",
            "device": "/dev/nst3",
            "user": process.ME.name,
            "outcome": "given",
            "generation": 1,
            "key_id": header.key_id.hex(),
            "cipher": "AES_256_XTS",
        }
        assert {name: line.get(name) for name in wanted} == wanted
        assert set(line) == {*FIRST, *wanted, "milliseconds"}

    @pytest.mark.parametrize(
        ("operation", "volume", "words", "error"),
        [
            ("READ", "Unknown", ("--job", "8"), "NotFoundError"),
            ("EAT", VOLUME, ("--job", "8"), "ParseError"),
            ("READ", "no such name", ("--job", "8"), "ParseError"),
            ("LABEL", VOLUME, ("--job", "8", "--cipher", "NULL"), "ConfigError"),
        ],
    )
    def test_a_key_that_is_not(
        self, json_agent: Agent, operation: str, volume: str, words: tuple[str, ...], error: str
    ) -> None:
        answer = json_agent.getkey(operation, volume, b"", *words)
        (line,) = about_keys(json_agent.home)
        assert answer.decode() == f"error: {line['reason']}\n"
        wanted = {"level": "error", "outcome": "not given", "error": error, "job": "8"}
        wanted |= {"operation": operation.lower(), "volume": volume}
        assert {name: line.get(name) for name in wanted} == wanted

    def test_words_that_are_wrong(self, json_agent: Agent) -> None:
        json_agent.getkey("READ", VOLUME, b"", "--job", "8", "--unknown", "1")
        (line,) = about_keys(json_agent.home)
        assert (line["volume"], line["error"]) == (VOLUME, "ConfigError")

    def test_one_whose_process_is_gone(self, json_agent: Agent) -> None:
        token = json_agent.token_pid()
        os.kill(token, signal.SIGSTOP)
        with json_agent.connect() as connection:
            fields = [b"getkey", b"READ", VOLUME.encode(), b"", b"", b"--job", b"9"]
            connection.socket.sendall(raw.frame(*fields))
            assert process.wait_until(lambda: json_agent.status()["in_flight"] == 2, 20)
            os.kill(token, signal.SIGSEGV)  # as a module does; it gets it when it goes on
            os.kill(token, signal.SIGCONT)
            assert connection.answer()[1].startswith(b"error: ")
        (line,) = about_keys(json_agent.home)
        assert (line["job"], line["error"], line["outcome"]) == ("9", "TokenError", "not given")
        # The answer does not wait for that line.
        until(lambda: any(one["event"] == "token process" for one in lines(json_agent.home)))

    def test_what_is_not_about_keys(self, json_agent: Agent) -> None:
        with json_agent.connect() as connection:
            assert connection.ask(b"eat")[0] == b"no"
            assert connection.ask(b"release") == [b"ok"]
        json_agent.signal(signal.SIGHUP)
        assert process.wait_until(lambda: json_agent.status()["reloads"] == 1, 20)
        json_agent.signal(signal.SIGTERM)
        assert json_agent.wait() == 0
        found = lines(json_agent.home)
        events = [line["event"] for line in found if line["event"] != "note"]
        assert events == ["ready", "refusal", "release", "reload", "end"]
        refusal = next(line for line in found if line["event"] == "refusal")
        assert (refusal["verb"], refusal["user"]) == ("eat", process.ME.name)

    def test_hostile_text_stays_in_its_field(self, json_agent: Agent) -> None:
        hostile = '9", "outcome": "given\n{"event": "key"}\x1b[2J' + "x" * 5000
        json_agent.getkey("READ", VOLUME, b"", "--job", hostile)
        (line,) = about_keys(json_agent.home)
        assert line["outcome"] == "given"
        assert line["job"].startswith('9", "outcome": "given {"event"')
        assert len(json.dumps(line)) < 5000

    def test_the_format_is_changed_by_a_restart_only(self, json_agent: Agent) -> None:
        home = json_agent.home
        home.edit('log_format = "json"', 'log_format = "text"')
        json_agent.signal(signal.SIGHUP)
        assert process.wait_until(lambda: lines(home)[-1]["event"] == "reload", 20)
        assert lines(home)[-1]["outcome"] == "refused"

    def test_a_format_that_there_is_not(self, home: Home) -> None:
        home.edit("[token.main]", '[agent]\nlog_format = "xml"\n\n[token.main]')
        run = home.hwkm("agent", "status")
        assert run.status == 2
        assert b"log_format" in run.err


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_key_is_in_it(home: Home, start_agent: Callable[..., Agent], log_format: str) -> None:
    home.edit("[token.main]", f'[agent]\nlog_format = "{log_format}"\n\n[token.main]')
    agent = start_agent(home)
    first = read_reply(agent.getkey("LABEL", "A", b"", "--job", "77"))
    read_reply(agent.getkey("READ", "A", first.wrapped))
    broken = first.wrapped[:-1] + bytes([first.wrapped[-1] ^ 1])
    agent.getkey("READ", "A", broken)
    agent.getkey("READ", VOLUME, b"", "--job", first.key.hex()[:8])
    pin = (home.path / "user-pin").read_bytes().strip()
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0
    text = home.log_file.read_bytes()
    assert b"gave generation 1" in text
    assert search(text, {"key": first.key}) == set()
    assert search(agent.errors.read_bytes(), {"key": first.key}) == set()
    assert pin not in text


class TestSyslog:
    """Without a journal, the lines with fields go to syslog."""

    @pytest.mark.skipif(not IS_ROOT or bool(devlog.why_not()), reason="needs a /dev/log of its own")
    def test_of_a_process(self, tmp_path: Path) -> None:
        script = (
            "from hwkm.agent.structured_log import StructuredLog as L; "
            "L().warning('a sentence', event='key', job='7', volume='', reason=None)"
        )
        with devlog.syslog(tmp_path / "dev") as log:
            log.listen()
            subprocess.run([*log.prefix, sys.executable, "-c", script], check=True)
            assert process.wait_until(lambda: bool(log.messages), 20)
        (message,) = log.messages
        assert message.startswith(b"<28>")  # LOG_DAEMON, LOG_WARNING
        line = json.loads(message.partition(b"]: ")[2])
        assert line.pop("time")
        assert line.pop("pid")
        assert line == {"level": "warning", "event": "key", "message": "a sentence", "job": "7"}


class TestJournal:
    """systemd's Native Journal Protocol, at a socket of the tests' own."""

    @pytest.fixture(name="journal")
    def _journal(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
        path = str(tmp_path / "journal")
        monkeypatch.setattr(structured_log, "JOURNAL", path)
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener:
            listener.bind(path)
            listener.settimeout(20)
            yield listener

    @pytest.mark.parametrize(("level", "priority"), [("info", 6), ("warning", 4), ("error", 3)])
    def test_fields_are_the_journals(
        self, journal: socket.socket, level: str, priority: int
    ) -> None:
        write = getattr(StructuredLog(), level)
        write("LABEL A: gave\ngeneration 1", event="key", job="7", generation=1, device="")
        entry = journal.recv(65536).decode()
        assert entry.endswith("\n")
        fields = dict(line.split("=", 1) for line in entry.splitlines())
        assert fields == {
            "MESSAGE": "LABEL A: gave generation 1",
            "PRIORITY": str(priority),
            "SYSLOG_IDENTIFIER": "hwkm",
            "SYSLOG_FACILITY": "3",
            "SYSLOG_PID": str(os.getpid()),
            "HWKM_EVENT": "key",
            "HWKM_JOB": "7",
            "HWKM_GENERATION": "1",
        }

    def test_hostile_text_makes_no_field(self, journal: socket.socket) -> None:
        StructuredLog().info("x", job="7\nHWKM_OUTCOME=given\nPRIORITY=0\n")
        names = [line.split("=")[0] for line in journal.recv(65536).decode().splitlines()]
        assert names.count("PRIORITY") == 1
        assert "HWKM_OUTCOME" not in names


class TestHeld:
    """Lines that are held back come at the end of the block, in their order, whatever ends it."""

    @pytest.mark.parametrize("kind", [Log, StructuredLog])
    def test_until_the_end(self, tmp_path: Path, kind: type[Log]) -> None:
        path = tmp_path / "log"
        log = kind(str(path))
        with suppress(ZeroDivisionError), log.held():
            log.info("first")
            log.error("second")
            assert not path.exists()
            raise ZeroDivisionError
        log.warning("third")
        found = path.read_text().splitlines()
        wanted = ("first", "second", "third")
        assert all(word in line for word, line in zip(wanted, found, strict=True))

    def test_without_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[tuple[str, str]] = []
        monkeypatch.setattr("hwkm.log.send", lambda *message: sent.append(message))
        log = Log(str(tmp_path / "none" / "log"))
        with log.held():
            log.info("first")
            log.error("second")
            assert sent == []
        assert sent == [("info", "first"), ("error", "second")]


class TestText:
    """The log of sentences is as it was, whatever fields come with them."""

    def test_fields_are_not_shown(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        Log(str(path)).warning("a sentence", event="key", job="7")
        stamp, rest = path.read_text().split(" ", 1)
        assert stamp.endswith("Z")
        assert rest == f"hwkm[{os.getpid()}] warning: a sentence\n"

    def test_by_default(self, agent: Agent) -> None:
        read_reply(agent.getkey("READ", VOLUME, b"", "--job", "7"))
        assert (
            f" info: READ {VOLUME} (job 7, device -): gave generation 1, key id "
            in (agent.home.log[-1])
        )
