"""Running work in a child: one result, whatever the child does, and nothing left behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hwkm import supervise
from hwkm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ANSWER = b"answer\n"
SHORT = 0.4
LONG = 20.0
UNLIMITED = resource.RLIM_INFINITY


def run(work: Callable[[], bytes], seconds: float = LONG) -> supervise.Result:
    return supervise.run(work, time.monotonic() + seconds)


def children() -> set[str]:
    """Return the children of this process, dead ones that nobody waited for included."""
    lists = Path("/proc/self/task").glob("*/children")
    return {child for text in lists for child in text.read_text().split()}


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    descriptors, processes = set(Path("/proc/self/fd").iterdir()), children()
    yield
    assert set(Path("/proc/self/fd").iterdir()) <= descriptors
    assert children() <= processes


def test_answer() -> None:
    assert run(lambda: ANSWER) == supervise.Result(ANSWER, b"", "")


def test_standard_output_goes_nowhere_and_standard_error_is_kept() -> None:
    def work() -> bytes:
        os.write(1, b"lost\n")
        os.write(2, b"kept\n")
        return ANSWER

    assert run(work) == supervise.Result(ANSWER, b"kept\n", "")


def test_a_flood_is_cut_off_and_holds_nothing_up() -> None:
    def work() -> bytes:
        for _ in range(1000):
            try:
                os.write(2, b"x" * 4096)
            except BlockingIOError:
                time.sleep(0.001)
        return ANSWER

    result = run(work)
    assert (result.answer, result.trouble) == (ANSWER, "")
    assert len(result.noise) == supervise.MAX_NOISE_BYTES


def test_an_error_is_told_by_kind_and_place_only() -> None:
    def work() -> bytes:
        raise ValueError("a text that may hold a key")

    result = run(work)
    assert (result.answer, result.trouble) == (b"", "the process ended without an answer")
    assert result.noise.startswith(b"ValueError at test_supervise.py:")
    assert b"key" not in result.noise


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), MemoryError()])
def test_whatever_is_raised(error: BaseException) -> None:
    def work() -> bytes:
        raise error

    assert run(work).trouble == "the process ended without an answer"


@pytest.mark.parametrize("status", [0, 1, 200])
def test_a_process_that_ends_early(status: int) -> None:
    assert run(lambda: os._exit(status)).trouble == "the process ended without an answer"


def test_an_empty_answer_is_none() -> None:
    assert run(lambda: b"").trouble == "the process ended without an answer"


def test_an_answer_that_was_written_before_a_crash_is_not_taken() -> None:
    def work() -> bytes:
        os.write(_answer_pipe(), ANSWER)
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # pytest has a handler that prints
        os.kill(os.getpid(), signal.SIGSEGV)
        return b""

    assert "SIGSEGV" in run(work).trouble


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL])
def test_a_crash_is_named(number: signal.Signals) -> None:
    def work() -> bytes:
        supervise.protect()  # no core files of these
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return ANSWER

    expected = f"the process crashed ({number.name}); the PKCS#11 module is the likely cause"
    assert run(work).trouble == expected


@pytest.mark.parametrize("ignored", [(), (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)])
def test_a_hanging_process_is_killed(ignored: tuple[signal.Signals, ...]) -> None:
    def work() -> bytes:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        time.sleep(60)
        return ANSWER

    begun = time.monotonic()
    assert run(work, SHORT) == supervise.Result(b"", b"", "there was no answer in time")
    assert SHORT <= time.monotonic() - begun < SHORT + 2


def test_a_process_that_prints_for_ever_is_killed() -> None:
    def work() -> bytes:
        while True:
            with suppress(BlockingIOError):
                os.write(2, b"x" * 65536)

    begun = time.monotonic()
    assert run(work, SHORT).trouble == "there was no answer in time"
    assert time.monotonic() - begun < SHORT + 2


def test_a_deadline_in_the_past() -> None:
    assert run(lambda: ANSWER, -1).trouble in ("", "there was no answer in time")


def test_what_the_child_leaves_behind_holds_nothing_up() -> None:
    def work() -> bytes:
        if os.fork() == 0:
            time.sleep(SHORT * 10)
            os._exit(0)
        return ANSWER

    begun = time.monotonic()
    assert run(work) == supervise.Result(ANSWER, b"", "")
    assert time.monotonic() - begun < SHORT * 8


def test_ignored_children() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert run(lambda: ANSWER) == supervise.Result(ANSWER, b"", "")
    finally:
        signal.signal(signal.SIGCHLD, before)


class TestProtect:
    def test_files_are_private_and_there_is_no_core(self, tmp_path: Path) -> None:
        private, core = tmp_path / "private", tmp_path / "core"
        crash = f"open({str(private)!r}, 'w').close(); os.chdir({str(tmp_path)!r}); os.abort()"
        done = _python(f"supervise.protect(); {crash}", resource.RLIMIT_CORE, UNLIMITED)
        assert done.returncode == -signal.SIGABRT
        assert private.stat().st_mode & 0o777 == 0o600
        assert not list(tmp_path.glob("core*")), core

    @pytest.mark.parametrize(("hard", "expected"), [(UNLIMITED, 1), (0, 0), (5, 1)])
    def test_no_program_is_given_a_core(self, hard: int, expected: int) -> None:
        """With a core_pattern that names a program, Linux heeds no limit but 1."""
        show = "supervise.protect(); print(resource.getrlimit(resource.RLIMIT_CORE))"
        done = _python(show, resource.RLIMIT_CORE, hard)
        assert done.stdout == f"{(expected, expected)}\n", done.stderr

    def test_a_soft_limit_on_files_is_lifted(self) -> None:
        show = "supervise.protect(); print(resource.getrlimit(resource.RLIMIT_FSIZE))"
        soft = "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY)); "
        assert _python(soft + show).stdout == f"{(UNLIMITED, UNLIMITED)}\n"

    def test_a_hard_limit_on_files_is_refused(self) -> None:
        done = _python("supervise.protect()", resource.RLIMIT_FSIZE, 1000)
        assert f"{ConfigError.__name__}: this process may only write files of 1000" in done.stderr


class TestSilence:
    @pytest.mark.parametrize("closed", [(), (0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
    def test_no_file_gets_a_standard_number(self, tmp_path: Path, closed: tuple[int, ...]) -> None:
        report = tmp_path / "report"
        code = (
            f"[os.close(n) for n in {closed}]; supervise.silence(); "
            f"file = open({str(report)!r}, 'w'); "
            "print(file.fileno(), os.readlink('/proc/self/fd/2'), file=file)"
        )
        done = _python(code)
        number, standard_error = report.read_text().split()
        assert int(number) > 2
        assert standard_error == "/dev/null"
        assert done.stderr == ""


def _python(
    code: str, limit: int | None = None, hard: int = UNLIMITED
) -> subprocess.CompletedProcess[str]:
    def prepare() -> None:
        if limit is not None:
            resource.setrlimit(limit, (hard, hard))

    return subprocess.run(
        [sys.executable, "-c", f"import os, resource\nfrom hwkm import supervise\n{code}"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=prepare,
    )


def _answer_pipe() -> int:
    """Return the child's end of the answer's pipe: the lowest pipe that is not standard error."""
    for number in range(3, 100):
        try:
            writable = os.get_blocking(number) is False
        except OSError:
            continue
        if writable and "pipe:" in str(Path(f"/proc/self/fd/{number}").readlink()):
            return number
    raise AssertionError("no pipe")
