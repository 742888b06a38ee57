"""Keys that open nothing are counted, and two before the drive's limit there are no more."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from hwkm.drivers.attempts import FILE_BYTES, MAX_ATTEMPTS, AttemptGuard, TooManyKeysError
from hwkm.drivers.report import NotEncryptedError
from hwkm.errors import PolicyError
from hwkm.keys import Cipher, VolumeKey
from tests.drivers.bench import BARCODE, KEY, KEY_ID, SPOUT, Bench, Between, refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(name="guard")
def _guard(tmp_path: Path) -> AttemptGuard:
    return AttemptGuard(tmp_path, "S1", "maker\0serial", 3)


def test_eight_and_no_more(guard: AttemptGuard) -> None:
    for number in range(MAX_ATTEMPTS):
        assert guard.count() == number
        guard.reserve()
    with pytest.raises(TooManyKeysError, match="8 keys were tried") as caught:
        guard.reserve()
    assert "Unload" in caught.value.hint
    assert guard.count() == MAX_ATTEMPTS == 8
    assert guard.path.stat().st_size == FILE_BYTES
    assert guard.path.stat().st_mode & 0o777 == 0o600


def test_what_resets_it(guard: AttemptGuard) -> None:
    guard.reserve()
    guard.reserve()
    guard.harmless()
    assert guard.count() == 1
    guard.opened()
    guard.harmless()
    assert guard.count() == 0


def test_another_load_another_cartridge_another_drive(guard: AttemptGuard) -> None:
    for _ in range(MAX_ATTEMPTS):
        guard.reserve()
    others: tuple[dict[str, Any], ...] = ({"loads": 4}, {"cartridge": "x"}, {"drive_serial": "S2"})
    assert [replace(guard, **other).count() for other in others] == [0, 0, 0]
    replace(guard, loads=4).reserve()
    assert guard.count() == 0


def test_across_processes(guard: AttemptGuard, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from hwkm.drivers.attempts import AttemptGuard; "
        "AttemptGuard(Path(sys.argv[1]), 'S1', 'maker\\0serial', 3).reserve()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    children = [subprocess.Popen(command) for _ in range(4)]
    assert [child.wait() for child in children] == [0] * 4
    assert guard.count() == 4


def test_what_cannot_be_counted_is_not_tried(
    guard: AttemptGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(PolicyError, match="No space left") as caught:
        guard.reserve()
    assert "counted" in caught.value.hint


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="No such file"):
        AttemptGuard(tmp_path / "none", "S1", "x").reserve()


# With a drive


def wrong_key(number: int) -> VolumeKey:
    return VolumeKey(Cipher.AES_256_GCM, bytes((number,)) * 32)


@pytest.fixture(name="written")
def _written(make: Callable[..., Bench]) -> Bench:
    bench = make("hp-lto-4")
    bench.load()
    bench.write(b"block")
    bench.rewind()
    bench.driver.clear()
    return bench


def test_the_drive_is_never_locked(written: Bench) -> None:
    for number in range(MAX_ATTEMPTS):
        written.load(wrong_key(number), b"wrong")
        assert refusal(written.read) == "7/74/03"
    port = Between(written.path)
    with pytest.raises(TooManyKeysError):
        written.through(port).load()
    assert SPOUT not in port.codes
    written.drive.eject()
    written.drive.insert(BARCODE)
    assert written.load().encrypted
    assert written.read() == b"block"


def test_the_right_key_makes_it_forget(written: Bench) -> None:
    for number in range(3 * MAX_ATTEMPTS):
        key = wrong_key(number) if number % 2 else KEY
        assert written.load(key).encrypted


def test_a_proof_makes_it_forget(written: Bench) -> None:
    for number in range(MAX_ATTEMPTS - 1):
        written.load(wrong_key(number))
    written.filemark()  # what follows is none of its business: the tape is written anew
    written.load()
    written.write(b"block")
    assert written.driver.prove(KEY_ID).encrypted
    written.rewind()
    for number in range(MAX_ATTEMPTS):
        written.load(wrong_key(number))


def test_nothing_on_the_tape_to_fail_on(bench: Bench) -> None:
    for _ in range(2 * MAX_ATTEMPTS):
        bench.load()
    bench.write(b"block")
    for _ in range(2 * MAX_ATTEMPTS):
        bench.load()
    assert bench.position() == 1


def test_a_count_that_breaks_during_a_load(written: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: AttemptGuard) -> None:
        raise PolicyError("the disk is gone")

    monkeypatch.setattr(AttemptGuard, "opened", broken)
    monkeypatch.setattr(AttemptGuard, "harmless", broken)
    with pytest.raises(NotEncryptedError, match="the disk is gone"):
        written.load()
    assert not written.holds_a_key


def test_a_load_that_failed_was_no_try(written: Bench) -> None:
    written.drive.tell_lie("kad-dropped")
    for _ in range(MAX_ATTEMPTS + 1):
        with pytest.raises(NotEncryptedError):
            written.load()
    written.drive.tell_lie("kad-dropped", False)
    assert written.load().encrypted
