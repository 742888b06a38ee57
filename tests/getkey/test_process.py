"""``hwkm getkey`` as Bacula starts it: what it answers, how, and what it leaves behind."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hwkm.envelope import Envelope

from . import process
from .home import OPTIONS, STORAGE_ENV, VOLUME, Answer, Home
from .replies import read_reply

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = ["volume_name", "cipher", "cipher_key", "enc_cipher_key", "master_keyid"]
BASE64 = r"[A-Za-z0-9+/]+={0,2}"


@pytest.fixture(params=["own", "others"])
def any_home(request: pytest.FixtureRequest) -> Home:
    """An installation of this user's, and one of the user nobody, who runs it."""
    found = request.getfixturevalue("home" if request.param == "own" else "owned")
    assert isinstance(found, Home)
    return found


def test_label_answers_all_five_fields_in_order(any_home: Home) -> None:
    lines = any_home.getkey("LABEL", "Vol-0002").out.decode().split("\n")
    assert lines.pop() == ""
    assert [line.partition(": ")[0] for line in lines] == FIELDS
    assert lines[:2] == ["volume_name: Vol-0002", "cipher: AES_256_XTS"]
    assert all(re.fullmatch(rf"\w+: {BASE64}", line) for line in lines[2:])


def test_label_fits_into_a_label_and_names_the_volume(home: Home) -> None:
    reply = home.getkey("LABEL", "Vol-0002").given
    envelope = Envelope.parse(reply.wrapped)
    assert len(reply.key) == 64
    assert len(reply.wrapped) <= 1024
    assert len(reply.master_id) <= 80
    assert (envelope.header.volume, envelope.header.generation) == ("Vol-0002", 1)
    assert reply.key not in reply.wrapped


def test_read_answers_what_label_answered(any_home: Home) -> None:
    labelled = any_home.getkey("LABEL", "Vol-0002")
    assert any_home.getkey("READ", "Vol-0002", labelled.given.wrapped).out == labelled.out
    assert any_home.getkey("READ", "Vol-0002").out == labelled.out


def test_each_label_is_a_new_generation_that_keeps_the_former(home: Home) -> None:
    first, second = (home.getkey("LABEL", "Vol-0002").given for _ in range(2))
    assert first.key != second.key
    assert home.getkey("READ", "Vol-0002", first.wrapped).given == first
    assert home.getkey("READ", "Vol-0002", second.wrapped).given == second


def test_cipher_option(home: Home) -> None:
    options = (*OPTIONS, "--cipher", "AES_128_XTS")
    labelled = home.getkey("LABEL", "Vol-0002", options=options)
    assert (labelled.given.cipher, len(labelled.given.key)) == ("AES_128_XTS", 32)
    # At READ the envelope's cipher counts, whatever the option says by then.
    wrapped = labelled.given.wrapped
    assert home.getkey("READ", "Vol-0002", wrapped, options=OPTIONS).out == labelled.out


@pytest.mark.parametrize("operation", ["LABEL", "READ"])
def test_one_pipe_for_output_and_errors(any_home: Home, operation: str) -> None:
    run = process.finish(any_home.start(operation, stderr=subprocess.STDOUT))
    assert (run.status, run.left) == (0, ())
    assert len(read_reply(run.out).key) == 64


@pytest.mark.parametrize("wanted", ["LABEL", "READ", "nothing"])
def test_one_write(home: Home, tmp_path: Path, wanted: str) -> None:
    trace = tmp_path / "trace"
    found = process.command()
    request = {"OPERATION": wanted, "VOLUME_NAME": VOLUME, "ENC_CIPHER_KEY": "", "MASTER_KEYID": ""}
    tracer = ["strace", "-f", "-qq", "-e", "trace=write,writev,dup2,close", "-o", str(trace)]
    done = subprocess.run(
        [*tracer, *found.words, "--config", str(home.config), "getkey", *OPTIONS],
        env={**STORAGE_ENV, **found.env, **request},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    # The child's descriptor 1 is /dev/null, if it writes there at all.
    parent = trace.read_text().split()[0]
    calls = [line for line in trace.read_text().splitlines() if line.split()[0] == parent]
    writes = [line for line in calls if re.search(r"writev?\((1|2),", line)]
    assert len(writes) == 1, writes
    assert writes[0].endswith(f"= {len(done.stdout)}")
    assert done.stderr == b""
    assert (b"error: " in done.stdout) == (wanted == "nothing")


def test_everything_is_logged_and_recorded(home: Home) -> None:
    reply = home.getkey("LABEL", "Vol-0002").given
    home.getkey("READ", "Vol-0002", reply.wrapped, options=("--job=8", "--device=/dev/nst1"))
    key_id = Envelope.parse(reply.wrapped).header.key_id.hex()
    (label, read), events = home.log[-2:], home.events()[-2:]
    for line, what in ((label, "LABEL"), (read, "READ")):
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ hwkm\[\d+\] info: ", line)
        assert f"{what} Vol-0002" in line
        assert key_id in line
    assert "(job 7, device /dev/nst0)" in label
    assert "(job 8, device /dev/nst1)" in read
    assert events == [("label", "ok", "Vol-0002", "7"), ("read", "ok", "Vol-0002", "8")]


def test_configuration_by_environment(home: Home) -> None:
    env = {"HWKM_CONFIG": str(home.config)}
    assert home.getkey("LABEL", before=(), env=env).reply is not None


def test_configuration_after_the_command(home: Home) -> None:
    options = (*OPTIONS, "--config", str(home.config))
    assert home.getkey("LABEL", before=(), options=options).reply is not None


def test_nothing_but_the_four_variables_and_a_path_is_needed(home: Home) -> None:
    request = {"OPERATION": "LABEL", "VOLUME_NAME": VOLUME}
    started = process.start(["--config", str(home.config), "getkey"], request)
    assert Answer.of(process.finish(started)).reply is not None


def test_a_home_that_is_not_there_and_hostile_variables(home: Home) -> None:
    env = {
        "HOME": "/nonexistent",
        "TMPDIR": "/nonexistent",
        "PYTHONWARNINGS": "always",
        "LC_ALL": "C",
        "SOFTHSM2_CONF": "/etc/passwd",
        "CREDENTIALS_DIRECTORY": "/nonexistent",
    }
    assert home.getkey("LABEL", env=env).reply is not None


def test_volumes_are_apart(home: Home) -> None:
    first, second = home.getkey("LABEL", "A").given, home.getkey("LABEL", "B").given
    assert first.key != second.key
    assert "belongs to volume 'A'" in home.getkey("READ", "B", first.wrapped).error


def test_calls_at_the_same_time(home: Home) -> None:
    names = [f"Vol-{number}" for number in range(4)]
    started = [home.start("LABEL", name) for name in names]
    answers = [Answer.of(process.finish(one)) for one in started]
    keys = {answer.given.key for answer in answers}
    assert len(keys) == 4
    for name, answer in zip(names, answers, strict=True):
        assert home.getkey("READ", name, answer.given.wrapped).out == answer.out


def test_a_library_that_warns_while_it_is_imported(home: Home) -> None:
    script = """
import sys, warnings
class Warner:
    def find_spec(self, name, path, target=None):
        if name == "cryptography":
            warnings.warn("this release is old", UserWarning)
sys.meta_path.insert(0, Warner())
from hwkm.__main__ import main
main()
"""
    found = process.command()
    request = {"OPERATION": "LABEL", "VOLUME_NAME": VOLUME}
    done = subprocess.run(
        [found.interpreter, "-c", script, "--config", str(home.config), "getkey"],
        env={**STORAGE_ENV, **found.env, **request},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(read_reply(done.stdout).key) == 64


@pytest.mark.parametrize(
    "trouble", ["ImportError('no module\\nnamed x')", "OSError(24, 'Too many open files')"]
)
def test_an_installation_that_is_not_complete(trouble: str) -> None:
    script = f"""
import sys
class Breaker:
    def find_spec(self, name, path, target=None):
        if name == "msgspec":
            raise {trouble}
sys.meta_path.insert(0, Breaker())
from hwkm.__main__ import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "getkey"], env={}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.fullmatch(rb"error: hwkm is not installed completely \(\w+\)\n", done.stdout)


def test_help_is_the_command_lines(home: Home) -> None:
    run = home.hwkm("getkey", "--help")
    assert run.status == 0
    assert b"--device" in run.out


def test_a_label_that_only_the_token_knows(home: Home) -> None:
    reply = home.getkey("LABEL", "Vol-0002").given
    for name in ("keystore.db", "keystore.db-wal", "keystore.db-shm"):
        (home.path / name).unlink(missing_ok=True)
    assert home.getkey("READ", "Vol-0002", reply.wrapped).given == reply
    assert "there is no keystore: a new one is made" in home.log[-1]
    assert home.getkey("READ", "Vol-0002").given == reply


def test_base64_is_standard_and_padded(home: Home) -> None:
    lines = home.getkey("LABEL", "Vol-0002").out.split(b"\n")[2:5]
    for line in lines:
        text = line.partition(b": ")[2]
        assert base64.b64encode(base64.b64decode(text, validate=True)) == text


@pytest.mark.parametrize("operation", ["LABEL", "READ"])
def test_nothing_is_imported_that_is_not_needed(home: Home, tmp_path: Path, operation: str) -> None:
    names = tmp_path / "names"
    script = f"""
import sys
from hwkm import getkey, supervise
from hwkm.__main__ import main
def run(work, deadline):
    answer = work()
    open({str(names)!r}, "w").write("\\n".join(sys.modules))
    return supervise.Result(answer, b"", "")
supervise.run = run
main()
"""
    found = process.command()
    request = {"OPERATION": operation, "VOLUME_NAME": VOLUME}
    words = [found.interpreter, "-c", script, "--config", str(home.config), "getkey"]
    done = subprocess.run(
        words, env={**STORAGE_ENV, **found.env, **request}, capture_output=True, check=True
    )
    assert len(read_reply(done.stdout).key) == 64
    loaded = set(names.read_text().split())
    assert "hwkm.manager" in loaded
    assert not loaded & {"typer", "click", "rich", "alembic", "mako", "hwkm.cli", "hwkm.provision"}
