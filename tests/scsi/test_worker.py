"""A device in a process of its own: real forks, real kills, ports that hang, crash and lie."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.errors import DeviceError, HwkmError, ParseError
from hwkm.keys import SecretBytes
from hwkm.scsi import linux, wire, worker
from hwkm.scsi.completion import Completion, Port
from hwkm.scsi.linux import SgTransport
from hwkm.scsi.transport import (
    BusyError,
    CheckConditionError,
    Command,
    CommandTimeoutError,
    DeviceAccessError,
    OutcomeUnknownError,
    TransportError,
)
from hwkm.scsi.worker import WorkerTransport
from tests.scsi.sg import Reply, SgDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = bytes(range(0x20, 0x40))
READY = Command("TEST UNIT READY", bytes(6), seconds=5.0)
READ = Command("READ ATTRIBUTE", bytes(16), allocation=65535, seconds=5.0)
LOAD = Command("SECURITY PROTOCOL OUT", bytes(12), SecretBytes(KEY), seconds=5.0)
NO_SUCH_PAGE = bytes.fromhex("70 00 05 00000000 0a 00000000 24 00 00 c0 00 02")


class Scripted(Port):
    """Does what the first byte of a CDB says."""

    def __init__(self, name: str) -> None:
        self.name = f"{name} (open)"
        self.commands: list[Command] = []

    def close(self) -> None:
        raise AssertionError("the kernel closes it")

    def complete(self, command: Command) -> Completion:
        self.commands.append(command)
        action = ACTIONS.get(command.cdb[0])
        if action:
            action()
        return Completion(data=answer(command, len(self.commands)))


def answer(command: Command, number: int) -> bytes:
    """Return what tells that a command came through whole."""
    out = command.exposed()
    told = f"{number} {command.name} {command.is_secret} {command.seconds} ".encode() + out[::-1]
    return told.ljust(command.allocation, b".")


def hang() -> None:
    time.sleep(60)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise RuntimeError("not foreseen, and perhaps with a key in its text")


def interrupted() -> None:
    raise OutcomeUnknownError("interrupted", hint="read back", host_status=3, driver_status=8)


def malformed() -> None:
    raise ParseError("the emulator's file is no drive", hint="make one")


def slow() -> None:
    time.sleep(0.6)


ACTIONS: dict[int, Callable[[], None]] = {
    1: hang, 2: crash, 3: fail, 4: interrupted, 5: malformed, 6: slow,
}  # fmt: skip


def does(action: Callable[[], None], seconds: float = 0.2) -> Command:
    (code,) = [code for code, known in ACTIONS.items() if known is action]
    return Command(action.__name__, bytes([code]) + bytes(5), allocation=40, seconds=seconds)


@pytest.fixture
def port() -> Iterator[WorkerTransport]:
    made = WorkerTransport("drive", opener=Scripted, grace=0.3)
    yield made
    made.close()


def child_of(port: WorkerTransport) -> int:
    return port._child


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def children() -> set[str]:
    """Return the processes that this one has started; other tests may have left some running."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {child for task in tasks for child in task.read_text().split()}


def open_descriptors(process: int | str = "self") -> dict[int, str]:
    found = {}
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            found[int(link.name)] = str(link.readlink())
        except FileNotFoundError:  # the one of the listing itself
            continue
    return found


# --- commands and answers


def test_commands_go_through_whole(port: WorkerTransport) -> None:
    assert port.name == "drive (open)"
    assert port.execute(READY) == answer(READY, 1)
    assert port.execute(READ) == answer(READ, 2)
    assert port.complete(LOAD).data == answer(LOAD, 3)
    big = Command("WRITE", bytes(6), os.urandom(2**20), seconds=5.0)
    assert port.execute(big) == answer(big, 4)


def test_one_command_after_another(port: WorkerTransport) -> None:
    for number in range(1, 300):
        assert port.execute(READY) == answer(READY, number)


@given(
    st.builds(
        Completion,
        status=st.integers(0, 0xFF),
        host_status=st.integers(0, 0xFFFF),
        driver_status=st.integers(0, 0xFFFF),
        sense=st.binary(max_size=252),
        data=st.binary(max_size=1000),
    )
)
def test_an_end_round_trips(end: Completion) -> None:
    assert wire.unpack_completion(wire.unpack_result(wire.pack_completion(end))) == end


@given(
    st.builds(
        Command,
        name=st.text(max_size=40),
        cdb=st.binary(min_size=6, max_size=16),
        data_out=st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(SecretBytes)),
        seconds=st.floats(0.1, 2000),
    )
)
def test_a_command_round_trips(command: Command) -> None:
    assert wire.unpack_command(wire.pack_command(command)) == command


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CommandTimeoutError("a", hint="b", host_status=3), CommandTimeoutError),
        (OutcomeUnknownError("a", hint="b", driver_status=8), OutcomeUnknownError),
        (DeviceAccessError("ä", hint="b"), DeviceAccessError),
        (TransportError("a", hint="b", host_status=0xFFFF), TransportError),
        (DeviceError("a", hint="b"), DeviceError),
        (BusyError("a", 8, hint="b"), DeviceError),
        (ParseError("a", hint="b"), DeviceError),
    ],
)
def test_an_error_round_trips(error: HwkmError, kind: type[DeviceError]) -> None:
    with pytest.raises(DeviceError) as caught:
        wire.unpack_result(wire.pack_error(error))
    assert type(caught.value) is kind
    assert (str(caught.value), caught.value.hint) == (str(error), error.hint)
    for name in ("host_status", "driver_status"):
        assert getattr(caught.value, name, 0) == getattr(error, name, 0)


def test_errors_come_back_as_what_they_are(port: WorkerTransport) -> None:
    with pytest.raises(OutcomeUnknownError, match="interrupted") as caught:
        port.execute(does(interrupted))
    assert (caught.value.host_status, caught.value.driver_status) == (3, 8)
    with pytest.raises(DeviceError, match="is no drive"):
        port.execute(does(malformed))
    with pytest.raises(OutcomeUnknownError, match="RuntimeError at") as unforeseen:
        port.execute(does(fail))
    assert "perhaps with a key" not in str(unforeseen.value)
    assert port.execute(READY) == answer(READY, 4)


def test_sense_is_decoded_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way: worker, sg transport, and a driver at the ioctl."""
    refusal = Reply(status=2, driver_status=8, sense=NO_SUCH_PAGE)
    driver = SgDriver(lambda cdb: refusal if cdb[0] == 0xB5 else Reply(b"\x01\x02"))
    monkeypatch.setattr(linux, "sg_io", driver)
    (tmp_path / "sg3").touch()
    port = WorkerTransport(str(tmp_path / "sg3"), opener=lambda name: SgTransport(Path(name)))
    assert port.execute(READ) == b"\x01\x02"
    refused = Command("SECURITY PROTOCOL OUT", b"\xb5" + bytes(11), SecretBytes(KEY))
    with pytest.raises(CheckConditionError) as caught:
        port.execute(refused)
    assert caught.value.sense.code == (5, 0x24, 0)
    assert port.execute(READ) == b"\x01\x02"
    port.close()


def test_a_device_that_is_not_there() -> None:
    before = open_descriptors(), children()
    with pytest.raises(DeviceAccessError, match="no such device"):
        WorkerTransport("/dev/nst4711")
    assert (open_descriptors(), children()) == before


def test_an_opener_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(name: str) -> Port:
        time.sleep(60)
        return Scripted(name)

    monkeypatch.setattr(worker, "OPEN_SECONDS", 0.2)
    with pytest.raises(CommandTimeoutError, match="opening it was not answered in time"):
        WorkerTransport("drive", opener=never)


def test_an_opener_with_a_flaw() -> None:
    def flawed(name: str) -> Port:
        raise RuntimeError(name)

    with pytest.raises(DeviceAccessError, match="RuntimeError at") as caught:
        WorkerTransport("drive", opener=flawed)
    assert type(caught.value) is DeviceAccessError


def test_an_opener_that_crashes() -> None:
    def dies(name: str) -> Port:
        crash()
        return Scripted(name)

    with pytest.raises(OutcomeUnknownError, match="ended during opening"):
        WorkerTransport("drive", opener=dies)


# --- a drive that hangs, a process that dies


def test_a_drive_that_hangs_holds_up_nothing(port: WorkerTransport) -> None:
    child = child_of(port)
    started = time.monotonic()
    with pytest.raises(CommandTimeoutError, match="hang was not answered in time"):
        port.execute(does(hang, 0.2))
    assert 0.5 <= time.monotonic() - started < 3
    assert wait_until(lambda: not is_running(child))
    with pytest.raises(TransportError, match=r"given up when hang was .*was not sent"):
        port.execute(LOAD)


def test_a_child_that_the_kernel_does_not_let_go(
    port: WorkerTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one in a hung ioctl: SIGKILL has no effect, and nobody may wait for it."""
    sent = []
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *words: sent.append(words[1]))
    child = child_of(port)
    started = time.monotonic()
    with pytest.raises(CommandTimeoutError):
        port.execute(does(hang, 0.1))
    port.close()
    assert time.monotonic() - started < 3
    assert sent == [signal.SIGKILL]
    assert is_running(child)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_child_that_stands_still(port: WorkerTransport) -> None:
    """Not even a message larger than the socket's buffer holds the parent up."""
    os.kill(child_of(port), signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(CommandTimeoutError):
        port.execute(Command("WRITE", bytes(6), bytes(2**24), seconds=0.2))
    assert time.monotonic() - started < 3


def test_a_child_that_crashes(port: WorkerTransport) -> None:
    with pytest.raises(OutcomeUnknownError, match="ended during crash") as caught:
        port.execute(does(crash))
    assert "read the drive's state" in caught.value.hint
    with pytest.raises(TransportError, match="was not sent"):
        port.execute(READY)


def test_a_child_that_is_gone_before(port: WorkerTransport) -> None:
    os.kill(child_of(port), signal.SIGKILL)
    wait_until(lambda: not is_running(child_of(port)))
    with pytest.raises(OutcomeUnknownError):
        port.execute(LOAD)


class StopItError(BaseException):
    """As KeyboardInterrupt is: no Exception."""


def stop_it(*_: object) -> None:
    raise StopItError


def test_an_interruption_here_leaves_the_drive_usable(port: WorkerTransport) -> None:
    """The key must be cleared afterwards: through the same child, once it is done."""
    old = signal.signal(signal.SIGUSR1, stop_it)
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -USR1 {os.getpid()}"])
    try:
        with pytest.raises(StopItError):
            port.execute(does(slow, 5))
    finally:
        signal.signal(signal.SIGUSR1, old)
        killer.wait()
    assert port.execute(READY) == answer(READY, 2)  # and not the late answer to the first
    assert port.execute(READY) == answer(READY, 3)


def test_signals_do_not_reach_a_command(port: WorkerTransport) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM):
        os.kill(child_of(port), number)
    assert port.execute(READY) == answer(READY, 1)
    assert not set(signal.pthread_sigmask(signal.SIG_BLOCK, [])) & {signal.SIGINT, signal.SIGTERM}


def test_a_closed_device(port: WorkerTransport) -> None:
    child = child_of(port)
    port.close()
    port.close()
    assert not is_running(child)
    with pytest.raises(TransportError, match="given up when it was closed"):
        port.execute(READY)


def test_closing_leaves_nothing_behind() -> None:
    before = open_descriptors()
    for _ in range(3):
        WorkerTransport("drive", opener=Scripted).close()
    assert open_descriptors() == before


def test_who_ignores_the_end_of_children() -> None:
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        port = WorkerTransport("drive", opener=Scripted)
        assert port.execute(READY) == answer(READY, 1)
        port.close()
    finally:
        signal.signal(signal.SIGCHLD, old)


# --- what the child has, and what it leaves alone


def test_the_child_holds_nothing_of_the_parents(tmp_path: Path) -> None:
    foreign = os.open(tmp_path / "foreign", os.O_CREAT | os.O_RDWR)
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    port = WorkerTransport("drive", opener=Scripted, keep=[lock])
    held = open_descriptors(child_of(port))
    assert {held[number] for number in (0, 1, 2)} == {os.devnull}
    others = sorted(held[number].split(":")[0] for number in held if number > 2)
    assert others == [str(tmp_path / "lock"), "socket"]
    # The lock is the child's now too: a drive that hangs stays locked.
    os.close(lock)
    other = os.open(tmp_path / "lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    port.close()
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    os.close(foreign)


TRACES = """
import atexit, os, sys
from hwkm.scsi.worker import WorkerTransport
from tests.scsi.test_worker import Scripted
atexit.register(lambda: os.write(os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND), b"ended "))
WorkerTransport("drive", opener=Scripted).close()
"""


def test_the_child_runs_nothing_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "traces").touch()
    command = [sys.executable, "-c", TRACES, str(tmp_path / "traces")]
    subprocess.run(command, check=True, timeout=20)
    assert (tmp_path / "traces").read_text() == "ended "


PARENT = """
import sys, time
from hwkm.scsi.worker import WorkerTransport
from tests.scsi.test_worker import Scripted, does, hang, slow
print("buffered, and printed once", end="")
port = WorkerTransport("drive", opener=Scripted)
sys.stdout.write(f"\\n{port._child}\\n")
sys.stdout.flush()
port.execute(does({action}, 50)) if "{action}" != "None" else time.sleep(60)
"""


@pytest.mark.parametrize("action", ["None", "slow"])
def test_the_child_ends_with_its_parent(action: str) -> None:
    script = PARENT.replace("{action}", action)
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert parent.stdout
    assert parent.stdout.readline() == "buffered, and printed once\n"
    child = int(parent.stdout.readline())
    assert is_running(child)
    parent.kill()
    # Nor does it keep open what others wait for the end of.
    assert parent.communicate(timeout=5)[0] == ""
    assert wait_until(lambda: not is_running(child))


# --- keys


def test_messages_are_overwritten_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = []
    real = wire.pack_command

    def remembered(command: Command) -> bytearray:
        messages.append(real(command))
        return messages[-1]

    monkeypatch.setattr(worker, "pack_command", remembered)
    port = WorkerTransport("drive", opener=Scripted)
    port.execute(LOAD)
    assert messages == [bytearray(len(real(LOAD)))]
    received = real(LOAD)
    worker._run(Scripted("drive"), received)
    assert received == bytearray(len(received))
    port.close()


def test_no_error_shows_a_key(port: WorkerTransport) -> None:
    command = Command("fail", b"\x03" + bytes(5), SecretBytes(KEY), seconds=0.2)
    with pytest.raises(OutcomeUnknownError) as caught:
        port.execute(command)
    for text in (repr(caught.value), caught.value.diagnostics(), repr(command)):
        assert KEY.decode() not in text
        assert KEY.hex() not in text


def test_no_time_is_left_for_a_command() -> None:
    """What took the time is not the drive's fault: it is not given up, and it was not asked."""
    soon = time.monotonic() + 1.0
    made = WorkerTransport("drive", opener=Scripted, grace=0.3, deadline=soon)
    assert made.execute(READ).startswith(b"1 READ ATTRIBUTE")
    time.sleep(max(0.0, soon - time.monotonic()))
    with pytest.raises(TransportError, match="no time was left for TEST UNIT READY") as error:
        made.execute(READY)
    assert not isinstance(error.value, CommandTimeoutError)
    assert "not at fault" in error.value.hint
    made.close()
