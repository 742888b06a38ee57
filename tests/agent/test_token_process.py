"""The process that owns the token: killed, hung, crashed, asked to let others in."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.getkey import process
from tests.getkey.home import VOLUME
from tests.getkey.replies import read_reply

from . import raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.getkey.home import Home

    from .agents import Agent

REQUEST = raw.frame(*raw.getkey_fields("READ", VOLUME))


def text(reply: bytes) -> str:
    """Return what an ``error:`` line says."""
    assert reply.startswith(b"error: "), reply
    assert reply.endswith(b"\n"), reply
    return reply.decode().removeprefix("error: ").strip()


def is_given(reply: bytes) -> bool:
    return not reply.startswith(b"error: ")


def is_free(path: Path) -> bool:
    """Return whether nobody holds the lock on a file."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.fixture(name="token_lock")
def _token_lock(home: Home) -> Path:
    return home.path / "run" / "tokens.lock"


class TestKilled:
    @pytest.mark.parametrize("operation", ["READ", "LABEL"])
    def test_in_the_middle_of_requests(self, agent: Agent, operation: str) -> None:
        """All who wait are answered by the next one: nobody had been given anything."""
        token = agent.token_pid()
        os.kill(token, signal.SIGSTOP)
        request = raw.frame(*raw.getkey_fields(operation, VOLUME))
        with agent.connect() as first, agent.connect() as second:
            first.socket.sendall(request)
            second.socket.sendall(request)
            assert process.wait_until(lambda: agent.status()["in_flight"] == 3, 10)
            os.kill(token, signal.SIGKILL)
            answers = [read_reply(connection.answer()[1]) for connection in (first, second)]
        assert len({one.key for one in answers}) == (1 if operation == "READ" else 2)
        assert agent.token_pid() != token
        status = agent.status()["token_process"]
        assert (status["starts"], status["failures"]) == (2, 1)
        assert "SIGKILL" in status["last_error"]

    def test_they_are_asked_again_once(
        self, shimmed: Home, start_agent: Callable[..., Agent]
    ) -> None:
        shimmed.plan("C_Decrypt:print C_Decrypt:hang")
        agent = start_agent(shimmed)
        with agent.connect() as connection:
            connection.socket.sendall(REQUEST)
            for times in (1, 2):
                hangs = partial(_has_printed, agent, times)
                assert process.wait_until(hangs, 20)
                os.kill(agent.token_pid(), signal.SIGKILL)
            assert "the process that owns the token ended" in text(connection.answer()[1])
        assert agent.status()["token_process"]["failures"] == 2

    def test_again_and_again_it_is_not_started_too_often(
        self, home: Home, start_agent: Callable[..., Agent]
    ) -> None:
        agent = start_agent(home, restart_seconds=3.0)
        os.kill(agent.token_pid(), signal.SIGKILL)
        assert process.wait_until(lambda: agent.status()["token_process"]["starts"] == 2, 10)
        os.kill(agent.token_pid(), signal.SIGKILL)
        assert process.wait_until(lambda: not agent.status()["token_process"]["pid"], 3)
        refused = text(agent.getkey("READ", VOLUME))
        assert "it is started anew in" in refused
        assert "SIGKILL" in refused
        assert process.wait_until(lambda: is_given(agent.getkey("READ", VOLUME)), 10)
        assert agent.status()["token_process"]["starts"] == 3

    def test_every_key_that_was_given_can_be_given_again(
        self, home: Home, start_agent: Callable[..., Agent]
    ) -> None:
        agent = start_agent(home, restart_seconds=0.1)
        given, refused = [], 0
        for _ in range(6):
            token = agent.token_pid()
            with ThreadPoolExecutor(5) as pool:
                replies = [pool.submit(agent.getkey, "LABEL", "A") for _ in range(4)]
                pool.submit(_kill_soon, token)
            for future in replies:
                reply = future.result()
                if is_given(reply):
                    given.append(read_reply(reply))
                else:
                    refused += 1
                    assert "the process that owns the token" in text(reply)
            assert process.wait_until(lambda: is_given(agent.getkey("READ", VOLUME)), 20)
        assert len({reply.key for reply in given}) == len(given)
        for one in given:
            assert read_reply(agent.getkey("READ", "A", one.wrapped)) == one


def _has_printed(agent: Agent, times: int) -> bool:
    """Return whether so many processes came to where the module prints, and then hangs."""
    return agent.errors.read_text().count("error: printed by a module") == 2 * times


def _kill_soon(pid: int) -> None:
    time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)


class TestOnRecord:
    """What the agent had to answer by itself gets an event as soon as there is a process for it."""

    def test_by_the_next_process(self, home: Home, start_agent: Callable[..., Agent]) -> None:
        agent = start_agent(home, answer_seconds=2.0)
        os.kill(agent.token_pid(), signal.SIGSTOP)
        with ThreadPoolExecutor(2) as pool:
            asked = [pool.submit(agent.getkey, "READ", VOLUME) for _ in range(2)]
            assert all("in time" in text(future.result()) for future in asked)
        assert text(agent.getkey("READ", "no such name"))
        assert process.wait_until(lambda: len(failures(home)) == 2, 20)
        for who, operation, outcome, detail in failures(home):
            assert (who, operation, outcome) == (process.ME.name, "read", "failed")
            assert "did not answer in time (said at 2" in detail
        assert is_given(agent.getkey("READ", VOLUME))

    def test_while_there_is_none(self, home: Home, start_agent: Callable[..., Agent]) -> None:
        agent = start_agent(home, restart_seconds=3.0)
        for starts in (1, 2):
            counted = partial(_starts, agent, starts)
            assert process.wait_until(counted, 10)
            os.kill(agent.token_pid(), signal.SIGKILL)
        assert process.wait_until(lambda: not agent.status()["token_process"]["pid"], 3)
        assert "it is started anew" in text(agent.getkey("LABEL", "A"))
        assert process.wait_until(lambda: len(failures(home)) == 1, 20)
        assert failures(home)[0][1:3] == ("label", "failed")

    def test_before_the_agent_ends(self, home: Home, start_agent: Callable[..., Agent]) -> None:
        agent = start_agent(home, restart_seconds=300.0)
        for starts in (1, 2):
            counted = partial(_starts, agent, starts)
            assert process.wait_until(counted, 10)
            os.kill(agent.token_pid(), signal.SIGKILL)
        assert process.wait_until(lambda: not agent.status()["token_process"]["pid"], 3)
        assert "it is started anew" in text(agent.getkey("LABEL", "A"))
        agent.signal(signal.SIGTERM)
        assert agent.wait() == 0
        assert "1 refusals in this log are not in the keystore" in "\n".join(home.log)


def _starts(agent: Agent, number: int) -> bool:
    found = agent.status()["token_process"]
    return bool(found["starts"] == number and found["pid"])


def failures(home: Home) -> list[tuple[str, ...]]:
    return home.query("SELECT who, operation, outcome, detail FROM event WHERE outcome = 'failed'")


class TestHung:
    def test_there_is_an_answer_in_time(
        self, home: Home, start_agent: Callable[..., Agent]
    ) -> None:
        agent = start_agent(home, answer_seconds=2.0)
        token = agent.token_pid()
        os.kill(token, signal.SIGSTOP)
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda _: agent.getkey("READ", VOLUME), range(8)))
        assert all("did not answer in time" in text(reply) for reply in replies)
        assert process.wait_until(lambda: is_given(agent.getkey("READ", VOLUME)), 10)
        assert not Path(f"/proc/{token}").exists()

    def test_in_the_module(self, shimmed: Home, start_agent: Callable[..., Agent]) -> None:
        shimmed.plan("C_Decrypt:hang@3")
        agent = start_agent(shimmed, answer_seconds=2.0)
        assert is_given(agent.getkey("READ", VOLUME))
        assert "did not answer in time" in text(agent.getkey("READ", VOLUME))
        assert process.wait_until(lambda: is_given(agent.getkey("READ", VOLUME)), 10)

    def test_slow_is_not_hung(self, shimmed: Home, start_agent: Callable[..., Agent]) -> None:
        """Who waits behind others for too long is refused; the process lives on."""
        shimmed.plan("C_Decrypt:sleep=0.2")
        agent = start_agent(shimmed, answer_seconds=2.0)
        token = agent.token_pid()
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda _: agent.getkey("READ", VOLUME), range(8)))
        given = [is_given(reply) for reply in replies]
        assert 2 <= sum(given) < len(given)
        assert agent.token_pid() == token
        assert is_given(agent.getkey("READ", VOLUME))


# Each READ calls C_Decrypt twice: for the length, and for the key.
class TestModule:
    @pytest.mark.parametrize("action", ["crash", "abort", "exit=0"])
    def test_that_ends_the_process(
        self, shimmed: Home, start_agent: Callable[..., Agent], action: str
    ) -> None:
        shimmed.plan(f"C_Decrypt:{action}@3")
        agent = start_agent(shimmed)
        assert is_given(agent.getkey("READ", VOLUME))
        assert "the process that owns the token ended" in text(agent.getkey("READ", VOLUME))
        assert process.wait_until(lambda: is_given(agent.getkey("READ", VOLUME)), 10)

    @pytest.mark.parametrize("action", ["print", "flood"])
    def test_that_prints(
        self, shimmed: Home, start_agent: Callable[..., Agent], action: str
    ) -> None:
        shimmed.plan(f"C_Decrypt:{action}")
        agent = start_agent(shimmed)
        assert read_reply(agent.getkey("READ", VOLUME)).key

    def test_one_login_for_all(self, shimmed: Home, start_agent: Callable[..., Agent]) -> None:
        """The second login would end the process."""
        shimmed.plan("C_Login:exit=0@2")
        agent = start_agent(shimmed)
        token = agent.token_pid()
        for _ in range(5):
            assert is_given(agent.getkey("READ", VOLUME))
            assert is_given(agent.getkey("LABEL", "A"))
        assert agent.token_pid() == token


class TestLogins:
    def test_the_last_one_is_shown(self, agent: Agent) -> None:
        first = agent.status()["token_process"]
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", first["last_login"])
        assert first["last_login"] >= first["started"]
        run = agent.home.hwkm("agent", "status")
        assert f"last_login {first['last_login']}".encode() in run.out
        time.sleep(1)
        with agent.connect() as connection:
            assert connection.ask(b"release") == [b"ok"]
        assert agent.status()["token_process"]["last_login"] == first["last_login"]
        assert is_given(agent.getkey("READ", VOLUME))
        assert agent.status()["token_process"]["last_login"] > first["last_login"]

    def test_a_login_that_fails_is_none(
        self, home: Home, start_agent: Callable[..., Agent]
    ) -> None:
        (home.path / "tokens").rename(home.path / "away")
        (home.path / "tokens").mkdir()
        found = start_agent(home).status()["token_process"]
        assert (found["logins"], found["last_login"]) == (1, None)


class TestLettingOthersIn:
    def test_it_holds_the_token_while_it_is_logged_in(self, agent: Agent, token_lock: Path) -> None:
        assert not is_free(token_lock)
        with agent.connect() as connection:
            assert connection.ask(b"release") == [b"ok"]
        assert is_free(token_lock)
        assert is_given(agent.getkey("READ", VOLUME))
        assert not is_free(token_lock)

    def test_a_knock(self, agent: Agent, token_lock: Path) -> None:
        with knocked(token_lock):
            pass
        assert is_given(agent.getkey("READ", VOLUME))

    def test_a_knock_while_it_is_busy(self, agent: Agent, token_lock: Path) -> None:
        """Who knocks gets in between two requests, and those go on afterwards."""
        with ThreadPoolExecutor(4) as pool:
            replies = [pool.submit(agent.getkey, "READ", VOLUME) for _ in range(100)]
            for _ in range(3):
                with knocked(token_lock):
                    time.sleep(0.05)
            assert all(is_given(future.result()) for future in replies)

    def test_another_command(self, agent: Agent) -> None:
        token = agent.token_pid()
        for _ in range(2):
            run = agent.home.hwkm("master", "check")
            assert run.status == 0, run
            assert is_given(agent.getkey("READ", VOLUME))
        assert agent.token_pid() == token

    def test_the_one_shot_command(self, agent: Agent) -> None:
        given = read_reply(agent.getkey("LABEL", "A"))
        assert agent.home.getkey("READ", "A", given.wrapped).given == given
        assert read_reply(agent.getkey("READ", "A", given.wrapped)) == given

    def test_the_pipe_is_private(self, agent: Agent) -> None:
        assert (agent.home.path / "run" / "tokens.knock").stat().st_mode & 0o7777 == 0o600

    def test_something_else_in_its_place(
        self, home: Home, start_agent: Callable[..., Agent]
    ) -> None:
        (home.path / "run" / "tokens.knock").write_text("no pipe")
        agent = start_agent(home, restart_seconds=0.5)
        assert "owns the token" in text(agent.getkey("READ", VOLUME))
        (home.path / "run" / "tokens.knock").unlink()
        assert process.wait_until(lambda: is_given(agent.getkey("READ", VOLUME)), 10)


@contextmanager
def knocked(token_lock: Path) -> Iterator[None]:
    """Knock until the lock is free, and hold it."""
    pipe = os.open(token_lock.with_name("tokens.knock"), os.O_WRONLY | os.O_NONBLOCK)
    os.write(pipe, b"k")
    os.close(pipe)
    with token_lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class TestKeystore:
    def test_one_that_was_restored_is_used_at_once(self, agent: Agent) -> None:
        """It has the same name and is another file: nothing is written to the old one."""
        home = agent.home
        backup = home.path / "backup.db"
        with (
            closing(sqlite3.connect(home.path / "keystore.db")) as source,
            closing(sqlite3.connect(backup)) as target,
        ):
            source.backup(target)
        given = read_reply(agent.getkey("LABEL", "A"))
        for file in home.path.glob("keystore.db-*"):
            file.unlink()
        backup.rename(home.path / "keystore.db")
        answer = text(agent.getkey("READ", "A"))
        assert "the keystore does not know it" in answer
        assert read_reply(agent.getkey("READ", "A", given.wrapped)) == given
        operations = [row[:3] for row in home.events() if row[2] == "A"]
        assert ("import", "ok", "A") in operations

    def test_a_bare_machine(self, agent: Agent) -> None:
        """A keystore that is gone is made anew from the label, as without an agent."""
        given = read_reply(agent.getkey("LABEL", "A"))
        for file in agent.home.path.glob("keystore.db*"):
            file.unlink()
        assert "there is no keystore" in text(agent.getkey("READ", "A"))
        assert read_reply(agent.getkey("READ", "A", given.wrapped)) == given
        assert read_reply(agent.getkey("READ", "A")) == given
