"""A key on its way to a drive is left nowhere else: not by a load, and not by one that fails."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hwkm.scsi.emulator import create
from tests.getkey import process
from tests.getkey.home import STORAGE_ENV

from .drives import CARTRIDGE, Station
from .gate import unprivileged_core_limit
from .test_leaks import DECRYPTING, LINGER, Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.getkey.home import Home

    from .gate import Gate

VOLUME = "Tape-0001"
PLAIN, WRAPPED = "ibm-lto-8", "hpe-lto-9"
"""Drives that take a key in clear, and wrapped."""
LIES = ("mode-ignored", "kad-dropped", "other-host", "no-medium", "library-managed")


@pytest.fixture
def make(gate: Gate, shimmed: Home) -> Callable[[str], Station]:
    """Return what makes a drive beside an installation that lets drives encrypt."""

    def made(profile: str) -> Station:
        path = gate.cwd.parent / profile
        create(path, profile, cartridge=CARTRIDGE)
        shimmed.edit('delivery = "software"', 'delivery = "auto"')
        return Station(Watched(gate, shimmed), path)

    return made


@pytest.fixture(params=[PLAIN, WRAPPED])
def station(request: pytest.FixtureRequest, make: Callable[[str], Station]) -> Iterator[Station]:
    """A drive whose keys may be found nowhere in the end."""
    made = make(request.param)
    yield made
    made.watched.gate.check()


def test_every_command(station: Station) -> None:
    gate, before = station.watched.gate, station.watched.gate.samples
    station.watched.home.plan(f"{DECRYPTING['gcm']}:{LINGER}")
    assert station.run("prove").status == 1  # no key yet
    station.works("load", "--volume", VOLUME, "--create")
    key = station.learn_key()
    station.works("status", "--json")
    station.works("probe", "--json")
    station.write()
    station.works("prove", "--json")
    station.works("clear", "--json")
    assert station.key() == b""
    station.works("auto")
    assert station.key() == key
    station.works("load", "--volume", VOLUME, "--json")
    for words in (("volume", "show", VOLUME, "--json"), ("volume", "check"), ("check",)):
        assert station.watched.hwkm(*words).status == 0, words
    assert gate.samples - before > 10


def test_the_changer_command(station: Station) -> None:
    station.works("load", "--volume", VOLUME, "--create")
    key = station.learn_key()
    station.write()
    assert station.change("unload").status == 0
    assert station.key() == b""
    assert station.change("load").status == 0
    assert station.key() == key


def test_the_encryption_command(station: Station) -> None:
    """With a drive that encrypts, not even the answer to the Storage Daemon holds the key."""
    options = ("--device", station.device)
    for operation in ("LABEL", "READ"):
        started = station.watched.home.start(
            operation, VOLUME, options=options, env=station.watched.gate.env
        )
        run = station.watched.gate.follow(started, f"getkey {operation}")
        assert b"cipher: NULL" in run.out, run
    station.learn_key()


@pytest.mark.parametrize("lie", LIES)
def test_loads_that_fail(station: Station, lie: str) -> None:
    station.works("load", "--volume", VOLUME, "--create")
    station.learn_key()
    station.works("clear")
    station.drive.tell_lie(lie)
    station.watched.fail("drive", "load", station.device, "--volume", VOLUME)


def test_a_key_that_was_made_for_a_load_that_failed(station: Station) -> None:
    station.drive.tell_lie("mode-ignored")
    assert b"not encrypted" in station.run("load", "--volume", VOLUME, "--create").err
    station.drive.tell_lie("mode-ignored", False)
    station.works("load", "--volume", VOLUME)  # the same key: there is one generation
    station.learn_key()


def test_output_that_nobody_takes(station: Station) -> None:
    """Where the report can't be written, what is said about that holds no key."""
    station.works("load", "--volume", VOLUME, "--create")
    station.learn_key()
    with Path("/dev/full").open("wb") as full:
        assert _load(station, stdout=full.fileno()).status != 0


def test_a_crash_leaves_no_core(station: Station) -> None:
    """The key was made, and is looked at again, when the module brings the process down."""
    station.watched.home.plan(f"{DECRYPTING['gcm']}:crash")
    run = _load(station, "--create", prepare=unprivileged_core_limit)
    assert run.status == -signal.SIGSEGV
    assert not list(station.watched.gate.cwd.glob("core*"))
    station.watched.home.plan("")
    station.works("load", "--volume", VOLUME, "--create")
    station.learn_key()


# The gate finds what a drive's process, or the one that gives it keys, leaves behind.

SABOTAGE = {
    "standard error": "sys.stderr.write(repr(key))",
    "the log": "open(LOG, 'a').write(key.hex())",
    "the runtime directory": "open(RUN + '/drive-1.lock', 'wb').write(key)",
    "an event": "db = sqlite3.connect(DB); db.execute(EVENT, (key.hex(),)); db.commit()",
    "a temporary file": "tempfile.NamedTemporaryFile(delete=False).write(key)",
    "a file without a name": (
        "file = tempfile.TemporaryFile(); file.write(key); file.flush(); time.sleep(0.3)"
    ),
    "the arguments of a process": (
        "subprocess.run([sys.executable, '-c', 'import time; time.sleep(0.3)', key.hex()])"
    ),
    "the environment of a process": "subprocess.run(['sleep', '0.3'], env={'KEY': key.hex()})",
}
# Where the key is taken from: the process that gives it, and the one that holds the drive.
SPOTS = {
    "in the process": """
load = TapeDriver.load
def leaking(driver, key, *words, **more):
    leak(key.expose())
    return load(driver, key, *words, **more)
TapeDriver.load = leaking
""",
    "in the drive's process": """
complete = EmulatorTransport.complete
def leaking(transport, command):
    if command.is_secret and len(command.exposed()) > 60:
        leak(command.exposed()[20:52])
    return complete(transport, command)
EmulatorTransport.complete = leaking
""",
}
LEAKS = [
    (place, spot)
    for place in SABOTAGE
    for spot in SPOTS
    if (place, spot) != ("standard error", "in the drive's process")  # it has none
]
SCRIPT = """
import os, sqlite3, subprocess, sys, tempfile, time
from hwkm.__main__ import main
from hwkm.drivers.tape import TapeDriver
from hwkm.scsi.emulator import EmulatorTransport
HOME = {home!r}
DB, LOG, RUN = HOME + "/keystore.db", HOME + "/hwkm.log", HOME + "/run"
EVENT = "INSERT INTO event (at, who, operation, outcome, detail) VALUES (0, '', 'read', 'ok', ?)"
def leak(key):
    {leak}
{spot}
main()
"""


@pytest.mark.parametrize(("place", "spot"), LEAKS)
def test_a_load_with_a_leak_built_in(make: Callable[[str], Station], place: str, spot: str) -> None:
    station = make(PLAIN)
    gate, home = station.watched.gate, station.watched.home
    script = gate.cwd.parent / "sabotage.py"
    text = SCRIPT.format(home=str(home.path), leak=SABOTAGE[place], spot=SPOTS[spot])
    script.write_text(text)
    words = (process.command().interpreter, str(script), "--config", str(home.config))
    load = ("drive", "load", station.device, "--volume", VOLUME, "--create")
    run = gate.follow(_started(station, [*words, *load]), "the load")
    assert run.status == 0, run
    station.learn_key()
    with pytest.raises(AssertionError, match="key in the drive"):
        gate.check()


def test_the_drive_itself_is_found(make: Callable[[str], Station]) -> None:
    """Its file is left out because of where it stands, not because nothing would be found in it."""
    station = make(WRAPPED)
    station.works("load", "--volume", VOLUME, "--create")
    station.learn_key()
    station.watched.gate.check()
    station.watched.gate.see("the drive's file", station.path.read_bytes())
    assert any(" in the drive's file" in line for line in station.watched.gate.leaks())


def _load(station: Station, *options: str, **how: Any) -> process.Run:
    """Run a load of the volume, with a standard output or a preparation of its own."""
    words = ["--config", str(station.watched.home.config), "drive", "load", station.device]
    env = {"PATH": STORAGE_ENV["PATH"], **station.watched.gate.env}
    started = process.start(
        [*words, "--volume", VOLUME, *options], env, cwd=station.watched.gate.cwd, **how
    )
    return station.watched.gate.follow(started, "hwkm drive load")


def _started(station: Station, words: list[str]) -> subprocess.Popen[bytes]:
    gate = station.watched.gate
    return subprocess.Popen(
        words,
        env={"PATH": STORAGE_ENV["PATH"], **gate.env, **process.command().env},
        cwd=gate.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
