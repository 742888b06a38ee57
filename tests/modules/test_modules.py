"""The modules do what the rest of the suite relies on, as python-pkcs11 alone sees them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import TokenUnderTest, missing_packages, tpm
from .processes import server, socket_path
from .starters import STARTERS

if TYPE_CHECKING:
    from collections.abc import Iterator

RAW_CLIENT = Path(__file__).with_name("raw_client.py")
ROOT = Path(__file__).parents[2]
STARTS = ("first", "after unload")

KILLED_RUN = """
import os, pathlib, signal, sys
from tests.modules import p11kit
with p11kit.running(pathlib.Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""

LOGIN = """
import sys, pkcs11
try:
    pkcs11.lib(sys.argv[1]).get_token(token_label=sys.argv[2]).open(user_pin=sys.argv[3]).close()
    print("ok")
except pkcs11.PKCS11Error as error:
    print(type(error).__name__)
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A token, and what two processes, one after the other, reported of it."""

    token: TokenUnderTest
    first: dict[str, Any]
    second: dict[str, Any]


@pytest.fixture(scope="module", params=STARTERS)
def seen(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Seen]:
    name: str = request.param
    with STARTERS[name](tmp_path_factory.mktemp(name)) as token:
        yield Seen(token, raw_client(token), raw_client(token))


def raw_client(token: TokenUnderTest) -> dict[str, Any]:
    facts = {
        "module_path": token.module_path,
        "token_label": token.token_label,
        "user_pin": token.user_pin,
        "hmac_id": token.hmac_key.key_id.decode() if token.hmac_key else "",
        "can_restrict_rsa": token.can_restrict_rsa,
        "rsa_bits": token.rsa_bits,
    }
    done = subprocess.run(
        [sys.executable, str(RAW_CLIENT)],
        input=json.dumps(facts),
        env=token.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_the_token_is_found_again_after_unloading(seen: Seen) -> None:
    assert seen.first["serial, first"] == seen.token.serial
    assert seen.first["serial, after unload"] == seen.token.serial


def test_hmac_is_the_same_in_every_session_and_process(seen: Seen) -> None:
    macs = {report[f"mac, {when}"] for report in (seen.first, seen.second) for when in STARTS}
    assert len(macs) == 1
    assert len(bytes.fromhex(macs.pop())) == 32


def test_hmac_depends_on_the_message(seen: Seen) -> None:
    assert seen.first["mac, other message"] != seen.first["mac, first"]
    assert seen.first["mac, other message"] == seen.second["mac, other message"]


def test_the_hmac_key_cannot_leave(seen: Seen) -> None:
    shown = dict(seen.first["attributes"])
    # Modules either refuse to show CKA_VALUE, or show nothing in it.
    assert shown.pop("VALUE", "b''") == "b''"
    assert shown == {
        "SENSITIVE": "True",
        "EXTRACTABLE": "False",
        "LOCAL": "True",
        "ALWAYS_SENSITIVE": "True",
        "NEVER_EXTRACTABLE": "True",
        "SIGN": "True",
        "WRAP": "False",
    }


def test_oaep_decrypts_what_the_host_encrypted(seen: Seen) -> None:
    assert seen.first["oaep SHA-1"] == "ok"
    assert (seen.first["oaep SHA-256"] == "ok") == seen.token.has_oaep_sha256


def test_gcm_works_where_it_is_said_to(seen: Seen) -> None:
    refused = "MechanismInvalid" if seen.token.can_generate_secret else "FunctionNotSupported"
    assert seen.first["gcm"] == ("ok" if seen.token.has_gcm else refused)


@pytest.mark.parametrize("name", STARTERS)
def test_nothing_keeps_running_after_a_failure(name: str, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_while_running(name, tmp_path)
    assert processes_naming(tmp_path) == []


def test_servers_end_with_a_killed_test_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, str(tmp_path)], cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL
    end = time.monotonic() + 10
    while processes_naming(tmp_path) and time.monotonic() < end:
        time.sleep(0.05)
    assert processes_naming(tmp_path) == []


def test_a_server_that_does_not_start_is_an_error_with_its_output(tmp_path: Path) -> None:
    failing = server(["sh", "-c", "echo no luck; exit 3"], {}, tmp_path / "log", lambda: False)
    with pytest.raises(RuntimeError, match=r"ended with 3\nno luck"), failing:
        pass


def test_a_socket_path_that_the_kernel_refuses_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too long"):
        socket_path(tmp_path / ("d" * 100), "sock")


def test_missing_packages_are_named() -> None:
    assert missing_packages() == []
    assert missing_packages(["softhsm2", "no-such-package"]) == ["no-such-package"]


def test_a_locked_pin_of_the_tpm_can_be_unlocked(tmp_path: Path) -> None:
    with tpm.running(tmp_path) as token:
        outcomes = [pin_outcome(token, "000000") for _ in range(4)]
        assert outcomes[0] == "PinIncorrect"
        assert outcomes[-1] == "PinLocked"
        assert pin_outcome(token, token.user_pin) == "PinLocked"
        tpm.clear_lockout(token)
        assert pin_outcome(token, token.user_pin) == "ok"


def fail_while_running(name: str, directory: Path) -> None:
    with STARTERS[name](directory):
        assert name == "softhsm" or processes_naming(directory)
        raise ZeroDivisionError


def pin_outcome(token: TokenUnderTest, pin: str) -> str:
    """Return what a login with ``pin`` gives: ok, or the exception's name."""
    done = subprocess.run(
        [sys.executable, "-c", LOGIN, token.module_path, token.token_label, pin],
        env=token.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip() or done.stderr


def processes_naming(directory: Path) -> list[str]:
    """Return the command lines in which ``directory`` occurs; a zombie has none."""
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            lines.append(process.read_text(errors="replace"))
    return [line for line in lines if str(directory) in line]
