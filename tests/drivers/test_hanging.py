"""A drive that hangs, under the real command: the process that holds it is stopped for real.

hwkm is not changed for this but in one thing: before a command of its choice the drive's process
gets SIGSTOP, and that command has less time, because the real one is a minute and more.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hwkm.deliveries import open_drive
from hwkm.drivers.lock import drive_lock
from hwkm.errors import DeviceError
from hwkm.scsi import emulator
from hwkm.scsi.emulator.store import opened
from tests.getkey import process
from tests.keystore import homes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.getkey.process import Run
    from tests.keystore.homes import Home

SERIAL, OTHER_SERIAL = "HANGS00001", "WORKS00001"
CARTRIDGE = "L90001L9"
TAPE, FILES = "Tape-0001", "Files-0001"
LOCKED = 8
"""A command of a status, or a load, that goes to the drive when its lock is already held."""
FOR_EVER, BRIEFLY = "60", "0.2"
"""How long hwkm waits for the command at which the drive hangs."""

HANGS = """
import os, signal, sys
from dataclasses import replace
from itertools import count
from hwkm.__main__ import main
from hwkm.scsi.worker import WorkerTransport

at, seconds, killable = int(sys.argv.pop(1)), float(sys.argv.pop(1)), sys.argv.pop(1) == "True"
numbers, complete = count(), WorkerTransport.complete

def hanging(transport, command):
    if next(numbers) == at:
        os.kill(transport._child, signal.SIGSTOP)
        transport._grace = 0.0
        command = replace(command, seconds=seconds)
    return complete(transport, command)

WorkerTransport.complete = hanging
if not killable:  # as a process in a command that the kernel can't end
    signal.pidfd_send_signal = lambda *_: None
main()
"""


class Site:
    """An installation, a drive that is to hang, and another one."""

    def __init__(self, home: Home, folder: Path) -> None:
        self.home = home
        self.path = folder / "hangs"
        self.other = f"emulator:{folder / 'works'}"
        emulator.create(self.path, "hpe-lto-9", serial=SERIAL, cartridge=CARTRIDGE)
        emulator.create(folder / "works", "hpe-lto-9", serial=OTHER_SERIAL, cartridge="L90002L9")
        self.running: list[subprocess.Popen[bytes]] = []

    @property
    def device(self) -> str:
        return f"emulator:{self.path}"

    @property
    def runtime_dir(self) -> Path:
        return self.home.config().runtime_dir

    def start(
        self, command: str, *words: str, at: int, seconds: str = BRIEFLY, killable: bool = True
    ) -> subprocess.Popen[bytes]:
        """Start ``hwkm drive COMMAND`` on the drive, which hangs from its command ``at`` on."""
        before = (str(at), seconds, str(killable), "--config", str(self.home.config_path))
        started = subprocess.Popen(
            [sys.executable, "-c", HANGS, *before, "drive", command, self.device, *words],
            cwd=homes.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.running.append(started)
        return started

    def start_hanging(self, at: int) -> tuple[subprocess.Popen[bytes], int]:
        """Start a status, wait until it hangs, and return it with the drive's process."""
        started = self.start("status", at=at, seconds=FOR_EVER)
        assert process.wait_until(lambda: bool(stopped(started.pid)), 20)
        (worker,) = stopped(started.pid)
        return started, worker

    def hwkm(self, *words: str) -> str:
        """Run a command that must go well; return what it printed."""
        status, shown = self.home.hwkm(*words)
        assert status == 0, shown
        return shown

    def holds_a_key(self) -> bool:
        with opened(self.path) as (state, _):
            return state.shared is not None and bool(state.shared.key)

    def start_afresh(self) -> None:
        """Take the key out, and load the cartridge anew: a load that hung counts as a wrong key."""
        drive = emulator.Drive(self.path)
        drive.power_cycle()
        drive.eject()
        drive.insert(CARTRIDGE)

    def is_free(self) -> bool:
        """Return whether no process has the drive's lock."""
        try:
            with drive_lock(self.runtime_dir, SERIAL, 0):
                return True
        except DeviceError:
            return False


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """An installation that knows a volume whose data the Storage Daemon encrypts."""
    home = homes.initialize(tmp_path_factory.mktemp("hanging") / "template")
    assert home.ask("LABEL", FILES).has_key
    home.edit('delivery = "software"', 'delivery = "auto"')
    return home


@pytest.fixture
def site(template: Home, tmp_path: Path) -> Iterator[Site]:
    made = Site(homes.copy(template, tmp_path / "home"), tmp_path)
    yield made
    for started in made.running:
        process.end_session(started.pid)
        started.communicate()


def stopped(leader: int) -> list[int]:
    """Return the processes of a session that got SIGSTOP."""
    return [pid for pid in process.session(leader) if state_of(pid) == "T"]


def state_of(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123  # as short as it should be
        return file.read().rpartition(")")[2].split()[0]


def until_it_does_not_hang(
    site: Site, command: str, *words: str, at: int = 0
) -> Iterator[tuple[int, Run]]:
    """Yield how a command ends if the drive hangs at its first command, its second, and so on."""
    while (run := process.finish(site.start(command, *words, at=at))).status != 0:
        assert run.left == (), (at, run)
        assert site.is_free(), (at, run)
        yield at, run
        at += 1


def test_a_status_ends_wherever_the_drive_hangs(site: Site) -> None:
    ends = list(until_it_does_not_hang(site, "status"))
    assert len(ends) > 10
    for at, run in ends:
        said = run.err.decode()
        assert run.status == 5, (at, said)
        assert "was not answered in time; the drive was given up" in said, (at, said)
        assert "see its display and the kernel's log" in said, (at, said)
        assert run.out == b"", (at, run)


def test_a_load_says_whether_the_key_may_be_in(site: Site) -> None:
    site.hwkm("drive", "load", site.device, "--volume", TAPE, "--create")
    site.hwkm("drive", "clear", site.device)
    seen = set()
    for at, run in until_it_does_not_hang(site, "load", "--volume", TAPE, at=LOCKED):
        said = run.err.decode()
        assert run.status == 5, (at, said)
        warned = "THE DRIVE MAY STILL HOLD THE KEY" in said
        seen.add((warned, site.holds_a_key()))
        assert "Power-cycle the drive" in said if warned else "kernel's log" in said, (at, said)
        site.start_afresh()
    # Before the key was sent, when that is not known, and once it is in; never in without a word.
    assert seen == {(False, False), (True, False), (True, True)}


def test_nothing_else_waits_for_it(site: Site) -> None:
    hanging, worker = site.start_hanging(at=LOCKED)
    assert not site.is_free()
    site.hwkm("drive", "load", site.other, "--volume", TAPE, "--create")
    assert f"serial: {OTHER_SERIAL}" in site.hwkm("drive", "probe", site.other)
    assert site.home.ask("READ", FILES).has_key
    assert site.home.ask("LABEL", "Files-0002").has_key
    assert FILES in site.hwkm("volume", "list")
    with (
        pytest.raises(DeviceError, match=f"another process .* the drive {SERIAL}") as caught,
        open_drive(site.device, site.runtime_dir, seconds=0.1),
    ):
        pass
    assert "fuser" in caught.value.hint
    assert hanging.poll() is None
    os.kill(worker, signal.SIGCONT)
    run = process.finish(hanging)
    assert (run.status, run.left) == (0, ()), run
    assert site.is_free()


def test_a_process_that_nobody_can_end(site: Site) -> None:
    """hwkm ends all the same. The drive stays locked for as long as it hangs, and no longer."""
    started = site.start("status", at=LOCKED, killable=False)
    out, err = started.communicate(timeout=process.RUN_SECONDS)
    assert (started.returncode, out) == (5, b""), err
    (worker,) = process.session(started.pid)
    assert not site.is_free()
    os.kill(worker, signal.SIGCONT)
    assert process.wait_until(lambda: process.session(started.pid) == (), 20)
    assert site.is_free()
    site.hwkm("drive", "status", site.device)


def test_who_does_not_want_to_wait(site: Site) -> None:
    hanging, _ = site.start_hanging(at=LOCKED)
    hanging.send_signal(signal.SIGINT)
    run = process.finish(hanging)
    assert (run.status, run.out, run.left) == (130, b"", ()), run
    assert site.is_free()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_command_leaves_the_drive_locked_while_it_hangs(
    site: Site, number: signal.Signals
) -> None:
    hanging, worker = site.start_hanging(at=LOCKED)
    hanging.send_signal(number)
    hanging.communicate(timeout=process.RUN_SECONDS)
    assert hanging.returncode == -number
    assert process.session(hanging.pid) == (worker,)
    assert not site.is_free()
    os.kill(worker, signal.SIGCONT)
    assert process.wait_until(lambda: process.session(hanging.pid) == (), 20)
    assert site.is_free()
