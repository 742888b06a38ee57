"""The agent as its clients see it."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from hwkm.envelope import Envelope
from tests.getkey import process
from tests.getkey.home import VOLUME
from tests.getkey.process import IS_ROOT, User
from tests.getkey.replies import Reply, read_reply

from . import raw
from .agents import Agent, memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.getkey.home import Home

MIB = 2**20


def generation(reply: Reply) -> int:
    return Envelope.parse(reply.wrapped).header.generation


class TestSameAnswers:
    """What the agent answers, the one-shot command answers too."""

    def test_what_the_agent_labelled_is_read_without_it(
        self, home: Home, start_agent: Callable[..., Agent]
    ) -> None:
        agent = start_agent(home)
        given = [read_reply(agent.getkey("LABEL", name)) for name in ("A", "A", "B")]
        agent.signal(signal.SIGTERM)
        assert agent.wait() == 0
        assert [generation(one) for one in given] == [1, 2, 1]
        for name, reply in zip(("A", "A", "B"), given, strict=True):
            assert home.getkey("READ", name, reply.wrapped).given == reply

    def test_what_was_labelled_without_it_the_agent_reads(
        self, home: Home, start_agent: Callable[..., Agent]
    ) -> None:
        alone = home.getkey("LABEL", "A").given
        agent = start_agent(home)
        assert read_reply(agent.getkey("READ", "A", alone.wrapped)) == alone
        assert read_reply(agent.getkey("READ", "A")) == alone

    @pytest.mark.parametrize(
        ("operation", "volume", "words"),
        [
            ("READ", "Unknown", ()),
            ("READ", "no such name", ()),
            ("EAT", VOLUME, ()),
            ("LABEL", VOLUME, ("--cipher", "NULL")),
            ("READ", VOLUME, ("--unknown", "1")),
            ("READ", VOLUME, ("--job",)),
        ],
    )
    def test_refusals_are_the_same_words(
        self,
        home: Home,
        start_agent: Callable[..., Agent],
        operation: str,
        volume: str,
        words: tuple[str, ...],
    ) -> None:
        alone = home.getkey(operation, volume, options=words)
        answer = start_agent(home).getkey(operation, volume, b"", *words)
        assert answer == alone.out
        assert answer.startswith(b"error: ")

    def test_the_event_names_the_peer_and_the_job(self, agent: Agent) -> None:
        agent.getkey("LABEL", "A", b"", "--job", "77", "--device=/dev/nst3")
        rows = agent.home.query("SELECT who, job FROM event WHERE volume = 'A'")
        assert rows == [(process.ME.name, "77")]
        assert "LABEL A (job 77, device /dev/nst3): gave generation 1" in agent.home.log[-1]

    def test_the_command_line_cant_change_the_configuration(
        self, agent: Agent, tmp_path: Path
    ) -> None:
        answer = agent.getkey("READ", VOLUME, b"", "--config", str(tmp_path / "none.toml"))
        assert read_reply(answer).key

    def test_an_option_of_the_cipher(self, agent: Agent) -> None:
        reply = read_reply(agent.getkey("LABEL", "A", b"", "--cipher", "AES_128_XTS"))
        assert reply.cipher == "AES_128_XTS"


class TestManyClients:
    def test_each_volumes_labels_are_in_order(self, agent: Agent) -> None:
        """Generations are consecutive, and later requests of a client get later ones."""
        threads, rounds, volumes = 32, 4, ("A", "B", "C", "D")
        together = threading.Barrier(threads)

        def client(number: int) -> list[tuple[str, Reply]]:
            volume = volumes[number % len(volumes)]
            with agent.connect() as connection:
                together.wait()
                replies = [connection.getkey("LABEL", volume) for _ in range(rounds)]
            return [(volume, read_reply(reply)) for reply in replies]

        with ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(client, range(threads)))
        for one in results:
            numbers = [generation(reply) for _, reply in one]
            assert numbers == sorted(numbers)
        for volume in volumes:
            given = [reply for one in results for name, reply in one if name == volume]
            numbers = sorted(generation(reply) for reply in given)
            assert numbers == list(range(1, rounds * threads // len(volumes) + 1))
            assert len({reply.key for reply in given}) == len(given)
        for volume, reply in (pair for one in results for pair in one[:1]):
            assert read_reply(agent.getkey("READ", volume, reply.wrapped)) == reply

    def test_they_are_counted(self, agent: Agent) -> None:
        agent.getkey("LABEL", "A")
        agent.getkey("READ", "Unknown")
        found = agent.status()
        assert found["requests"]["getkey"] == {"given": 1, "refused": 1}
        assert (found["in_flight"], found["connections"]) == (1, 1)
        assert found["pid"] == agent.running.pid
        assert found["token_process"]["starts"] == 1


@pytest.fixture(name="strict")
def _strict(home: Home, start_agent: Callable[..., Agent]) -> Agent:
    """An agent that is soon out of patience."""
    return start_agent(home, request_seconds=1.0, idle_seconds=2.0, take_seconds=1.0)


REQUEST = raw.frame(*raw.getkey_fields("READ", VOLUME))
MALICIOUS = {
    "garbage": b"GET / HTTP/1.1\r\n\r\n",
    "another version": b"HWK\x02" + REQUEST[4:],
    "too long": raw.MAGIC + struct.pack(">I", 65537),
    "nearly endless": raw.MAGIC + b"\xff" * 4,
    "empty": raw.MAGIC + bytes(4),
    "a field too long": raw.MAGIC + struct.pack(">II", 8, 5) + b"1234",
    "no whole field": raw.MAGIC + struct.pack(">I", 3) + b"123",
    "many fields": raw.frame(b"getkey", *[b""] * 300),
    "two requests at once": REQUEST + REQUEST,
    "a request and more": REQUEST + b"H",
}


def slowly(connection: raw.Raw, data: bytes) -> None:
    for byte in data:
        connection.socket.sendall(bytes([byte]))
        time.sleep(0.1)


def endlessly(connection: raw.Raw, data: bytes) -> None:
    while True:
        connection.socket.sendall(data)
        time.sleep(0.001)


class TestBadClients:
    @pytest.mark.parametrize("what", sorted(MALICIOUS))
    def test_malicious(self, strict: Agent, what: str) -> None:
        with strict.connect() as connection:
            connection.socket.sendall(MALICIOUS[what])
            no, why = connection.answer()
            assert (no, bool(why)) == (b"no", True)
            assert connection.is_closed()
        assert read_reply(strict.getkey("READ", VOLUME)).key

    @pytest.mark.parametrize(
        "fields",
        [[b"getkey"], [b"getkey", b"READ"], [b""], [b"\xff\n\x00"], [b"x" * 1000], [b"GETKEY"]],
    )
    def test_meaningless(self, strict: Agent, fields: list[bytes]) -> None:
        with strict.connect() as connection:
            no, why = connection.ask(*fields)
            assert no == b"no"
            assert why.decode().isprintable()
            assert read_reply(connection.getkey("READ", VOLUME)).key

    def test_silent_and_slow_ones_hold_nobody_up(self, strict: Agent) -> None:
        with strict.connect() as silent, strict.connect() as slow:
            slow.socket.sendall(REQUEST[:9])
            assert read_reply(strict.getkey("READ", VOLUME)).key
            no, why = slow.answer()
            assert (no, why) == (b"no", b"the request did not come in time")
            assert slow.is_closed()
            assert silent.is_closed()

    def test_a_request_in_single_bytes(self, strict: Agent) -> None:
        with strict.connect() as connection:
            for byte in REQUEST:
                connection.socket.sendall(bytes([byte]))
            assert read_reply(connection.answer()[1]).key

    def test_one_byte_now_and_then_is_not_enough(self, strict: Agent) -> None:
        """The time runs from the first byte."""
        with strict.connect() as connection, pytest.raises(ConnectionError):
            slowly(connection, REQUEST)

    def test_half_closed(self, strict: Agent) -> None:
        with strict.connect() as connection:
            connection.socket.sendall(REQUEST)
            connection.socket.shutdown(1)
            assert read_reply(connection.answer()[1]).key
            assert connection.is_closed()

    def test_gone_before_the_answer(self, strict: Agent) -> None:
        for _ in range(20):
            with strict.connect() as connection:
                connection.socket.sendall(REQUEST)
        assert read_reply(strict.getkey("READ", VOLUME)).key
        assert process.wait_until(lambda: strict.status()["connections"] == 1, 5)

    def test_answers_that_nobody_takes(self, strict: Agent) -> None:
        with strict.connect(5) as deaf:
            with pytest.raises(ConnectionError):
                endlessly(deaf, raw.frame(b"status"))
            assert read_reply(strict.getkey("READ", VOLUME)).key
            assert process.wait_until(lambda: strict.status()["connections"] == 1, 10)

    def test_they_take_little_memory(self, home: Home, start_agent: Callable[..., Agent]) -> None:
        agent = start_agent(home, connections_per_user=200)
        before = memory(agent.running.pid)
        most = raw.frame(b"getkey", bytes(65_000))[:-1]
        with ExitStack() as clients:
            for _ in range(190):
                clients.enter_context(agent.connect()).socket.sendall(most)
            assert read_reply(agent.getkey("READ", VOLUME)).key
            assert memory(agent.running.pid) - before < 40 * MIB


class TestLimits:
    def test_an_idle_connection_makes_room(
        self, home: Home, start_agent: Callable[..., Agent]
    ) -> None:
        agent = start_agent(home, connections_per_user=2)
        with agent.connect() as first, agent.connect() as second:
            assert first.ask(b"status")[0] == b"ok"
            assert second.ask(b"status")[0] == b"ok"
            assert read_reply(agent.getkey("READ", VOLUME)).key
            assert first.is_closed()
            assert second.ask(b"status")[0] == b"ok"

    @pytest.mark.parametrize("limit", ["connections", "connections_per_user"])
    def test_busy_ones_do_not(
        self, home: Home, start_agent: Callable[..., Agent], limit: str
    ) -> None:
        agent = start_agent(home, answer_seconds=5.0, **{limit: 2})
        os.kill(agent.token_pid(), signal.SIGSTOP)
        with agent.connect() as first, agent.connect() as second:
            first.socket.sendall(REQUEST)
            second.socket.sendall(REQUEST)
            time.sleep(0.2)
            with agent.connect() as third:
                assert third.answer()[0] == b"no"
                assert third.is_closed()
            assert first.answer()[1].startswith(b"error: ")


@pytest.mark.skipif(not IS_ROOT, reason="only root can be another user")
class TestPeers:
    @pytest.fixture(name="public")
    def _public(self, home: Home, base: Path) -> Path:
        """Let everybody reach the socket; return where it is."""
        path = base / f"{home.path.name}.sock"
        with home.config.open("a") as file:
            file.write(f'\n[agent]\nsocket = "{path}"\nmode = "0666"\n')
        return path

    def ask_as_nobody(self, path: Path, *requests: list[bytes]) -> list[list[bytes]]:
        user = User.named("nobody")
        os.setegid(user.gid)
        os.seteuid(user.uid)
        try:
            with raw.connected(path) as connection:
                return [connection.ask(*fields) for fields in requests]
        finally:
            os.seteuid(0)
            os.setegid(0)

    def test_a_stranger_is_refused_and_logged(
        self, home: Home, public: Path, start_agent: Callable[..., Agent]
    ) -> None:
        start_agent(home)
        asked = [raw.getkey_fields("READ", VOLUME), [b"status"], [b"release"]] * 20
        answers = self.ask_as_nobody(public, *asked)
        assert {answer[0] for answer in answers} == {b"no"}
        assert answers[0][1] == b"nobody may not ask for 'getkey'"
        refused = [line for line in home.log if "was refused" in line]
        assert len(refused) == 3
        assert "nobody (uid 65534, process" in refused[0]
        assert home.query("SELECT count(*) FROM event WHERE who = 'nobody'") == [(0,)]

    def test_each_verb_has_its_own_list(
        self, home: Home, public: Path, start_agent: Callable[..., Agent]
    ) -> None:
        with home.config.open("a") as file:
            file.write('getkey = ["nobody"]\n')
        start_agent(home)
        key, status = self.ask_as_nobody(public, raw.getkey_fields("READ", VOLUME), [b"status"])
        assert read_reply(key[1]).key
        assert status[0] == b"no"
        with raw.connected(public) as connection:
            assert connection.ask(*raw.getkey_fields("READ", VOLUME))[0] == b"ok"  # always
            assert connection.ask(b"status")[0] == b"ok"

    def test_the_lists_are_read_again(
        self, home: Home, public: Path, start_agent: Callable[..., Agent]
    ) -> None:
        agent = start_agent(home)
        with home.config.open("a") as file:
            file.write('admin = ["nobody"]\n')
        agent.signal(signal.SIGHUP)
        assert process.wait_until(
            lambda: self.ask_as_nobody(public, [b"status"])[0][0] == b"ok", 20
        )

    def test_mode_and_group(
        self, home: Home, public: Path, start_agent: Callable[..., Agent]
    ) -> None:
        home.edit('mode = "0666"', 'mode = "0620"\ngroup = "nogroup"')
        start_agent(home)
        found = public.stat()
        assert (found.st_mode & 0o777, found.st_gid) == (0o620, User.named("nobody").gid)


class TestBeginningAndEnd:
    def test_one_agent_at_a_time(self, agent: Agent) -> None:
        run = agent.home.hwkm("agent", "run")
        assert run.status == 1
        assert b"an agent of this installation runs already" in run.err
        assert read_reply(agent.getkey("READ", VOLUME)).key

    def test_somebody_else_at_the_socket(
        self, home: Home, base: Path, start_agent: Callable[..., Agent]
    ) -> None:
        """Another installation does not take the socket away."""
        other = home.copy(base / f"{home.path.name}-other")
        agent = start_agent(home)
        other.edit("[token.main]", f'[agent]\nsocket = "{agent.socket}"\n\n[token.main]')
        run = other.hwkm("agent", "run")
        assert run.status == 1
        assert b"somebody listens at" in run.err
        assert read_reply(agent.getkey("READ", VOLUME)).key

    def test_after_a_kill_it_starts_again(
        self, agent: Agent, start_agent: Callable[..., Agent]
    ) -> None:
        """Those who asked are told by the end of the connection; its processes end too."""
        token = agent.token_pid()
        os.kill(token, signal.SIGSTOP)
        with agent.connect() as waiting:
            waiting.socket.sendall(REQUEST)
            agent.signal(signal.SIGKILL)
            with pytest.raises(raw.ClosedError):
                waiting.answer()
        agent.wait()
        assert process.wait_until(lambda: not Path(f"/proc/{token}").exists(), 5)
        assert agent.socket.exists()
        again = start_agent(agent.home)
        assert read_reply(again.getkey("READ", VOLUME)).key

    def test_killed_at_any_time(self, home: Home, start_agent: Callable[..., Agent]) -> None:
        """Every key that was given can be given again."""
        given: list[Reply] = []
        for round_ in range(4):
            agent = start_agent(home)
            with agent.connect() as connection:
                for _ in range(3 + round_):
                    given.append(read_reply(connection.getkey("LABEL", "A")))
                connection.socket.sendall(raw.frame(*raw.getkey_fields("LABEL", "A")))
                time.sleep(0.002 * round_)
                agent.signal(signal.SIGKILL)
                agent.wait()
        agent = start_agent(home)
        for reply in given:
            assert read_reply(agent.getkey("READ", "A", reply.wrapped)) == reply

    def test_sigterm_ends_what_is_under_way(self, agent: Agent) -> None:
        token = agent.token_pid()
        os.kill(token, signal.SIGSTOP)
        with agent.connect() as idle, agent.connect() as busy:
            busy.socket.sendall(REQUEST)
            time.sleep(0.2)
            agent.signal(signal.SIGTERM)
            assert idle.is_closed()
            assert not agent.socket.exists()
            os.kill(token, signal.SIGCONT)
            assert read_reply(busy.answer()[1]).key
            assert busy.is_closed()
        assert agent.wait() == 0
        assert process.session(agent.running.pid) == ()
        assert "the agent has ended" in agent.home.log[-1]

    def test_sigterm_does_not_wait_for_ever(
        self, home: Home, start_agent: Callable[..., Agent]
    ) -> None:
        agent = start_agent(home, end_seconds=1.0)
        os.kill(agent.token_pid(), signal.SIGSTOP)
        with agent.connect() as busy:
            busy.socket.sendall(REQUEST)
            time.sleep(0.2)
            agent.signal(signal.SIGTERM)
            assert busy.is_closed()
        assert agent.wait() == 0
        assert process.session(agent.running.pid) == ()

    def test_a_wrong_pin_ends_it(self, home: Home) -> None:
        """With the status that keeps a service manager from trying again."""
        (home.path / "user-pin").write_text("wrong-pin\n")
        for _ in range(2):
            run = home.hwkm("agent", "run")
            assert run.status == 4
            assert b"PIN" in run.err

    def test_a_token_that_is_away_does_not(
        self, home: Home, start_agent: Callable[..., Agent]
    ) -> None:
        (home.path / "tokens").rename(home.path / "away")
        (home.path / "tokens").mkdir()
        agent = start_agent(home)
        assert agent.getkey("READ", VOLUME).startswith(b"error: ")
        assert any("a token can't be used" in line for line in home.log)


def reloaded(agent: Agent, times: int) -> bool:
    return bool(agent.status()["reloads"] == times)


class TestReload:
    def test_a_good_one(self, agent: Agent) -> None:
        before = agent.token_pid()
        agent.home.edit('cipher = "AES_256_XTS"', 'cipher = "AES_128_XTS"')
        agent.signal(signal.SIGHUP)
        assert process.wait_until(lambda: agent.status()["reloads"] == 1, 20)
        assert read_reply(agent.getkey("LABEL", "A")).cipher == "AES_128_XTS"
        assert agent.token_pid() != before
        assert len(process.session(agent.running.pid)) == 2

    @pytest.mark.parametrize(
        ("old", "new", "why"),
        [
            ('cipher = "AES_256_XTS"', 'cipher = "ROT13"', "unknown value"),
            ("[token.main]", '[agent]\ngetkey = ["no-such-user"]\n[token.main]', "unknown user"),
            ("/run", "/elsewhere", "at a restart"),
        ],
    )
    def test_a_bad_one_is_refused(self, agent: Agent, old: str, new: str, why: str) -> None:
        before = agent.token_pid()
        agent.home.edit(old, new)
        agent.signal(signal.SIGHUP)
        refused = "the new configuration is not taken on"
        assert process.wait_until(lambda: refused in agent.home.log[-1], 20)
        assert why in agent.home.log[-1]
        assert read_reply(agent.getkey("LABEL", "A")).cipher == "AES_256_XTS"
        assert agent.token_pid() == before

    @pytest.mark.parametrize(
        ("old", "new", "why"),
        [
            ("module-path=", "module-path=/no-such", "none of its tokens can be opened"),
            ("pin-source=file:", "pin-source=file:/no-such", "the PIN file /no-such"),
            ("token=", "token=another-", "none of its tokens can be opened"),
        ],
    )
    def test_tokens_that_can_not_be_opened(
        self, agent: Agent, old: str, new: str, why: str
    ) -> None:
        """The old configuration stays; who asks meanwhile waits, and is not refused."""
        agent.home.edit(old, new)
        agent.home.edit('cipher = "AES_256_XTS"', 'cipher = "AES_128_XTS"')
        with ThreadPoolExecutor(4) as pool:
            agent.signal(signal.SIGHUP)
            replies = [pool.submit(agent.getkey, "LABEL", "A") for _ in range(40)]
            given = [read_reply(reply.result()) for reply in replies]
        assert process.wait_until(lambda: agent.status()["refused_reloads"] == 1, 20)
        assert {reply.cipher for reply in given} == {"AES_256_XTS"}
        refused = [line for line in agent.home.log if "is not taken on" in line]
        assert len(refused) == 1
        assert why in refused[0]
        assert agent.status()["reloads"] == 0
        assert len(process.session(agent.running.pid)) == 2

    def test_a_token_that_is_away_is_not_the_new_files_fault(self, agent: Agent) -> None:
        (agent.home.path / "tokens").rename(agent.home.path / "away")
        (agent.home.path / "tokens").mkdir()
        agent.home.edit('cipher = "AES_256_XTS"', 'cipher = "AES_128_XTS"')
        agent.signal(signal.SIGHUP)
        assert process.wait_until(partial(reloaded, agent, 1), 20)

    def test_nothing_is_lost_in_between(self, agent: Agent) -> None:
        """Requests that come while the configuration changes are answered all the same."""
        stop = threading.Event()

        def client(volume: str) -> int:
            count = 0
            with agent.connect() as connection:
                while not stop.is_set():
                    assert generation(read_reply(connection.getkey("LABEL", volume))) == count + 1
                    count += 1
            return count

        with ThreadPoolExecutor(4) as pool:
            counts = [pool.submit(client, f"R{number}") for number in range(4)]
            for number in range(1, 4):
                agent.signal(signal.SIGHUP)
                process.wait_until(partial(reloaded, agent, number), 20)
            stop.set()
        assert agent.status()["reloads"] == 3
        assert min(future.result() for future in counts) > 0

    def test_before_it_is_ready(self, home: Home, start_agent: Callable[..., Agent]) -> None:
        """It takes on the configuration as soon as it can, and is one agent all the same."""
        (home.path / "run" / "tokens.lock").touch()
        with (home.path / "run" / "tokens.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            hups = threading.Thread(target=_reload_three_times, args=(home, file))
            hups.start()
            agent = start_agent(home)
            hups.join()
        assert process.wait_until(partial(reloaded, agent, 3), 20)
        assert read_reply(agent.getkey("READ", VOLUME)).key
        assert process.wait_until(lambda: len(process.session(agent.running.pid)) == 2, 10)


def _reload_three_times(home: Home, token: IO[bytes]) -> None:
    """Send SIGHUP to an agent that waits for the token, and then let go of that."""
    assert process.wait_until(lambda: _waits(_holder(home)), 30)
    for _ in range(3):
        os.kill(_holder(home), signal.SIGHUP)
        time.sleep(0.1)  # or they count as one
    token.close()


def _waits(agent: int) -> bool:
    """Return whether an agent has its process with the token, and so heeds signals."""
    return bool(agent and Path(f"/proc/{agent}/task/{agent}/children").read_text())


def _holder(home: Home) -> int:
    """Return the process that holds the lock of agents, or 0."""
    lock = home.path / "run" / "agent.lock"
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        inode = int(fields[5].rpartition(":")[2])
        if fields[1] == "FLOCK" and lock.exists() and inode == lock.stat().st_ino:
            return int(fields[4])
    return 0


class TestCommand:
    def test_status(self, agent: Agent) -> None:
        run = agent.home.hwkm("agent", "status", "--json")
        assert (run.status, run.err) == (0, b"")
        assert b'"token_process": {' in run.out
        run = agent.home.hwkm("agent", "status")
        assert b"token process: pid " in run.out

    def test_status_without_an_agent(self, home: Home) -> None:
        run = home.hwkm("agent", "status")
        assert (run.status, run.out) == (1, b"")
        assert b"no agent answers at" in run.err
