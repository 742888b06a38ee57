"""What Prometheus reads of a real agent, in each of the three places."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hwkm import config as configuration
from hwkm.agent.latency import BOUNDS, Latency
from hwkm.keystore import backup
from tests.getkey import process
from tests.getkey.home import VOLUME
from tests.getkey.replies import read_reply
from tests.leaks.spellings import search

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.getkey.home import Home

    from .agents import Agent

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
REQUESTS = "hwkm_agent_requests_total"


def samples(text: str) -> Samples:
    """Return the value of each sample; none may be there twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            key = one.name, frozenset(one.labels.items())
            assert key not in found, key
            found[key] = one.value
    return found


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def publish(home: Home, place: str) -> None:
    home.edit("[token.main]", f'[agent]\nmetrics = "{place}"\n\n[token.main]')


@pytest.fixture(name="textfile")
def _textfile(home: Home) -> Path:
    path = home.path / "hwkm.prom"
    publish(home, str(path))
    return path


@pytest.fixture(name="start")
def _start(home: Home, start_agent: Callable[..., Agent]) -> Callable[[], Agent]:
    return lambda: start_agent(home, textfile_seconds=0.1, count_seconds=0.1)


def wait_for(path: Path, name: str, wanted: float, **labels: str) -> Samples:
    """Wait until a sample in the file has a value."""

    def look() -> Samples:
        return samples(path.read_text()) if path.exists() else {}

    process.wait_until(lambda: value(look(), name, **labels) == wanted, 20)
    assert value(look(), name, **labels) == wanted, look()
    return look()


def http(family: int, address: str | tuple[str, int], request: bytes) -> bytes:
    with closing(socket.socket(family, socket.SOCK_STREAM)) as client:
        client.settimeout(20)
        client.connect(address)
        client.sendall(request)
        answer = b""
        while data := client.recv(65536):
            answer += data
        return answer


def is_key(reply: bytes) -> bool:
    return not reply.startswith(b"error: ")


GET = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


class TestFigures:
    def test_requests(self, textfile: Path, start: Callable[[], Agent]) -> None:
        agent = start()
        for _ in range(3):
            read_reply(agent.getkey("READ", VOLUME))
        agent.getkey("READ", "Unknown")
        agent.getkey("EAT", VOLUME)
        read_reply(agent.getkey("LABEL", "A"))
        given = {"verb": "getkey", "operation": "label", "outcome": "given"}
        found = wait_for(textfile, REQUESTS, 1, **given)
        given["operation"] = "read"
        assert value(found, REQUESTS, **given) == 3
        refused = given | {"outcome": "refused"}
        assert value(found, REQUESTS, **refused) == 1
        assert value(found, REQUESTS, **(refused | {"operation": "other"})) == 1
        name = "hwkm_agent_getkey_seconds"
        labels = {"operation": "read", "outcome": "given"}
        assert value(found, f"{name}_count", **labels) == 3
        assert value(found, f"{name}_bucket", le="+Inf", **labels) == 3
        assert (value(found, f"{name}_sum", **labels) or 0) > 0
        assert value(found, "hwkm_agent_requests_in_flight") == 0

    def test_the_token(self, textfile: Path, start: Callable[[], Agent]) -> None:
        """One login serves all; each request that used the token is timed."""
        agent = start()
        for _ in range(3):
            read_reply(agent.getkey("READ", VOLUME))
        found = wait_for(textfile, "hwkm_token_seconds_count", 4)  # and the one that logged in
        assert value(found, "hwkm_token_logins_total") == 1
        assert value(found, "hwkm_token_process_up") == 1
        assert value(found, "hwkm_token_process_failures_total") == 0
        assert (value(found, "hwkm_token_seconds_sum") or 0) > 0
        with agent.connect() as connection:
            assert connection.ask(b"release") == [b"ok"]
        read_reply(agent.getkey("READ", VOLUME))
        wait_for(textfile, "hwkm_token_logins_total", 2)
        os.kill(agent.token_pid(), signal.SIGKILL)
        wait_for(textfile, "hwkm_token_process_failures_total", 1)
        wait_for(textfile, "hwkm_token_process_starts_total", 2)

    def test_reloads(self, home: Home, textfile: Path, start: Callable[[], Agent]) -> None:
        agent = start()
        agent.signal(signal.SIGHUP)
        name = "hwkm_agent_config_reloads_total"
        wait_for(textfile, name, 1, outcome="taken on")
        home.edit("[agent]", "[agent]\nsomething = 1")
        agent.signal(signal.SIGHUP)
        found = wait_for(textfile, name, 1, outcome="refused")
        assert value(found, name, outcome="taken on") == 1
        assert agent.status()["refused_reloads"] == 1

    def test_the_keystore(self, home: Home, textfile: Path, start: Callable[[], Agent]) -> None:
        (token, label), *others = home.query("SELECT token, label FROM master_key")
        assert not others
        agent = start()
        for name in ("A", "A", "B"):
            read_reply(agent.getkey("LABEL", name))
        volumes = home.query("SELECT count(*) FROM volume")[0][0]
        found = wait_for(textfile, "hwkm_keystore_volumes", volumes)
        keys = home.query("SELECT count(*) FROM generation")[0][0]
        found = wait_for(textfile, "hwkm_keystore_keys", keys)
        assert keys > volumes
        assert value(found, "hwkm_keystore_envelopes", token=token, master=label) == keys
        assert value(found, "hwkm_keystore_single_recipient_volumes") == volumes
        assert value(found, "hwkm_keystore_size_bytes") == (
            home.query("PRAGMA page_count")[0][0] * home.query("PRAGMA page_size")[0][0]
        )
        assert value(found, "hwkm_keystore_up") == 1

    def test_the_last_backup(
        self, home: Home, tmp_path: Path, textfile: Path, start: Callable[[], Agent]
    ) -> None:
        agent = start()
        name = "hwkm_last_backup_timestamp_seconds"
        before = wait_for(textfile, "hwkm_keystore_up", 1)
        assert value(before, name) is None
        assert agent.status()["last_backup"] is None
        config = configuration.load(home.config)
        backup.make(config.keystore, config.installation, tmp_path / "b", now=86400, who="tester")
        wait_for(textfile, name, 86400)
        assert agent.status()["last_backup"] == "1970-01-02T00:00:00Z"

    def test_a_keystore_that_is_gone(
        self, home: Home, textfile: Path, start: Callable[[], Agent]
    ) -> None:
        start()
        wait_for(textfile, "hwkm_keystore_up", 1)
        for file in home.path.glob("keystore.db*"):
            file.unlink()
        found = wait_for(textfile, "hwkm_keystore_up", 0)
        assert value(found, "hwkm_keystore_keys") is None
        assert sum("can't be counted" in line for line in home.log) == 1

    def test_the_pin_guard(self, home: Home, textfile: Path, start: Callable[[], Agent]) -> None:
        agent = start()
        wait_for(textfile, "hwkm_pin_guard_refused_pins", 0)
        wait_for(textfile, "hwkm_pin_guard_unfinished_logins", 0)
        with agent.connect() as connection:
            assert connection.ask(b"release") == [b"ok"]
        pin = home.path / "user-pin"
        right = pin.read_text()
        pin.write_text("87654321")
        assert agent.getkey("READ", VOLUME).startswith(b"error: ")
        wait_for(textfile, "hwkm_pin_guard_refused_pins", 1)
        assert agent.status()["pin_guard"] == {"refused": 1, "unfinished": 0}
        pin.write_text(right)
        read_reply(agent.getkey("READ", VOLUME))
        wait_for(textfile, "hwkm_pin_guard_refused_pins", 0)

    def test_names_and_keys_are_in_none(
        self, home: Home, textfile: Path, start: Callable[[], Agent]
    ) -> None:
        agent = start()
        key = read_reply(agent.getkey("LABEL", "Secret-Volume")).key
        found = wait_for(textfile, REQUESTS, 1, verb="getkey", operation="label", outcome="given")
        ids = [row[0] for row in home.query("SELECT key_id FROM generation")]
        wait_for(textfile, "hwkm_keystore_keys", len(ids))
        text = textfile.read_bytes()
        pin = (home.path / "user-pin").read_bytes().strip()
        assert search(text, {"key": key}) == set()
        assert pin not in text
        assert b"Secret-Volume" not in text
        assert not [one for one in ids if one.hex().encode() in text]
        allowed = {"verb", "operation", "outcome", "le", "token", "master", "version"}
        assert {name for _, labels in found for name, _ in labels} <= allowed

    def test_what_clients_say_makes_no_labels(
        self, textfile: Path, start: Callable[[], Agent]
    ) -> None:
        agent = start()
        with agent.connect() as connection:
            for number in range(10):
                assert connection.ask(b"verb%d" % number)[0] == b"no"
        labels = {"verb": "unknown", "operation": "", "outcome": "not admitted"}
        found = wait_for(textfile, REQUESTS, 10, **labels)
        assert [key for key in found if key[0] == REQUESTS] == [
            (REQUESTS, frozenset(labels.items()))
        ]


class TestPlaces:
    def test_a_file_for_all_to_read(
        self, home: Home, textfile: Path, start: Callable[[], Agent]
    ) -> None:
        agent = start()
        wait_for(textfile, "hwkm_token_process_up", 1)
        assert textfile.stat().st_mode & 0o777 == 0o644
        with agent.connect() as connection:
            connection.ask(b"status")
            agent.signal(signal.SIGTERM)
        assert agent.wait() == 0
        found = samples(textfile.read_text())
        assert value(found, "hwkm_token_process_up") == 0
        assert value(found, REQUESTS, verb="status", operation="", outcome="ok") == 1
        assert [path.name for path in home.path.glob("*.prom*")] == ["hwkm.prom"]
        assert not list(home.path.glob(".hwkm.prom*"))

    def test_a_folder_that_is_not_there(self, home: Home, start: Callable[[], Agent]) -> None:
        publish(home, "/nowhere/hwkm.prom")
        agent = start()
        assert process.wait_until(lambda: "can't be written to /nowhere" in "".join(home.log), 20)
        assert is_key(agent.getkey("READ", VOLUME))

    def test_a_socket(self, home: Home, start: Callable[[], Agent]) -> None:
        path = home.path / "run" / "metrics.sock"
        publish(home, f"unix:{path}")
        agent = start()
        assert path.stat().st_mode & 0o777 == 0o660
        read_reply(agent.getkey("READ", VOLUME))
        head, _, body = http(socket.AF_UNIX, str(path), GET).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
        assert f"Content-Length: {len(body)}".encode() in head
        labels = {"verb": "getkey", "operation": "read", "outcome": "given"}
        assert value(samples(body.decode()), REQUESTS, **labels) == 1
        agent.signal(signal.SIGTERM)
        assert agent.wait() == 0
        assert not path.exists()

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (b"GET / HTTP/1.0\r\n\r\n", b"200"),
            (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"200"),
            (b"GET /other HTTP/1.1\r\n\r\n", b"404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
            (b"\r\n\r\n", b"405"),
        ],
    )
    def test_requests_of_http(
        self, home: Home, start: Callable[[], Agent], request_: bytes, status: bytes
    ) -> None:
        path = home.path / "run" / "metrics.sock"
        publish(home, f"unix:{path}")
        start()
        answer = http(socket.AF_UNIX, str(path), request_)
        assert answer.split(b" ")[1] == status
        if status != b"200" or request_.startswith(b"HEAD"):
            assert answer.endswith(b"\r\n\r\n")

    def test_clients_that_misbehave(self, home: Home, start: Callable[[], Agent]) -> None:
        """They are turned away, and neither the next one nor a key waits for them."""
        path = home.path / "run" / "metrics.sock"
        publish(home, f"unix:{path}")
        agent = start()
        assert http(socket.AF_UNIX, str(path), b"A" * 8191 + b"B" * 20000) == b""
        silent = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(40)]
        try:
            for client in silent:
                client.connect(str(path))
            assert is_key(agent.getkey("READ", VOLUME))
            turned_away = silent[-1]
            turned_away.settimeout(20)
            assert turned_away.recv(1) == b""
        finally:
            for client in silent:
                client.close()
        assert process.wait_until(
            lambda: http(socket.AF_UNIX, str(path), GET).startswith(b"HTTP/1.1 200"), 20
        )

    def test_localhost(self, home: Home, start: Callable[[], Agent]) -> None:
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        publish(home, f"http://localhost:{port}")
        agent = start()
        read_reply(agent.getkey("READ", VOLUME))
        body = http(socket.AF_INET, ("127.0.0.1", port), GET).partition(b"\r\n\r\n")[2]
        assert value(samples(body.decode()), "hwkm_token_process_up") == 1
        threads = list(Path(f"/proc/{agent.running.pid}/task").iterdir())
        assert len(threads) == 1  # else it could not fork

    def test_nowhere_unless_asked_for(self, agent: Agent) -> None:
        """It listens at its own socket alone, and counts nothing."""
        listening = [
            line.split()[-1]
            for line in Path("/proc/net/unix").read_text().splitlines()
            if line.split()[3] == "00010000" and str(agent.home.path) in line  # __SO_ACCEPTCON
        ]
        assert len(listening) == 1, listening
        assert not list(agent.home.path.rglob("*.prom"))
        assert len(process.session(agent.running.pid)) == 2

    def test_a_new_configuration(
        self, home: Home, textfile: Path, start: Callable[[], Agent]
    ) -> None:
        agent = start()
        wait_for(textfile, "hwkm_token_process_up", 1)
        other = home.path / "other.prom"
        home.edit(str(textfile), str(other))
        agent.signal(signal.SIGHUP)
        found = wait_for(other, "hwkm_agent_config_reloads_total", 1, outcome="taken on")
        assert value(found, "hwkm_token_process_up") == 1
        wait_for(other, "hwkm_keystore_up", 1)


class TestStatus:
    def test_latency(self, agent: Agent) -> None:
        for _ in range(5):
            read_reply(agent.getkey("READ", VOLUME))
        agent.getkey("READ", "Unknown")
        found = agent.status()
        assert found["operations"] == {"read": {"given": 5, "refused": 1}}
        read = found["latency"]["read"]
        assert read["count"] == 5
        assert 0 < read["p50_ms"] <= read["p99_ms"] < 20_000
        assert found["token_process"]["latency"]["count"] >= 5
        assert found["pin_guard"] == {"refused": 0, "unfinished": 0}

    def test_for_people(self, agent: Agent) -> None:
        read_reply(agent.getkey("READ", VOLUME))
        shown = agent.home.hwkm("agent", "status").out.decode()
        assert "latency: read count 1, p50_ms " in shown
        assert "pin guard: refused 0, unfinished 0" in shown


class TestLatency:
    def test_quantiles(self) -> None:
        one = Latency()
        assert one.quantile(0.5) is None
        for _ in range(99):
            one.observe(0.0015)
        one.observe(3.0)
        assert 0.001 < (one.quantile(0.5) or 0) < 0.002
        assert (one.quantile(0.99) or 0) == 0.002
        assert 2.0 < (one.quantile(1.0) or 0) <= 5.0
        assert one.cumulative()[-1] == one.count == 100

    def test_what_is_longer_than_any_bound(self) -> None:
        one = Latency()
        one.observe(1000.0)
        assert one.quantile(0.5) == BOUNDS[-1]
        assert one.cumulative()[-2:] == [0, 1]

    def test_a_bound_belongs_to_its_bucket(self) -> None:
        one = Latency()
        one.observe(BOUNDS[3])
        assert one.cumulative()[2:4] == [0, 1]
