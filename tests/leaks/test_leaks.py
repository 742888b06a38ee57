"""No key and no PIN is left anywhere: every command, every way to fail, while and after it runs."""

from __future__ import annotations

import base64
import itertools
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hwkm.token.softhsm import module_path
from tests.getkey import devlog, process
from tests.getkey.home import STORAGE_ENV, VOLUME, Home

from .gate import Gate, unprivileged_core_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DECRYPTING = {"gcm": "C_Decrypt", "hmac-kdf": "C_Sign", "oaep": "C_Decrypt"}
LINGER = "sleep=0.15"
"""Time for the gate to look at a process that has a key in its memory."""


class Watched:
    """An installation, all of whose processes run under a gate."""

    def __init__(self, gate: Gate, home: Home) -> None:
        self.gate = gate
        self.home = home
        gate.learn_pins(home.path)

    def hwkm(self, *words: str, stdin: bytes = b"") -> process.Run:
        """Run a command with --debug: that shows all that it shows without, and more."""
        return self._hwkm(["--debug", *words], stdin)

    def fail(self, *words: str) -> None:
        """Run a command that fails, with --debug and without."""
        for front in ((), ("--debug",)):
            assert self._hwkm([*front, *words], b"").status != 0, words

    def getkey(self, operation: str = "READ", volume: str = VOLUME, **how: Any) -> process.Run:
        """Ask for a key."""
        env = self.gate.env | how.pop("env", {})
        started = self.home.start(operation, volume, env=env, **how)
        return self.gate.follow_getkey(started, f"getkey {operation}")

    def _hwkm(self, words: Sequence[str], stdin: bytes) -> process.Run:
        reader, writer = os.pipe()
        os.write(writer, stdin)
        os.close(writer)
        env = {"PATH": STORAGE_ENV["PATH"], "LC_ALL": "C.UTF-8", **self.gate.env}
        before = ["--config", str(self.home.config)]
        started = process.start([*before, *words], env, stdin=reader, cwd=self.gate.cwd)
        os.close(reader)
        return self.gate.follow(started, f"hwkm {' '.join(words)}")


@pytest.fixture
def watched(gate: Gate, shimmed: Home) -> Iterator[Watched]:
    """An installation with the misbehaving module; in the end nothing may have leaked."""
    yield Watched(gate, shimmed)
    gate.learn_pins(shimmed.path)
    gate.check()


@pytest.mark.parametrize("scheme", DECRYPTING)
def test_from_the_beginning(gate: Gate, base: Path, shim_module: Path, scheme: str) -> None:
    folder = gate.cwd.parent / "home"
    gate.homes.append(folder)
    words = ["init", "--home", str(folder), "--softhsm", "--scheme", scheme]
    env = {"PATH": STORAGE_ENV["PATH"], **gate.env}
    run = gate.follow(process.start([*words, "--json"], env, cwd=gate.cwd), "hwkm init")
    assert run.status == 0, run
    home = Home(folder)
    watched = Watched(gate, home)
    home.edit('log = "syslog"', f'log = "{home.log_file}"')
    home.use_shim(shim_module)
    home.plan(f"{DECRYPTING[scheme]}:{LINGER} C_Login:{LINGER}")
    before = gate.samples
    assert watched.getkey("LABEL").out.startswith(b"volume_name")
    assert watched.getkey("READ").out.startswith(b"volume_name")
    assert gate.samples - before > 10
    again = gate.follow(process.start(["--debug", *words], env, cwd=gate.cwd), "hwkm init")
    assert again.status != 0
    gate.check()
    assert len(gate.secrets) == 4, "two PINs, and one key twice"


def test_every_command(watched: Watched) -> None:
    home = watched.home
    wrapped = home.getkey("LABEL", "Vol-0002").given.wrapped
    watched.getkey("READ", "Vol-0002")
    home.plan(f"C_Decrypt:{LINGER}@1")
    master = home.query("SELECT hex(master_id) FROM master_key")[0][0].lower()
    statuses = [
        watched.hwkm(*words).status
        for words in (
            ("check",),
            ("check", "--json"),
            ("token", "list", "--json"),
            ("token", "probe"),
            ("token", "lint"),
            ("master", "list"),
            ("master", "show", master),
            ("master", "check"),
            ("volume", "list"),
            ("volume", "show", VOLUME, "--json"),
            ("volume", "check"),
        )
    ]
    assert statuses.count(0) >= 9, statuses
    assert watched.hwkm("envelope", "inspect", stdin=base64.b64encode(wrapped)).status == 0
    assert watched.hwkm("keystore", "migrate").status == 0
    assert watched.hwkm("master", "create", "--replace").status == 0
    watched.getkey("LABEL")


def test_commands_that_fail(watched: Watched) -> None:
    home = watched.home
    for words in (
        ("volume", "show", "Unknown"),
        ("volume", "check", "Unknown"),
        ("master", "show", "ffff"),
        ("master", "create"),
        ("master", "create", "--existing", "nothing", "--scheme", "gcm", "--replace"),
    ):
        watched.fail(*words)
    assert watched.hwkm("envelope", "inspect", stdin=b"AAAA").status == 1
    for function, command in (
        ("C_Initialize", ("token", "probe")),
        ("C_Login", ("check",)),
        ("C_Decrypt", ("check",)),
        ("C_Decrypt", ("volume", "check")),
    ):
        home.plan(f"{function}:error=0x30")
        assert watched.hwkm(*command).status != 0, command


def test_pins_that_are_changed(watched: Watched) -> None:
    home, gate = watched.home, watched.gate
    former = (home.path / "user-pin").read_text()
    assert watched.hwkm("token", "change-pin").status == 0
    gate.learn_pins(home.path)
    (home.path / "next-pin").write_text("a-pin-of-somebodys-own-choice\n")
    (home.path / "next-pin").chmod(0o600)
    gate.learn_pins(home.path)
    new = f"file:{home.path}/next-pin"
    assert watched.hwkm("token", "change-pin", "--new-pin", new).status == 0
    watched.getkey("READ")
    (home.path / "user-pin").write_text(former)
    for words in (("token", "change-pin"), ("check",)):
        watched.fail(*words)
    assert b"error: " in watched.getkey("READ").out


def test_a_token_that_is_initialised(watched: Watched) -> None:
    home = watched.home
    slot = _free_slot(home)
    pins = {name: home.path / f"{name}-pin" for name in ("second", "second-so")}
    words = [
        *("token", "init", "--module", module_path(), "--slot", str(slot), "--label", "second"),
        *("--pin-file", str(pins["second"]), "--so-pin-file", str(pins["second-so"])),
        *("--environment", f"SOFTHSM2_CONF={home.path}/softhsm2.conf"),
    ]
    assert watched.hwkm(*words).status == 0
    assert all(path.exists() for path in pins.values())
    watched.fail(*words)
    pins["second"].write_text("")
    watched.fail(*words)


@pytest.mark.parametrize("operation", ["READ", "LABEL"])
def test_a_module_that_misbehaves(watched: Watched, operation: str) -> None:
    first = "C_GenerateRandom" if operation == "LABEL" else "C_FindObjectsInit"
    functions = ("C_Initialize", "C_Login", first, "C_Decrypt", "C_Finalize")
    plans = [f"{function}:{action}" for function in functions for action in ("crash", "error=0x30")]
    for plan in (*plans, "C_Login:print", "C_Decrypt:print", "C_Decrypt:exit=3"):
        watched.home.plan(plan)
        watched.getkey(operation)


def test_requests_that_are_refused(watched: Watched) -> None:
    requests: tuple[dict[str, Any], ...] = (
        {"options": ("--devise",)},
        {"operation": "LABEL", "options": ("--cipher", "NULL")},
        {"volume": "../x"},
        {"operation": "WRITE"},
        {"before": ("--config", "/nonexistent")},
        {"env": {"MASTER_KEYID": "x"}},
        {"wrapped": "not base64"},
        {"wrapped": bytes(range(200))},
    )
    for how in requests:
        assert b"error: " in watched.getkey(**how).out


def test_surroundings_that_are_broken(watched: Watched) -> None:
    home, operations = watched.home, itertools.cycle(("READ", "LABEL"))

    def ask(prepare: Callable[[], object] | None = None, stdout: int = subprocess.PIPE) -> None:
        watched.getkey(next(operations), prepare=prepare, stdout=stdout)

    with Path("/dev/full").open("wb") as full:
        ask(stdout=full.fileno())
    ask(prepare=lambda: os.close(1))
    ask(prepare=lambda: os.closerange(0, 3))
    ask(prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)))
    ask(prepare=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8)))
    home.log_file.unlink()
    home.log_file.mkdir()
    ask()
    (home.path / "keystore.db").write_bytes(b"no database at all\n" * 99)
    ask()
    (home.path / "keystore.db").unlink()
    ask()
    shutil.move(home.path / "tokens", home.path / "elsewhere")
    ask()
    shutil.rmtree(home.path / "run")
    ask()


def test_a_keystore_that_is_locked(watched: Watched) -> None:
    # Locked by another process: this one's locks end as soon as the gate has read the file.
    code = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "db.execute('BEGIN IMMEDIATE'); print(flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(watched.home.path / "keystore.db")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert b"database is locked" in watched.getkey("LABEL").out
        other.communicate()


def test_a_crash_leaves_no_core(watched: Watched) -> None:
    """Even where the system would let it: what would be in a core file is shown by test_gate."""
    watched.home.plan("C_Decrypt:crash")
    how: dict[str, Any] = {"prepare": unprivileged_core_limit, "cwd": watched.gate.cwd}
    assert b"SIGSEGV" in watched.getkey("READ", **how).out
    assert b"SIGSEGV" in watched.getkey("LABEL", **how).out
    assert not list(watched.gate.cwd.glob("core*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_kill_while_the_key_is_in_memory(watched: Watched, number: signal.Signals) -> None:
    home, gate = watched.home, watched.gate
    gate.learn("key", home.getkey("READ").given.key)
    home.plan("C_Decrypt:sleep=5")
    started = home.start("READ", env=gate.env, cwd=gate.cwd, prepare=unprivileged_core_limit)
    time.sleep(0.5)
    process.end_session(started.pid, number)
    assert gate.follow_getkey(started, "getkey").status == -number


@pytest.mark.skipif(bool(devlog.why_not()), reason=devlog.why_not() or "-")
def test_syslog(watched: Watched, base: Path) -> None:
    home = watched.home
    home.edit(f'log = "{home.log_file}"', 'log = "syslog"')
    with devlog.syslog(base / "dev-leaks") as log:
        log.listen()
        watched.getkey("LABEL", prefix=log.prefix)
        watched.getkey("READ", prefix=log.prefix)
        watched.getkey("READ", "Unknown", prefix=log.prefix)
        for plan in ("C_Decrypt:print", "C_Decrypt:crash", "C_Decrypt:error=0x30"):
            home.plan(plan)
            watched.getkey("READ", prefix=log.prefix)
        # Where both are closed, the log's own socket must not get the number of standard output.
        home.plan("C_Decrypt:print")
        watched.getkey("READ", prefix=(*log.prefix, "sh", "-c", 'exec "$0" "$@" <&- >&-'))
    words = b"\n".join(log.messages)
    watched.gate.see("syslog", words)
    assert words.count(b"gave generation") >= 2
    assert b"the process crashed (SIGSEGV)" in words


def _free_slot(home: Home) -> int:
    env = {"PATH": os.defpath, "SOFTHSM2_CONF": str(home.path / "softhsm2.conf")}
    command = ["softhsm2-util", "--show-slots"]
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    slots = shown.split("\nSlot ")[1:]
    free = [slot for slot in slots if "Initialized:      no" in slot]
    return int(free[0].split()[0])
