"""The Changer Command's wrapper, around a changer that moves cartridges of an emulated drive."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from hwkm.changer import Call, Operation
from hwkm.deliveries import Deliveries, open_drive
from hwkm.drivers.choose import Choice
from hwkm.errors import ConfigError
from hwkm.manager import Caller
from hwkm.policy import Delivery
from hwkm.scsi import commands, emulator
from tests.keystore import homes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.keystore.homes import Home

SCRIPT = """#!/bin/sh
echo "$@" >>{log}
case $2 in
    load) {python} -m hwkm emulator insert {drive} L9000$3L9 ;;
    unload) {python} -m hwkm emulator eject {drive} ;;
    fail) echo broken; exit 7 ;;
    *) printf 'out\\377'; printf 'err' >&2 ;;
esac
"""


@dataclass(frozen=True)
class Library:
    """A changer, its drive, and an installation."""

    home: Home
    drive: Path
    script: Path
    log: Path

    @property
    def device(self) -> str:
        return f"emulator:{self.drive}"

    def run(self, operation: str, slot: str = "1") -> subprocess.CompletedProcess[bytes]:
        words = (str(self.script), "/dev/sch0", operation, slot, self.device, "0")
        command = ("--config", str(self.home.config_path), "drive", "changer", "--", *words)
        return subprocess.run(
            [sys.executable, "-m", "hwkm", *command], capture_output=True, check=False
        )

    def moves(self) -> list[str]:
        return [line.split()[1] for line in self.log.read_text().splitlines()]

    def deliveries(self) -> Deliveries:
        return Deliveries.of(self.home.installation(), Caller("tester"))

    def names(self) -> tuple[bytes, ...]:
        runtime_dir = self.home.installation().config.runtime_dir
        with open_drive(self.device, runtime_dir) as driver:
            return driver.held_names()

    def write_encrypted(self) -> bytes:
        """Write a block with a new volume's key; return the key's id."""
        runtime_dir = self.home.installation().config.runtime_dir
        with open_drive(self.device, runtime_dir) as driver:
            desk = self.deliveries()
            desk.issue("Vol-0001", Choice(Delivery.DRIVE, "it was asked for"))
            key_id = desk.deliver(driver, desk.fetch("Vol-0001")).key_id
        with closing(emulator.EmulatorTransport(self.drive)) as port:
            port.execute(commands.write_block(b"data" * 1000))
            port.execute(commands.write_filemarks(1))
            port.execute(commands.rewind())
        return key_id


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = homes.initialize(tmp_path_factory.mktemp("changer") / "template")
    text = home.config_path.read_text()
    home.config_path.write_text(text.replace('delivery = "software"', 'delivery = "auto"'))
    return home


@pytest.fixture
def library(template: Home, tmp_path: Path) -> Library:
    drive, script, log = tmp_path / "drive", tmp_path / "mtx-changer", tmp_path / "log"
    emulator.create(drive, "hpe-lto-9", cartridge=None)
    script.write_text(SCRIPT.format(log=log, python=sys.executable, drive=drive))
    script.chmod(0o700)
    return Library(homes.copy(template, tmp_path / "home"), drive, script, log)


def test_the_key_follows_the_cartridge(library: Library) -> None:
    assert library.run("load").returncode == 0
    assert library.names() == ()  # a blank tape asks for none
    key_id = library.write_encrypted()
    assert library.run("unload").returncode == 0
    assert library.names() == ()
    assert library.run("load", "2").returncode == 0
    assert library.names() == ()
    assert library.run("unload").returncode == 0
    assert library.run("load").returncode == 0
    assert key_id in library.names()


def test_a_tape_with_an_unknown_key_is_taken_back(library: Library, template: Home) -> None:
    strange = homes.copy(template, library.drive.with_name("strange"))
    assert library.run("load").returncode == 0
    Library(strange, library.drive, library.script, library.log).write_encrypted()
    assert library.run("unload").returncode == 0
    done = library.run("load")
    assert done.returncode == 1
    assert b"not on record" in done.stderr
    assert library.moves()[-2:] == ["load", "unload"]
    with open_drive(library.device, library.home.installation().config.runtime_dir) as driver:
        assert driver.identify()[1] is None


def test_a_drive_that_can_not_encrypt_just_loads(library: Library) -> None:
    library.drive.unlink()
    emulator.create(library.drive, "ibm-lto-3", cartridge=None)
    assert library.run("load").returncode == 0
    assert library.run("unload").returncode == 0


def test_all_else_passes_untouched(library: Library) -> None:
    done = library.run("list")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\xff", b"err")
    done = library.run("fail")
    assert (done.returncode, done.stdout) == (7, b"broken\n")


def test_a_changer_that_fails_to_load(library: Library) -> None:
    library.script.write_text("#!/bin/sh\necho stuck >&2\nexit 3\n")
    done = library.run("load")
    assert (done.returncode, done.stderr) == (3, b"stuck\n")


def test_calls() -> None:
    words = ["mtx-changer", "/dev/sch0", "load", "3", "/dev/nst0", "0"]
    call = Call.parse(words)
    assert (call.operation, call.device) == (Operation.LOAD, "/dev/nst0")
    assert Call.parse(words, "/dev/sg1").device == "/dev/sg1"
    assert call.reversed().words == (*words[:2], "unload", *words[3:])
    assert Call.parse(["mtx-changer", "/dev/sch0", "slots"]).operation is None
    with pytest.raises(ConfigError, match="names no drive"):
        Call.parse(words[:4])
    with pytest.raises(ConfigError, match="no changer command"):
        Call.parse([])
    with pytest.raises(ConfigError, match="can't be run"):
        Call.parse(["/nowhere/mtx-changer", "x", "list"]).run()
