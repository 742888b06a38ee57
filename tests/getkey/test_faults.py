"""Everything around hwkm that can be broken: one line of answer, and a reason in the log."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from . import devlog, process
from .home import VOLUME, Answer, Home

if TYPE_CHECKING:
    from collections.abc import Callable

GIVEN = "gave generation 1"


def fails(home: Home, words: str, operation: str = "READ") -> Answer:
    """Ask for a key that can't be given; answer and log must both say why."""
    answer = home.getkey(operation)
    assert words in answer.error
    assert words in home.log[-1]
    assert f" error: {operation} {VOLUME} (job 7, device /dev/nst0): " in home.log[-1]
    return answer


class TestPin:
    def test_a_wrong_pin_is_tried_once(self, home: Home) -> None:
        right = (home.path / "user-pin").read_text()
        (home.path / "user-pin").write_text("wrong-pin\n")
        fails(home, "the PIN is wrong")
        fails(home, "refused this very PIN before; not tried again")
        assert "wrong-pin" not in home.log_file.read_text()
        (home.path / "user-pin").write_text(right)
        assert home.getkey().reply is not None

    def test_a_wrong_pin_counts_as_a_failure_of_the_volume(self, home: Home) -> None:
        (home.path / "user-pin").write_text("wrong-pin\n")
        fails(home, "the PIN is wrong", "LABEL")
        assert home.events()[-1] == ("label", "failed", VOLUME, "7")
        assert home.query("SELECT count(*) FROM generation") == [(1,)]

    def test_no_file(self, home: Home) -> None:
        (home.path / "user-pin").unlink()
        fails(home, "user-pin can't be read: No such file or directory")

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
    def test_a_file_for_others_to_read(self, home: Home, mode: int) -> None:
        (home.path / "user-pin").chmod(mode)
        fails(home, f"is not private (mode {mode:04o})")

    @pytest.mark.parametrize("text", ["", "\n", "x" * 300])
    def test_a_file_without_a_pin(self, home: Home, text: str) -> None:
        (home.path / "user-pin").write_text(text)
        fails(home, "is empty or too long")

    def test_nobody_is_asked(self, home: Home) -> None:
        home.edit(f"&pin-source=file:{home.path}/user-pin", "")
        fails(home, "is needed and there is nobody to ask")


class TestToken:
    def test_its_folder_is_gone(self, home: Home) -> None:
        shutil.move(home.path / "tokens", home.path / "elsewhere")
        before = home.getkey()
        assert before.reply is None
        assert "token" in before.error
        shutil.move(home.path / "elsewhere", home.path / "tokens")
        assert home.getkey().reply is not None

    def test_another_is_in_its_place(self, home: Home) -> None:
        home.edit("serial=", "serial=0")
        fails(home, "no token behind")

    def test_its_key_is_gone(self, home: Home) -> None:
        for file in (home.path / "tokens").glob("*/????????-*.object"):
            file.unlink()
        fails(home, "master key")


class TestKeystore:
    @pytest.mark.parametrize("operation", ["LABEL", "READ"])
    def test_missing_without_a_wrapped_key(self, home: Home, operation: str) -> None:
        (home.path / "keystore.db").unlink()
        fails(home, "there is no keystore", operation)
        assert not (home.path / "keystore.db").exists()

    def test_another_process_writes_to_it(self, home: Home) -> None:
        begun = time.monotonic()
        with closing(sqlite3.connect(home.path / "keystore.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            fails(home, "database is locked")
        assert time.monotonic() - begun < 15
        assert home.getkey().reply is not None

    @pytest.mark.parametrize("content", [b"", b"no database at all\n" * 100])
    def test_no_database(self, home: Home, content: bytes) -> None:
        (home.path / "keystore.db").write_bytes(content)
        fails(home, "Restore it from its backup")

    def test_of_another_installation(self, home: Home) -> None:
        home.edit('installation = "', 'installation = "0')
        fails(home, "the keystore belongs to installation")

    def test_of_another_release(self, home: Home) -> None:
        with closing(sqlite3.connect(home.path / "keystore.db")) as other:
            other.execute("UPDATE alembic_version SET version_num = '9999'")
            other.commit()
        fails(home, "the keystore is at revision 9999")

    def test_a_broken_one_is_no_reason_to_give_a_key_unrecorded(self, home: Home) -> None:
        wrapped = home.getkey().given.wrapped
        (home.path / "keystore.db").write_bytes(b"no database at all\n" * 100)
        assert "the keystore" in home.getkey("READ", VOLUME, wrapped).error


class TestFolders:
    def test_no_runtime_directory(self, home: Home) -> None:
        shutil.rmtree(home.path / "run")
        answer = home.getkey()
        assert f"the runtime directory {home.path}/run can't be used" in answer.error

    def test_the_log_can_not_be_written(self, home: Home) -> None:
        home.log_file.unlink()
        home.log_file.mkdir()
        assert home.getkey().reply is not None
        assert home.getkey("READ", "Unknown").reply is None

    def test_the_logs_folder_is_gone(self, home: Home) -> None:
        home.edit("/hwkm.log", "/none/hwkm.log")
        assert home.getkey().reply is not None


@pytest.mark.skipif(bool(devlog.why_not()), reason=devlog.why_not() or "-")
class TestSyslog:
    @pytest.fixture
    def logs_to_syslog(self, home: Home) -> Home:
        home.edit(f'log = "{home.log_file}"', 'log = "syslog"')
        return home

    def test_messages(self, logs_to_syslog: Home) -> None:
        with devlog.syslog(logs_to_syslog.path / "dev") as log:
            log.listen()
            assert logs_to_syslog.getkey(prefix=log.prefix).reply is not None
            assert logs_to_syslog.getkey("READ", "Unknown", prefix=log.prefix).reply is None
        given, failed = [message.rstrip(b"\0\n").decode() for message in log.messages]
        stamp = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d hwkm\[\d+\]: "
        assert re.match(rf"<30>{stamp}READ Vol-0001 \(job 7, device /dev/nst0\): gave ", given)
        assert re.match(rf"<27>{stamp}READ Unknown \(job 7, device /dev/nst0\): no key ", failed)

    @pytest.mark.parametrize("volume", [VOLUME, "Unknown"])
    def test_one_that_hangs_keeps_no_answer_back(self, logs_to_syslog: Home, volume: str) -> None:
        with devlog.syslog(logs_to_syslog.path / "dev") as log:
            assert log.fill() > 0
            begun = time.monotonic()
            answer = logs_to_syslog.getkey("READ", volume, prefix=log.prefix)
            assert (answer.reply is not None) == (volume == VOLUME)
            assert time.monotonic() - begun < 10

    def test_nobody_listens(self, logs_to_syslog: Home) -> None:
        with devlog.syslog(logs_to_syslog.path / "dev") as log:
            (logs_to_syslog.path / "dev" / "log").unlink()
            assert logs_to_syslog.getkey(prefix=log.prefix).reply is not None


class TestDescriptors:
    @pytest.mark.parametrize("closed", [(0,), (2,), (0, 2)])
    def test_closed_ones(self, home: Home, closed: tuple[int, ...]) -> None:
        assert home.getkey(prepare=_close(closed)).reply is not None

    @pytest.mark.parametrize("closed", [(1,), (0, 1), (1, 2), (0, 1, 2)])
    def test_nobody_to_answer(self, home: Home, closed: tuple[int, ...]) -> None:
        started = home.start(prepare=_close(closed))
        run = process.finish(started)
        assert (run.status, run.out, run.err, run.left) == (0, b"", b"", ())
        assert GIVEN in home.log[-1]

    def test_a_full_device(self, home: Home) -> None:
        with Path("/dev/full").open("wb") as full:
            run = process.finish(home.start(stdout=full.fileno()))
        assert (run.status, run.err) == (0, b"")
        assert "the answer could not be written: No space left on device" in home.log[-1]
        assert home.getkey().reply is not None

    @pytest.mark.parametrize("action", [signal.SIG_DFL, signal.SIG_IGN])
    def test_a_reader_that_went_away(self, home: Home, action: signal.Handlers) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        started = home.start(stdout=writer, prepare=lambda: signal.signal(signal.SIGPIPE, action))
        os.close(writer)
        run = process.finish(started)
        assert (run.status, run.err) == (0, b"")
        assert "the answer could not be written: Broken pipe" in home.log[-1]

    def test_a_full_pipe_is_waited_for(self, home: Home) -> None:
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        os.write(writer, b"x" * 4096)
        started = home.start(stdout=writer)
        os.close(writer)
        assert process.wait_until(lambda: any(GIVEN in line for line in home.log[1:]), 10)
        with os.fdopen(reader, "rb") as pipe:
            pipe.read(4096)
            out = pipe.read()
        run = process.finish(started)
        assert Answer.of(process.Run(out, run.err, run.status, 0, run.left)).reply is not None


class TestLimits:
    def test_few_descriptors(self, home: Home) -> None:
        before = home.getkey().given
        for files in (5, 6, 7, 8, 9, 10, 12):
            limited = home.getkey(prepare=_limit(resource.RLIMIT_NOFILE, files))
            assert limited.reply in (None, before)
            assert limited.reply is None or files > 6
        assert home.getkey().given == before

    @pytest.mark.parametrize(("operation", "size"), [("READ", 0), ("LABEL", 100), ("READ", 4096)])
    def test_small_files(self, home: Home, operation: str, size: int) -> None:
        before = home.getkey().given
        limited = home.getkey(operation, prepare=_limit(resource.RLIMIT_FSIZE, size))
        assert f"may only write files of {size} bytes" in limited.error
        assert home.getkey().given == before

    def test_a_soft_limit_on_files_does_no_harm(self, home: Home) -> None:
        def prepare() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

        assert home.getkey("LABEL", prepare=prepare).reply is not None

    def test_no_processes(self, owned: Home) -> None:
        answer = owned.getkey(prepare=_limit(resource.RLIMIT_NPROC, 0))
        assert "hwkm failed: BlockingIOError" in answer.error
        assert "Resource temporarily unavailable" in owned.log[-1]
        assert " error: getkey (job 7, device /dev/nst0): internal error: " in owned.log[-1]
        assert owned.getkey().reply is not None


class TestSignals:
    def test_ignored_children(self, home: Home) -> None:
        def prepare() -> None:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)

        assert home.getkey(prepare=prepare).reply is not None

    def test_everything_blocked(self, home: Home) -> None:
        def prepare() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())

        assert home.getkey(prepare=prepare).reply is not None

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
    def test_a_kill_at_any_time_loses_nothing(self, home: Home, number: signal.Signals) -> None:
        before = home.getkey().given
        for delay in (0.05, 0.12, 0.18, 0.24, 0.3):
            started = home.start("LABEL", stderr=subprocess.DEVNULL)
            time.sleep(delay)
            process.end_session(started.pid, number)
            process.finish(started)
        assert home.getkey("READ", VOLUME, before.wrapped).given == before
        assert home.getkey("LABEL").reply is not None
        assert home.hwkm("volume", "check").status == 0


def _close(descriptors: tuple[int, ...]) -> Callable[[], None]:
    def prepare() -> None:
        for number in descriptors:
            os.close(number)

    return prepare


def _limit(kind: int, number: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (number, number))
