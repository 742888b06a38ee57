"""The gate itself: it finds a key wherever and however one is left, and cries at nothing else."""

from __future__ import annotations

import base64
import json
import os
import resource
import secrets
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

import pytest

from tests.getkey import devlog, process
from tests.getkey.home import STORAGE_ENV, VOLUME, Home

from .gate import BLOCK, Gate, unprivileged_core_limit
from .spellings import needles, search

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = secrets.token_bytes(64)
PIN = secrets.token_urlsafe(24).encode()
AWKWARD = b"a'b\"c\\d\n\r\t\0\x7f\xff " * 4
"""Bytes that every way of writing spells differently."""

WAYS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda data: data,
    "UTF-8": lambda data: data.decode("latin-1").encode(),
    "hex": lambda data: data.hex().encode(),
    "hex, capitals": lambda data: data.hex().upper().encode(),
    "hex, as tcpdump": lambda data: data.hex(" ").encode(),
    "hex, as openssl": lambda data: data.hex(":").upper().encode(),
    "hex, as C": lambda data: "".join(f"\\x{byte:02x}" for byte in data).encode(),
    "octal": lambda data: "".join(f"\\{byte:03o}" for byte in data).encode(),
    "base64": base64.b64encode,
    "base64 in lines": lambda data: base64.encodebytes(data * 3),
    "base64url": base64.urlsafe_b64encode,
    "base32": base64.b32encode,
    "base32, small": lambda data: base64.b32encode(data).lower(),
    "repr": lambda data: repr(data).encode(),
    "repr of a bytearray": lambda data: repr(bytearray(data)).encode(),
    "repr of a list": lambda data: repr(list(data)).encode(),
    "repr of a tuple": lambda data: repr(tuple(data)).encode(),
    "JSON": lambda data: json.dumps({"key": data.decode("latin-1")}).encode(),
    "JSON list": lambda data: json.dumps(list(data), separators=(",", ":")).encode(),
    "number": lambda data: str(int.from_bytes(data, "big")).encode(),
    "URL": lambda data: quote_from_bytes(data).encode(),
    "URL, all of it": lambda data: quote_from_bytes(data, safe="").encode(),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "secret", [KEY, KEY[:32], PIN, AWKWARD], ids=["64", "32", "PIN", "awkward"]
)
def test_every_spelling_is_found(way: str, secret: bytes) -> None:
    if way.startswith("URL") and secret == AWKWARD:
        secret = KEY
    assert search(b"before " + WAYS[way](secret) + b" after", {"it": secret})


@pytest.mark.parametrize("shift", range(6))
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.b32encode])
def test_a_key_in_the_midst_of_encoded_bytes(shift: int, encode: Callable[[bytes], bytes]) -> None:
    assert search(encode(secrets.token_bytes(shift) + KEY + b"more"), {"it": KEY})


@pytest.mark.parametrize("half", [KEY[:32], KEY[32:]])
def test_half_a_key(half: bytes) -> None:
    assert search(half.hex().encode(), {"it": KEY})


def test_nothing_is_found_by_chance() -> None:
    others = secrets.token_bytes(2**20)
    assert not search(others + base64.b64encode(others) + others.hex().encode(), {"it": KEY})
    assert min(len(needle) for _, needle in needles(KEY)) >= 16


@pytest.mark.parametrize("at", [0, BLOCK - 20, BLOCK, BLOCK + 1, 3 * BLOCK - 64])
def test_wherever_in_a_long_output(gate: Gate, at: int) -> None:
    gate.learn("key", KEY)
    gate.see("output", bytes(at) + KEY + bytes(100))
    assert any("raw" in line for line in gate.leaks())


# What each place would look like if something were left there: code for a process of its own.
PLACES = {
    "standard output": "print(KEY.hex())",
    "standard error": "sys.stderr.write(repr(KEY))",
    "file left": "open(os.path.join(TMP, 'left'), 'wb').write(KEY)",
    "file left2": "open('left2', 'wb').write(KEY)",
    "the name of a file": "open(os.path.join(TMP, KEY.hex()), 'wb')",
    "file gone": (
        "path = os.path.join(TMP, 'gone'); open(path, 'wb').write(KEY); time.sleep(0.3); "
        "os.unlink(path)"
    ),
    "file without a name": (
        "import tempfile; file = tempfile.TemporaryFile(); file.write(KEY); file.flush(); "
        "time.sleep(0.3)"
    ),
    "cmdline": "subprocess.run([sys.executable, '-c', 'import time; time.sleep(0.3)', KEY.hex()])",
    "environ": "subprocess.run(['sleep', '0.3'], env={'K': KEY.hex()})",
    "file keystore.db-wal": (
        "import sqlite3; db = sqlite3.connect(os.path.join(HOME, 'keystore.db')); "
        "db.execute('PRAGMA journal_mode=WAL'); db.execute('CREATE TABLE t (k BLOB)'); "
        "db.execute('INSERT INTO t VALUES (?)', (KEY,)); db.commit(); time.sleep(0.3); "
        "db.execute('DROP TABLE t'); db.commit()"
    ),
    "file hwkm.log": "open(os.path.join(HOME, 'hwkm.log'), 'w').write(KEY.hex())",
}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_is_looked_into(gate: Gate, tmp_path: Path, place: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "user-pin").write_bytes(PIN + b"\n")
    gate.learn_pins(home)
    gate.learn("key", KEY)
    code = PLACES[place]
    names = (
        f"KEY = bytes.fromhex('{KEY.hex()}'); TMP = {str(gate.temporary)!r}; HOME = {str(home)!r}"
    )
    script = tmp_path / "script.py"
    script.write_text(f"import os, subprocess, sys, time\n{names}\n{code}\n")
    gate.follow(_started([sys.executable, str(script)], gate), "the script")
    found = gate.leaks()
    assert any(f" in {place}" in line for line in found), found
    assert all(KEY.hex() not in line for line in found)
    with pytest.raises(AssertionError, match="key 1"):
        gate.check()


def test_the_pin_file_alone_may_hold_the_pin(gate: Gate, tmp_path: Path) -> None:
    for name in ("user-pin", "so-pin", "user-pin.new"):
        (tmp_path / name).write_bytes(PIN + b"\n")
    gate.learn_pins(tmp_path)
    gate.check()
    (tmp_path / "pin.backup").write_bytes(PIN)
    assert gate.leaks() == ["PIN of so-pin 0 (raw) in file pin.backup"]


def test_a_core_file(gate: Gate) -> None:
    """A process that does nothing against it leaves its memory in the folder it stands in."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith(("|", "/")):
        pytest.skip(f"cores go elsewhere on this machine: {pattern}")
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard == 0:
        pytest.skip("this process may not let others dump core (ulimit -H -c)")
    gate.learn("key", KEY)
    script = gate.cwd.parent / "crash.py"
    script.write_text(f"import os\nkey = bytes.fromhex('{KEY.hex()}')\nos.abort()\n")
    started = _started([sys.executable, str(script)], gate, prepare=unprivileged_core_limit)
    gate.follow(started, "a crash")
    assert any(" in file core" in line for line in gate.leaks())


@pytest.mark.skipif(bool(devlog.why_not()), reason=devlog.why_not() or "-")
def test_syslog(gate: Gate, base: Path) -> None:
    gate.learn("key", KEY)
    with devlog.syslog(base / "dev-gate") as log:
        log.listen()
        code = f"import syslog; syslog.syslog('{KEY.hex()}')"
        started = _started([*log.prefix, sys.executable, "-c", code], gate)
        assert started.wait() == 0
        started.communicate()
    gate.see("syslog", b"\n".join(log.messages))
    assert gate.leaks() == ["key 0 (hex) in syslog"]


def test_an_answer_may_hold_its_key_once(gate: Gate, labelled: Home) -> None:
    started = labelled.start("READ", env=gate.env)
    run = gate.follow_getkey(started, "READ")
    assert len(gate.secrets) == 1
    gate.check()
    gate.see("elsewhere", run.out)
    assert gate.leaks() == ["key of READ 0 (base64) in elsewhere"]


SABOTAGE = {
    "the log": "getkey.Log.info(log, 'gave ' + key.hex())",
    "an event": "db = sqlite3.connect(DB); db.execute(INSERT, (key.hex(),)); db.commit()",
    "standard error": "os.write(2, repr(key).encode())",
    "a temporary file": "open(os.environ['TMPDIR'] + '/key', 'wb').write(key)",
}


@pytest.mark.parametrize("place", SABOTAGE)
def test_hwkm_with_a_leak_built_in(gate: Gate, home: Home, place: str) -> None:
    script = gate.cwd.parent / "sabotage.py"
    script.write_text(
        f"""
import os, sqlite3
from hwkm import getkey
from hwkm.manager import KeyManager
from hwkm.__main__ import main
DB = {str(home.path / "keystore.db")!r}
INSERT = "INSERT INTO event (at, who, operation, outcome, detail) VALUES (0, '', 'read', 'ok', ?)"
read = KeyManager.read
def leak(manager, *arguments):
    handout = read(manager, *arguments)
    key, log = handout.key.expose(), getkey.Log({str(home.log_file)!r})
    {SABOTAGE[place]}
    return handout
KeyManager.read = leak
main()
"""
    )
    gate.learn_pins(home.path)
    found = process.command()
    request = {"OPERATION": "READ", "VOLUME_NAME": VOLUME, **STORAGE_ENV, **found.env}
    words = [found.interpreter, str(script), "--config", str(home.config), "getkey"]
    run = gate.follow_getkey(_started(words, gate, request), "READ")
    assert len(gate.secrets) == 3, run
    with pytest.raises(AssertionError, match="key of READ"):
        gate.check()


def test_hwkm_without_a_leak(gate: Gate, home: Home) -> None:
    gate.learn_pins(home.path)
    gate.follow_getkey(home.start("READ", env=gate.env), "READ")
    gate.check()
    with closing(sqlite3.connect(home.path / "keystore.db")) as database:
        (key,) = (secret for name, secret in gate.secrets.items() if name.startswith("key"))
        values = (0, "", "read", "ok", base64.b64encode(b"x" + key).decode())
        columns = "at, who, operation, outcome, detail"
        database.execute(f"INSERT INTO event ({columns}) VALUES (?, ?, ?, ?, ?)", values)
        database.commit()
    assert any("in file keystore.db" in line for line in gate.leaks())


def _started(
    words: list[str],
    gate: Gate,
    env: dict[str, str] | None = None,
    prepare: Callable[[], object] | None = None,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words,
        env={"PATH": os.defpath, **gate.env, **(env or {})},
        cwd=gate.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=prepare,
    )
