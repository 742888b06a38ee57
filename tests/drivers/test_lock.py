"""One process at a time, and a lock that goes with its last holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.drivers.lock import drive_lock, file_name, lock_path
from hwkm.errors import DeviceError

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys, time
from pathlib import Path
from hwkm.drivers.lock import drive_lock
with drive_lock(Path(sys.argv[1]), "S1", 0):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(directory: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(directory)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_a_second_process_is_told_who_to_look_for(tmp_path: Path) -> None:
    with hold(tmp_path) as child:
        with (
            pytest.raises(
                DeviceError, match="another process of hwkm works with the drive S1"
            ) as e,
            drive_lock(tmp_path, "S1", 0.1),
        ):
            pass
        assert str(lock_path(tmp_path, "S1")) in e.value.hint
        with drive_lock(tmp_path, "S2", 0):
            pass
        child.kill()


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    with hold(tmp_path) as child:
        child.send_signal(signal.SIGKILL)
        child.wait()
    with drive_lock(tmp_path, "S1", 0):
        pass


def test_waiting(tmp_path: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(drive_lock(tmp_path, "S1", 0))
        timer = threading.Timer(0.3, stack.pop_all().close)
        timer.start()
        start = time.monotonic()
        with drive_lock(tmp_path, "S1", 10):
            assert time.monotonic() - start >= 0.25
        timer.join()


def test_whoever_keeps_the_descriptor_keeps_the_lock(tmp_path: Path) -> None:
    with drive_lock(tmp_path, "S1", 0) as descriptor:
        kept = os.dup(descriptor)
    with pytest.raises(DeviceError), drive_lock(tmp_path, "S1", 0):
        pass
    os.close(kept)
    with drive_lock(tmp_path, "S1", 0):
        pass


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(DeviceError, match=r"drive-S1\.lock can't be opened: No such file") as caught,
        drive_lock(tmp_path / "none", "S1", 0),
    ):
        pass
    assert "runtime_dir" in caught.value.hint


def test_names() -> None:
    assert file_name("8031BDC7DB") == "8031BDC7DB"
    assert file_name("") == "without-serial"
    assert file_name("../x") == "___x-" + file_name("../x")[-16:]


@given(st.text(), st.text())
def test_no_two_serial_numbers_share_a_name(one: str, other: str) -> None:
    name = file_name(one)
    assert "/" not in name
    assert len(name) <= 60
    assert (name == file_name(other)) is (one == other)
