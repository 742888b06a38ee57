"""The process that owns the token: killed, hung, crashed, asked to let others in."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
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
    def test_in_the_middle_of_requests(self, agent: Agent) -> None:
        """All who wait are told; the next who asks gets a key again."""
        token = agent.token_pid()
        os.kill(token, signal.SIGSTOP)
        with agent.connect() as first, agent.connect() as second:
            first.socket.sendall(REQUEST)
            second.socket.sendall(REQUEST)
            time.sleep(0.2)
            os.kill(token, signal.SIGKILL)
            for connection in (first, second):
                assert "the process that owns the token ended" in text(connection.answer()[1])
        assert agent.token_pid() != token
        assert is_given(agent.getkey("READ", VOLUME))
        status = agent.status()["token_process"]
        assert status["starts"] == 2
        assert "SIGKILL" in status["last_error"]

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


def _kill_soon(pid: int) -> None:
    time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)


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
