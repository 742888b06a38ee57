"""``hwkm-getkey`` against agents that answer well, badly and not at all, and without any."""

from __future__ import annotations

import ast
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hwkm.agent import frames
from hwkm.agent.frames import pack
from tests.getkey import process
from tests.getkey.home import OPTIONS, STORAGE_ENV, VOLUME, Home
from tests.getkey.process import ME, User, why_not_as_another
from tests.getkey.replies import read_reply

from .lean import (
    GIVEN,
    REPLY,
    REQUEST,
    SCRIPT,
    SETTLE_SECONDS,
    Client,
    agent,
    close_all,
    framed,
    gives,
    listening,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SYSTEM_PYTHON = Path("/usr/bin/python3")
needs_system_python = pytest.mark.skipif(
    not SYSTEM_PYTHON.exists(), reason=f"there is no {SYSTEM_PYTHON}"
)
ENVIRONMENT = [
    str(value).encode() if isinstance(value, str) else value for value in REQUEST.values()
]
WORDS = [word.encode() for word in OPTIONS]


@pytest.fixture(name="base", scope="module")
def _base() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="hwkm-lean-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(name="client")
def _client(base: Path) -> Iterator[Client]:
    folder = Path(tempfile.mkdtemp(dir=base))
    folder.chmod(0o711)
    yield Client.create(folder)
    shutil.rmtree(folder)


# --- an agent that answers ---


def test_an_answer_is_printed_as_it_is(client: Client) -> None:
    with agent(client.socket, gives(GIVEN)) as found:
        assert client.ask().out == REPLY
    assert found.requests == [[b"getkey", *ENVIRONMENT, *WORDS]]
    assert found.after == []
    assert client.one_shot() == []


def test_an_error_line_is_printed_as_it_is(client: Client) -> None:
    line = "error: the token is gone. Plug it in, ü\n".encode()
    with agent(client.socket, gives(pack([b"ok", line]))):
        assert client.ask().out == line


def test_the_constants_are_those_of_the_frames() -> None:
    text = SCRIPT.read_text()
    assert f"MAGIC = {frames.MAGIC!r}\n".replace("'", '"') in text
    assert f"MAX_BODY = {frames.MAX_BODY_BYTES}\n" in text


def test_waiting_fits_into_bacula_s_minute() -> None:
    found = dict(re.findall(r"^(\w+)_SECONDS = (\d+)", SCRIPT.read_text(), re.MULTILINE))
    one_shot = 20 + 2  # and as long as a syslog takes that takes nothing
    assert int(found["CONNECT"]) + max(int(found["ANSWER"]), one_shot) < 60


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        ([], []),
        (["--job=7"], [b"--job=7"]),
        (["--device", "--socket", "--job", "--config"], None),
        (["--config", "/x", "--job", "7"], [b"--job", b"7"]),
        (["--config=/x", "extra", ""], [b"extra", b""]),
        (["--job"], [b"--job"]),
        (["--socketx", "-", "--"], [b"--socketx", b"-", b"--"]),
        ([b"--device", b"\xff\xfe \n", "ü"], [b"--device", b"\xff\xfe \n", "ü".encode()]),
    ],
)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "POSIX", "xx_XX"])
def test_which_words_are_sent(
    client: Client, words: list[str | bytes], sent: list[bytes] | None, locale: str
) -> None:
    expected = [word.encode() for word in words if isinstance(word, str)] if sent is None else sent
    with agent(client.socket, gives(GIVEN)) as found:
        assert client.ask(options=words, env={"LC_ALL": locale}).out == REPLY
    assert found.requests == [[b"getkey", *ENVIRONMENT, *expected]]


def test_the_socket_may_stand_anywhere(client: Client) -> None:
    with agent(client.socket, gives(GIVEN)) as found:
        late = ["--job", "7", f"--socket={client.socket}"]
        assert client.ask(before=[], options=late).out == REPLY
        relative = ["--socket", client.socket.name]
        assert client.ask(before=relative, cwd=client.socket.parent).out == REPLY
    assert len(found.requests) == 2


def test_variables_as_they_are(client: Client) -> None:
    env = {"VOLUME_NAME": b"\xff\n\x01", "ENC_CIPHER_KEY": b"x" * 30_000, "OPERATION": ""}
    with agent(client.socket, gives(pack([b"ok", b"error: no\n"]))) as found:
        client.ask(env=env)
    expected = [b"", b"\xff\n\x01", b"x" * 30_000, b"bWFzdGVy"]
    assert found.requests == [[b"getkey", *expected, *WORDS]]


def test_variables_that_are_not_there(client: Client) -> None:
    with agent(client.socket, gives(pack([b"ok", b"error: no\n"]))) as found:
        script = [str(client.script), "--socket", str(client.socket)]
        done = subprocess.run(script, env={}, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"error: no\n", b"")
    assert found.requests == [[b"getkey", b"", b"", b"", b""]]


def test_one_pipe_for_output_and_errors(client: Client) -> None:
    with agent(client.socket, gives(GIVEN)):
        run = process.finish(client.start(stderr=subprocess.STDOUT))
    assert (run.status, run.left) == (0, ())
    assert read_reply(run.out).key == bytes(range(64))


@pytest.mark.parametrize("reply", [REPLY, b"error: no\n", b"nonsense"])
def test_one_write(client: Client, tmp_path: Path, reply: bytes) -> None:
    trace = tmp_path / "trace"
    tracer = ["strace", "-f", "-qq", "-e", "trace=write,writev", "-o", str(trace)]
    with agent(client.socket, gives(pack([b"ok", reply]))):
        run = process.finish(client.start(command=[*tracer, client.script]))
    writes = [line for line in trace.read_text().splitlines() if re.search(r"writev?\(\d", line)]
    assert len(writes) == 1, writes
    assert re.search(r"write\(1, ", writes[0])
    assert writes[0].endswith(f"= {len(run.out)}")


def test_an_answer_that_comes_byte_by_byte(client: Client) -> None:
    def answer(connection: socket.socket) -> None:
        for byte in GIVEN:
            connection.sendall(bytes([byte]))

    with agent(client.socket, answer):
        assert client.ask().out == REPLY


def test_many_at_once(client: Client) -> None:
    with agent(client.socket, gives(GIVEN)) as found:
        runs = [process.finish(one) for one in [client.start() for _ in range(20)]]
    assert {run.out for run in runs} == {REPLY}
    assert len(found.requests) == 20


def test_the_rare_part_is_no_more_than_python(client: Client) -> None:
    """It is text in a text, where no tool looks."""
    text = client.script.read_text()
    (rare,) = re.findall(r"^REST = r'{3}\n(.*?)^'{3}$", text, re.MULTILINE | re.DOTALL)
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E,F", "-q"]
    for source in (text, rare):
        known = f"builtins=[{', '.join(map(repr, names(text)))}]"
        argv = [*ruff, "--line-length", "100", "--config", known, "-"]
        done = subprocess.run(argv, input=source, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def names(source: str) -> list[str]:
    """Return what a module defines at its top: names that its rare part may use, and so on."""
    rest = re.search(r"^REST = r'{3}\n(.*?)^'{3}$", source, re.MULTILINE | re.DOTALL)
    trees = [ast.parse(source), ast.parse(rest[1] if rest else "")]
    found = [node for tree in trees for node in tree.body]
    defined = [node.name for node in found if isinstance(node, ast.FunctionDef)]
    for node in found:
        if isinstance(node, ast.ImportFrom):
            defined += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign):
            defined += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return defined


def test_nothing_is_imported_but_the_socket(client: Client) -> None:
    """What takes longer than an answer would take."""
    python = [str(client.bin / "python3"), "-I", "-S", "-X", "importtime"]
    with agent(client.socket, gives(GIVEN)):
        run = process.finish(client.start(command=[*python, client.script]))
    assert run.out == REPLY
    bare = subprocess.run([*python, "-c", "pass"], capture_output=True, check=True)
    assert imported(run.err) - imported(bare.stderr) == {"_socket"}


def imported(listing: bytes) -> set[str]:
    return set(re.findall(r"\| +(\S+)$", listing.decode(), re.MULTILINE))


# --- what it runs in ---


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_standard_descriptors_that_are_closed(client: Client, closed: tuple[int, ...]) -> None:
    with agent(client.socket, gives(GIVEN)) as found:
        run = process.finish(client.start(prepare=close_all(*closed)))
    assert (run.status, run.err) == (0, b"")
    assert run.out == (b"" if 1 in closed else REPLY)
    assert len(found.requests) == 1
    assert found.after == [], "the answer went into the socket"
    with agent(client.socket, gives(b"nonsense")) as found:
        run = process.finish(client.start(prepare=close_all(*closed)))
    assert (run.status, run.err, run.out.startswith(b"error: ")) == (0, b"", 1 not in closed)
    assert found.after == [], "the answer went into the socket"


def test_nobody_reads_the_answer(client: Client) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with agent(client.socket, gives(GIVEN)) as found:
        run = process.finish(client.start(stdout=writing))
        with Path("/dev/full").open("w") as full:
            second = process.finish(client.start(stdout=full.fileno()))
    os.close(writing)
    assert (run.status, run.err, second.status, second.err) == (0, b"", 0, b"")
    assert len(found.requests) == 2


def test_hostile_variables(client: Client, tmp_path: Path) -> None:
    for name in ("time", "posix", "_socket", "sitecustomize", "encodings", "startup"):
        (tmp_path / f"{name}.py").write_text("import os; os.write(1, b'taken over')\n")
        shutil.copy(tmp_path / f"{name}.py", client.bin)
    env = {
        "PYTHONPATH": str(tmp_path),
        "PYTHONHOME": "/nonexistent",
        "PYTHONSTARTUP": str(tmp_path / "startup.py"),
        "PYTHONWARNINGS": "always",
        "PYTHONVERBOSE": "1",
        "PYTHONINSPECT": "1",
        "PYTHONIOENCODING": "utf-16",
        "ENV": str(tmp_path / "startup.py"),
        "BASH_ENV": str(tmp_path / "startup.py"),
        "IFS": "/-",
        "PATH": "/nonexistent",
        "HOME": "/nonexistent",
    }
    with agent(client.socket, gives(GIVEN)):
        assert client.ask(env=env, cwd=tmp_path).out == REPLY


def test_signals_that_are_ignored_or_blocked(client: Client) -> None:
    def prepare() -> None:
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

    with agent(client.socket, gives(GIVEN)):
        assert client.ask(prepare=prepare).out == REPLY


def test_it_can_be_ended(client: Client) -> None:
    with agent(client.socket, lambda connection: connection.recv(1)) as found:
        started = client.start()
        assert process.wait_until(lambda: bool(found.requests), SETTLE_SECONDS)
        started.terminate()
        run = process.finish(started)
    assert (run.status, run.out, run.err) == (-signal.SIGTERM, b"", b"")


def by_link(client: Client) -> list[str | Path]:
    folder = client.bin.parent / "elsewhere"
    folder.mkdir()
    (folder / "one").symlink_to(client.script)
    (folder / "two").symlink_to("one")
    return [folder / "two"]


def by_odd_folder(client: Client) -> list[str | Path]:
    folder = client.bin.parent / "a 'b\" $c `d"
    folder.mkdir()
    for file in ("hwkm-getkey", "hwkm", "python3"):
        shutil.copy(client.bin / file, folder / file, follow_symlinks=False)
    return [folder / "hwkm-getkey"]


WAYS: dict[str, Callable[[Client], list[str | Path]]] = {
    "PATH": lambda client: ["/usr/bin/env", f"PATH={client.bin}:/bin", "hwkm-getkey"],
    "relative": lambda client: ["/usr/bin/env", f"--chdir={client.bin}", "./hwkm-getkey"],
    "sh": lambda client: ["/usr/bin/env", f"--chdir={client.bin}", "sh", "hwkm-getkey"],
    "bash": lambda client: ["/bin/bash", client.script],
    "bash as sh": lambda client: ["/bin/bash", "--posix", client.script],
    "link": by_link,
    "odd folder": by_odd_folder,
}


@pytest.mark.parametrize("way", WAYS)
def test_however_it_is_found(client: Client, way: str) -> None:
    command = WAYS[way](client)
    with agent(client.socket, gives(GIVEN)):
        assert client.ask(command=command).out == REPLY
    assert client.ask(command=command).error == "from the one-shot command"


@needs_system_python
def test_without_a_python_beside_it_the_systems_serves(client: Client) -> None:
    (client.bin / "python3").unlink()
    (client.bin / "python3").symlink_to("/nonexistent/python3.11")  # as after an upgrade
    with agent(client.socket, gives(GIVEN)):
        assert client.ask().out == REPLY


@needs_system_python
def test_a_link_that_cannot_be_followed(client: Client) -> None:
    """What sh says to that would be part of Bacula's answer."""
    with agent(client.socket, gives(GIVEN)):
        assert client.ask(command=by_link(client), env={"PATH": "/nonexistent"}).out == REPLY


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_without_any_python(client: Client, shell: str) -> None:
    (client.bin / "python3").unlink()
    text = client.script.read_text()
    assert str(SYSTEM_PYTHON) in text
    client.script.write_text(text.replace(str(SYSTEM_PYTHON), "/nonexistent/python3"))
    answer = client.ask(command=[shell, client.script])
    assert answer.error == "hwkm-getkey finds no python3 that can be run"


# --- an agent that answers badly ---

OTHER_VOLUME = REPLY.replace(VOLUME.encode(), b"Vol-0002")
BAD = {
    "half a header": (GIVEN[:6], "closed the connection without"),
    "half a frame": (GIVEN[:100], "closed the connection without"),
    "all but a byte": (GIVEN[:-1], "closed the connection without"),
    "another protocol": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak version 1"),
    "another version": (b"HWK\x02" + GIVEN[4:], "does not speak version 1"),
    "no frame at all": (REPLY, "does not speak version 1"),
    "a huge length": (b"HWK\x01\xff\xff\xff\xff" + b"x" * 5000, "too long"),
    "a huge length alone": (b"HWK\x01\xff\xff\xff\xff", "too long"),
    "an answer of 5000 bytes": (pack([b"ok", b"error: " + b"x" * 5000 + b"\n"]), "too long"),
    "two answers": (GIVEN + GIVEN, "too long"),
    "more than an answer": (GIVEN + b"x", "too long"),
    "an empty frame": (framed(b""), "none that Bacula may get"),
    "a short frame": (framed(b"\0\0\0\2ok"), "none that Bacula may get"),
    "no text": (pack([b"ok"]), "none that Bacula may get"),
    "an empty text": (pack([b"ok", b""]), "none that Bacula may get"),
    "a frame longer than its fields": (
        b"HWK\x01" + (len(GIVEN) - 8 + 5).to_bytes(4, "big") + GIVEN[8:],
        "closed the connection without",
    ),
    "a refusal that is too short": (framed(b"\0\0\0\2no\0\0\0\1xy"), "none that Bacula may get"),
    "three fields": (pack([b"ok", REPLY, b""]), "none that Bacula may get"),
    "a field that is too long": (
        framed(b"\0\0\0\2ok\xff\xff\xff\xff" + REPLY),
        "none that Bacula may get",
    ),
    "a field that is too short": (framed(b"\0\0\0\2ok\0\0\0\1" + REPLY), "none that Bacula may"),
    "neither yes nor no": (pack([b"maybe", REPLY]), "none that Bacula may get"),
    "upper case": (pack([b"OK", REPLY]), "none that Bacula may get"),
    "another volume's key": (pack([b"ok", OTHER_VOLUME]), "none that Bacula may get"),
    "no newline": (pack([b"ok", REPLY[:-1]]), "none that Bacula may get"),
    "a line too few": (pack([b"ok", REPLY.rpartition(b"master")[0]]), "none that Bacula may get"),
    "a line too many": (pack([b"ok", REPLY + b"comment: x\n"]), "none that Bacula may get"),
    "more behind the last line": (pack([b"ok", REPLY + b"x"]), "none that Bacula may get"),
    "an error of two lines": (pack([b"ok", b"error: a\ncipher: NULL\n"]), "none that Bacula may"),
    "a traceback": (pack([b"ok", b"Traceback (most recent)\n"]), "none that Bacula may get"),
    "a refusal": (pack([b"no", b"user x may not getkey"]), "the agent refused: user x may not"),
    "a refusal without words": (pack([b"no", b""]), "the agent refused:"),
    "a hostile refusal": (
        pack([b"no", b"a\r\nb\0\x1b[2J\xff\ncipher_key: x" + b"y" * 1000]),
        "the agent refused: a b  [2J\ufffd cipher_key: xy",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_answers(client: Client, name: str) -> None:
    data, words = BAD[name]
    with agent(client.socket, gives(data)) as found:
        answer = client.ask()
    assert words in answer.error
    assert len(answer.out) < 1000
    assert len(found.requests) == 1
    assert client.one_shot() == [], "what answers wrongly is not to be worked around"


def test_an_agent_that_ends_without_a_word(client: Client) -> None:
    """Bacula was given nothing yet, so somebody else may be asked."""
    with agent(client.socket, gives(b"")):
        answer = client.ask()
    assert answer.error == "from the one-shot command"
    assert client.one_shot()[2] == f"the agent at {client.socket} ended without an answer"


def test_answers_without_having_read(client: Client) -> None:
    """As an agent does that has too many clients."""
    with listening(client.socket) as listener:
        started = client.start(env={"ENC_CIPHER_KEY": "x" * 30_000})
        connection, _ = listener.accept()
        with connection:
            connection.sendall(pack([b"no", b"too many clients"]))
        run = process.finish(started)
    assert run.out == b"error: the agent refused: too many clients\n"


@pytest.mark.parametrize("start", [b"", GIVEN[:6], GIVEN[:-1]])
def test_an_agent_that_never_answers(client: Client, start: bytes) -> None:
    client.set_seconds(ANSWER_SECONDS=1)

    def answer(connection: socket.socket) -> None:
        connection.sendall(start)
        connection.recv(1)  # until the client has had enough

    with agent(client.socket, answer):
        assert client.ask().error == "the agent gave no answer in 1 seconds"
    assert client.one_shot() == []


def test_a_huge_length_is_not_waited_for(client: Client) -> None:
    client.set_seconds(ANSWER_SECONDS=3)

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HWK\x01\xff\xff\xff\xff")
        connection.recv(1)  # until the client has had enough

    with agent(client.socket, answer):
        assert client.ask().error == "the agent's answer is too long"


def test_an_answer_that_drips(client: Client) -> None:
    """Each byte comes soon enough, and the last one never would."""
    client.set_seconds(ANSWER_SECONDS=1)

    def answer(connection: socket.socket) -> None:
        for byte in GIVEN:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    with agent(client.socket, answer):
        assert client.ask().error == "the agent gave no answer in 1 seconds"


def test_an_agent_that_does_not_even_read(client: Client) -> None:
    client.set_seconds(ANSWER_SECONDS=1)
    with listening(client.socket):
        answer = client.ask(env={"ENC_CIPHER_KEY": "x" * 60_000})
    assert answer.error == "the agent gave no answer in 1 seconds"
    assert client.one_shot() == []


def test_an_agent_that_is_killed(client: Client) -> None:
    script = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); "
        "s.listen(); print(flush=True); c = s.accept()[0]; c.recv(100); os.kill(os.getpid(), 9)"
    )
    words = [sys.executable, "-c", script, str(client.socket)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        killed.stdout.readline()
        answer = client.ask()
    assert answer.error == "from the one-shot command"
    assert client.one_shot()[2] == f"the agent at {client.socket} ended without an answer"
    # It is dead, but its socket is still there.
    assert client.ask().error == "from the one-shot command"
    assert client.one_shot()[2] == f"no agent at {client.socket}: Connection refused"


def test_a_request_that_is_too_long(client: Client) -> None:
    with agent(client.socket, gives(GIVEN)) as found:
        answer = client.ask(env={"ENC_CIPHER_KEY": "x" * 65_500})
    assert answer.error == "the request is too long for the agent"
    assert found.requests == []


@pytest.mark.parametrize("words", [["--socket"], ["--socket="], ["--socket", ""], ["--config="]])
def test_options_that_lack_their_value(client: Client, words: list[str]) -> None:
    name = words[0].rstrip("=")
    assert client.ask(before=words, options=[]).error == f"the option {name} lacks its value"


# --- no agent ---


def missing(_: Path) -> None:
    pass


def missing_folder(path: Path) -> None:
    path.parent.rename(path.parent.parent / "gone")


def a_file(path: Path) -> None:
    path.write_text("")


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def nobody_listens(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unused:
        unused.bind(str(path))


def datagrams(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(path))
    listener.close()


ABSENT: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (missing, "No such file or directory"),
    "missing folder": (missing_folder, "No such file or directory"),
    "a file": (a_file, "Connection refused"),
    "a folder": (a_folder, "Connection refused"),
    "a link to itself": (a_link_to_itself, "Too many levels of symbolic links"),
    "nobody listens": (nobody_listens, "Connection refused"),
    "datagrams": (datagrams, "Connection refused|Protocol wrong type"),
}


@pytest.mark.parametrize("name", ABSENT)
def test_without_an_agent_the_one_shot_command_serves(client: Client, name: str) -> None:
    make, why = ABSENT[name]
    path = client.socket.parent / "folder" / "agent.sock"
    path.parent.mkdir()
    make(path)
    before = ["--socket", str(path), "--config", "/etc/hwkm/other.toml"]
    answer = client.ask(before=before, env={"HWKM_CONFIG": b"/\xff"})
    assert answer.error == "from the one-shot command"
    config, file, command, option, reason, *words = client.one_shot()
    assert [config, file, command] == ["--config", "/etc/hwkm/other.toml", "getkey"]
    assert (option, words) == ("--no-agent", list(OPTIONS))
    assert re.fullmatch(f"no agent at {re.escape(str(path))}: ({why})", reason), reason


def test_the_one_shot_command_gets_the_same_environment(client: Client) -> None:
    env = {"HWKM_CONFIG": b"/\xff", "VOLUME_NAME": b"\xfe\nx", "LC_ALL": "C.UTF-8"}
    client.ask(env=env, options=[b"--device", b"\xfd"])
    expected = {**STORAGE_ENV, **REQUEST, **env}
    got = client.one_shot_env()
    for name, value in expected.items():
        assert got[name.encode()] == (value.encode() if isinstance(value, str) else value)
    assert client.one_shot()[-2:] == ["--device", os.fsdecode(b"\xfd")]
    assert client.one_shot()[0] == "getkey", "no configuration was named"


def test_no_core_dumps(client: Client) -> None:
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if most == 0:
        pytest.skip("no process may leave a core dump here")
    client.ask(prepare=lambda: resource.setrlimit(resource.RLIMIT_CORE, (most, most)))
    assert client.one_shot_core() == "0"


def test_the_default_socket(client: Client) -> None:
    text = client.script.read_text()
    assert 'SOCKET = "/run/hwkm/agent.sock"\n' in text
    client.script.write_text(text.replace("/run/hwkm/agent.sock", str(client.socket)))
    with agent(client.socket, gives(GIVEN)):
        assert client.ask(before=[]).out == REPLY


def test_a_path_that_is_too_long_for_a_socket(client: Client) -> None:
    client.ask(before=["--socket", "/" + "x" * 200])
    assert "AF_UNIX path too long" in client.one_shot()[2]


def test_an_agent_with_a_full_queue(client: Client) -> None:
    client.set_seconds(CONNECT_SECONDS=1)
    with listening(client.socket, backlog=0), socket.socket(socket.AF_UNIX) as first:
        first.connect(str(client.socket))
        assert client.ask().error == "from the one-shot command"
    assert "Resource temporarily unavailable" in client.one_shot()[2]


def test_a_queue_that_moves_on(client: Client) -> None:
    with listening(client.socket, backlog=0) as listener, socket.socket(socket.AF_UNIX) as first:
        first.connect(str(client.socket))
        started = client.start()
        time.sleep(0.3)
        listener.accept()[0].close()
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(GIVEN)
            run = process.finish(started)
    assert run.out == REPLY


def test_neither_works(client: Client) -> None:
    (client.bin / "hwkm").unlink()
    reason = f"no agent at {client.socket}: No such file or directory"
    expected = f"{reason}; and {client.bin}/hwkm can't be run: No such file or directory"
    assert client.ask().error == expected
    (client.bin / "hwkm").write_text("")
    assert client.ask().error == expected.replace(
        "run: No such file or directory", "run: Permission denied"
    )


def test_help_is_the_one_shot_commands(client: Client) -> None:
    with agent(client.socket, gives(GIVEN)) as found:
        client.ask(options=["--help"])
    assert client.one_shot() == ["getkey", "--help"]
    assert found.requests == []


# --- whose agent it is ---


@contextmanager
def agent_of(path: Path, user: User) -> Iterator[None]:
    """A process of another user's that gives a key to whoever asks."""
    script = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); "
        f"os.chmod(sys.argv[1], 0o666); os.setgid({user.gid}); os.setuid({user.uid}); s.listen()\n"
        f"print(flush=True)\nwhile True: c = s.accept()[0]; c.recv(9999); c.sendall({GIVEN!r})"
    )
    words = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        started.stdout.readline()
        try:
            yield
        finally:
            started.kill()


needs_root = pytest.mark.skipif(ME.uid != 0, reason="only root can be somebody else")


@needs_root
def test_a_strangers_agent_is_asked_nothing(client: Client) -> None:
    nobody = User.named("nobody")
    with agent_of(client.socket, nobody):
        assert client.ask().error == "from the one-shot command"
    assert client.one_shot()[2] == (
        f"no agent at {client.socket}: user id {nobody.uid} listens, who does not own the folder"
    )


@needs_root
def test_the_agent_of_the_folders_owner(client: Client) -> None:
    nobody = User.named("nobody")
    folder = client.socket.parent / "run"
    folder.mkdir()
    os.chown(folder, nobody.uid, nobody.gid)
    with agent_of(folder / "agent.sock", nobody):
        assert client.ask(before=["--socket", str(folder / "agent.sock")]).out == REPLY


@needs_root
def test_roots_agent_in_anybodys_folder(client: Client) -> None:
    """As systemd's is, when it listens for the agent."""
    if why := why_not_as_another():
        pytest.skip(why)
    nobody = User.named("nobody")
    folder = client.socket.parent / "run"
    folder.mkdir()
    os.chown(folder, nobody.uid, nobody.gid)
    path = folder / "agent.sock"
    with agent(path, gives(GIVEN)):
        path.chmod(0o666)
        assert client.ask(before=["--socket", str(path)], user=nobody).out == REPLY
        path.chmod(0o600)
        client.bin.chmod(0o777)  # for the notes of the one-shot command
        client.ask(before=["--socket", str(path)], user=nobody)
    assert client.one_shot()[2] == f"no agent at {path}: Permission denied"


# --- hwkm itself as the one-shot command ---


@pytest.fixture(name="home", scope="module")
def _home(base: Path) -> Home:
    return Home.create(base / "home")


def test_keys_without_an_agent(client: Client, home: Home) -> None:
    client.use_hwkm()
    before = ["--socket", str(client.socket), "--config", str(home.config)]
    empty = {"ENC_CIPHER_KEY": "", "MASTER_KEYID": ""}
    label = client.ask(before=before, env={**empty, "OPERATION": "LABEL"})
    given, warned = home.log[-2:]
    assert "info: LABEL Vol-0001 (job 7, device /dev/nst0): gave generation" in given
    why = f"the agent was not used: no agent at {client.socket}: No such file or directory"
    assert warned.endswith(f"warning: getkey (job 7, device /dev/nst0): {why}")
    assert client.ask(before=before, env=empty).out == label.out
    assert home.getkey("READ").out == label.out
    assert "the agent was not used" not in home.log[-1]


def test_a_configuration_that_may_not_be_read_is_not_the_reason(client: Client) -> None:
    """Where the agent alone may read it, what is wrong is that there is no agent."""
    client.use_hwkm()
    before = ["--socket", str(client.socket), "--config", "/nonexistent/config.toml"]
    answer = client.ask(before=before)
    assert answer.error.startswith(f"no agent at {client.socket}: No such file or directory; ")
    assert "Start the agent" in answer.error


def test_a_failure_without_an_agent_says_so_too(client: Client, home: Home) -> None:
    client.use_hwkm()
    before = ["--socket", str(client.socket), "--config", str(home.config)]
    answer = client.ask(before=before, env={"OPERATION": "nothing"})
    assert answer.error.startswith("OPERATION is neither LABEL nor READ")
    assert "the agent was not used" in home.log[-1]
