"""Talking with systemd: what a service sends and takes, over real sockets and in real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hwkm.agent import systemd
from hwkm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Becomes another program after it has named itself as systemd does: the process id is that of the
# program, and the sockets stand from descriptor 3 on.
LIKE_SYSTEMD = """
import fcntl, os, sys
pid, handed = sys.argv[1], [int(number) for number in sys.argv[2].split(",")]
spare = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in handed]
for place, number in enumerate(spare, start=3):
    os.dup2(number, place)
env = {"LISTEN_FDS": str(len(handed)), "LISTEN_FDNAMES": "agent", "OTHER": "1"}
env["LISTEN_PID"] = str(os.getpid()) if pid == "own" else pid
os.execve(sys.executable, [sys.executable, "-c", sys.argv[3]], env)
"""
TELLS = """
import os
from hwkm.agent import systemd
from hwkm.errors import ConfigError
try:
    found = systemd.listen_fds()
except ConfigError as error:
    found = []
    print("refused:", error)
for one in found:
    print(one.fileno(), one.getsockname(), one.get_inheritable())
print("again:", systemd.listen_fds())
print("left:", sorted(name for name in os.environ if name.startswith("LISTEN") or name == "OTHER"))
"""


def descriptors() -> list[str]:
    """Return the numbers of the descriptors that are open here."""
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


@pytest.fixture
def _told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)


pytestmark = pytest.mark.usefixtures("_told")


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """A socket on which systemd listens for what services say."""
    name = f"hwkm-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name if request.param == "abstract" else name)
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if request.param == "abstract" else name)
        yield listener


class TestNotify:
    def test_it_arrives(self, manager: socket.socket) -> None:
        assert systemd.notify("READY=1\nSTATUS=löst Bänder")
        assert manager.recv(4096) == "READY=1\nSTATUS=löst Bänder".encode()

    def test_each_is_a_message(self, manager: socket.socket) -> None:
        assert systemd.notify("RELOADING=1")
        assert systemd.notify("READY=1")
        assert [manager.recv(4096), manager.recv(4096)] == [b"RELOADING=1", b"READY=1"]

    def test_nobody_is_there(self) -> None:
        assert not systemd.notify("READY=1")

    @pytest.mark.parametrize(
        "where", ["", "relative", "/nonexistent/notify", "vsock:2:1", "@hwkm-none", "/" + "x" * 200]
    )
    def test_nobody_listens(self, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NOTIFY_SOCKET", where)
        assert not systemd.notify("READY=1")

    def test_what_can_not_be_sent(self, manager: socket.socket) -> None:
        assert not systemd.notify("STATUS=" + "x" * 2**24)
        assert systemd.notify("STATUS=\udcff")
        assert manager.recv(4096) == b"STATUS=?"

    def test_a_manager_that_does_not_read_holds_nobody_up(
        self, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(systemd, "_SEND_SECONDS", 0.05)
        assert any(not systemd.notify("WATCHDOG=1") for _ in range(10_000))

    def test_no_descriptor_is_left(self, manager: socket.socket) -> None:
        before = descriptors()
        systemd.notify("READY=1")
        assert descriptors() == before


class TestSockets:
    @pytest.fixture
    def listening(self, tmp_path: Path) -> Iterator[list[socket.socket]]:
        with ExitStack() as stack:
            made = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
            for number, one in enumerate(made):
                one.bind(str(tmp_path / str(number)))
                one.listen()
            yield made

    @staticmethod
    def hand_over(sockets: list[socket.socket], pid: str = "own") -> list[str]:
        """Return what a new process says of the sockets that it is handed."""
        numbers = [one.fileno() for one in sockets]
        command = [sys.executable, "-c", LIKE_SYSTEMD, pid, ",".join(map(str, numbers)), TELLS]
        done = subprocess.run(
            command, pass_fds=numbers, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.splitlines()

    def test_they_are_taken_once(self, listening: list[socket.socket]) -> None:
        names = [one.getsockname() for one in listening]
        assert self.hand_over(listening) == [
            f"3 {names[0]} False",
            f"4 {names[1]} False",
            "again: []",
            "left: ['OTHER']",
        ]

    @pytest.mark.parametrize("pid", ["1", "", "x"])
    def test_those_of_another_process_are_not(
        self, listening: list[socket.socket], pid: str
    ) -> None:
        assert self.hand_over(listening, pid) == ["again: []", "left: ['OTHER']"]

    def test_none(self) -> None:
        assert systemd.listen_fds() == []

    def test_only_sockets_that_listen(self, tmp_path: Path) -> None:
        one, other = socket.socketpair()
        with one, other:
            said = self.hand_over([one])
        assert (
            said[0] == "refused: descriptor 3, handed over by systemd, is no listening Unix socket"
        )

    def test_only_unix_sockets(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            said = self.hand_over([server])
        assert (
            said[0] == "refused: descriptor 3, handed over by systemd, is no listening Unix socket"
        )

    @pytest.mark.parametrize("count", ["", "x", "1,1"])
    def test_a_count_that_is_none(self, count: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", count)
        with pytest.raises(ConfigError, match="is no number of sockets"):
            systemd.listen_fds()

    def test_a_descriptor_that_is_no_socket(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with (tmp_path / "file").open("w") as file:
            monkeypatch.setattr(systemd, "FIRST_SOCKET", file.fileno())
            monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
            monkeypatch.setenv("LISTEN_FDS", "1")
            with pytest.raises(ConfigError, match="is none: Socket operation on non-socket"):
                systemd.listen_fds()


class TestWatchdog:
    @pytest.mark.parametrize(
        ("microseconds", "pid", "seconds"),
        [
            ("30000000", None, 15.0),
            ("1", str(os.getpid()), 5e-7),
            ("30000000", "1", None),
            ("30000000", "", None),
            ("0", None, None),
            ("-5", None, None),
            ("soon", None, None),
            (None, None, None),
        ],
    )
    def test_how_often(
        self,
        microseconds: str | None,
        pid: str | None,
        seconds: float | None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name, value in (("WATCHDOG_USEC", microseconds), ("WATCHDOG_PID", pid)):
            if value is not None:
                monkeypatch.setenv(name, value)
        assert systemd.watchdog_seconds() == seconds
