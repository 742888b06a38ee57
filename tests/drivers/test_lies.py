"""Every lie that a drive can tell, against everything that is done with a drive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hwkm.checks import Status
from hwkm.drivers.choose import choose
from hwkm.drivers.report import NotEncryptedError
from hwkm.errors import DeviceError
from hwkm.policy import Delivery
from hwkm.scsi.emulator import LIES
from hwkm.scsi.transport import BusyError
from tests.drivers.bench import KEY_ID, OTHER_HOSTS_KEY, VOLUME, Bench

if TYPE_CHECKING:
    from hwkm.checks import Check

NAMED = {
    "mode-ignored": "check 'encryption mode': DISABLE instead of ENCRYPT",
    "kad-dropped": "check 'A-KAD': missing instead of 'HWKM00000001'",
    "counter-frozen": "check 'key instance counter': it stays at 0",
    "other-host": "check 'A-KAD': missing",
    "no-medium": "check 'cartridge': it is gone",
}
"""What a load says to lies that make it fail after the key was sent."""

HARMLESS = {"lock-ignored", "key-lost-at-reset", "worm", "busy", "page-length"}
"""Lies that don't keep a key from being in force: they are noticed, or have not happened yet."""

BEFOREHAND = {"lto-3-medium": "the cartridge can't be encrypted", "library-managed": "the library"}
"""Lies that are found out before any key is sent."""


def failed(checks: tuple[Check, ...]) -> list[str]:
    return [check.name for check in checks if check.status is Status.FAIL]


def test_the_matrix_is_complete() -> None:
    assert {*NAMED, *HARMLESS, *BEFOREHAND} == {*LIES}


@pytest.mark.parametrize("lie", NAMED)
def test_load(bench: Bench, lie: str) -> None:
    bench.drive.tell_lie(lie)
    with pytest.raises(NotEncryptedError, match=NAMED[lie]) as caught:
        bench.load()
    assert caught.value.cleared
    assert not caught.value.report.encrypted
    assert not bench.holds_a_key


@pytest.mark.parametrize("lie", sorted(HARMLESS))
def test_load_all_the_same(bench: Bench, lie: str) -> None:
    bench.drive.tell_lie(lie)
    report = bench.load()
    assert report.encrypted
    bench.write(b"block")
    assert bench.objects != (b"block",)
    seen = {*report.quirks} | {c.name for c in report.checks if c.status is Status.WARN}
    expected = {"worm": "WORM", "busy": "busy", "page-length": "page-length-too-long"}
    assert lie not in expected or expected[lie] in seen


@pytest.mark.parametrize("lie", BEFOREHAND)
def test_no_load_at_all(bench: Bench, lie: str) -> None:
    bench.drive.tell_lie(lie)
    with pytest.raises(DeviceError, match=BEFOREHAND[lie]):
        bench.load()
    assert not bench.holds_a_key
    choice = choose(None, bench.driver.ability())
    assert choice.delivery is Delivery.SOFTWARE
    assert BEFOREHAND[lie] in choice.reason


@pytest.mark.parametrize("lie", sorted(LIES))
def test_auto(bench: Bench, lie: str) -> None:
    """The tape asks for its key whatever the drive lies about, except that it has no medium."""
    bench.load()
    bench.write(b"block")
    bench.rewind()
    bench.driver.clear()
    bench.drive.tell_lie(lie)
    wanted = bench.driver.next_key()
    assert wanted.names == (KEY_ID, VOLUME.encode())


@pytest.mark.parametrize("lie", ["mode-ignored", "kad-dropped", "other-host"])
def test_prove_without_a_load(bench: Bench, lie: str) -> None:
    """A key that was set without looking: proving finds out."""
    bench.drive.tell_lie(lie)
    bench.spout("00 10 00 30 40 00 02 03 01 00 00 00 00 00 00 00 00 00 00 20" + "5A" * 32)
    bench.write(b"block")
    report = bench.driver.prove(KEY_ID)
    assert not report.encrypted
    assert "key id" in failed(report.checks)
    assert ("block" in failed(report.checks)) is (lie == "mode-ignored")


def test_prove_after_a_reset_that_nobody_reported(bench: Bench) -> None:
    bench.drive.tell_lie("key-lost-at-reset")
    report = bench.load()
    bench.write(b"block")
    bench.drive.reset()
    assert failed(bench.driver.holds(KEY_ID).checks) == ["key in force"]
    proof = bench.driver.prove(KEY_ID, report.counter)
    assert "key in force" in failed(proof.checks)
    assert "block" in failed(proof.checks)


def test_prove_after_a_lock_that_did_not_hold(bench: Bench) -> None:
    bench.drive.tell_lie("lock-ignored")
    report = bench.load()
    bench.write(b"ours")
    bench.spout(OTHER_HOSTS_KEY, "host-2")
    bench.drive.forget_attentions()
    bench.write(b"theirs")
    assert bench.driver.guard_changed(report.counter)
    proof = bench.driver.prove(KEY_ID, report.counter)
    assert {"key id", "key instance counter"} <= {*failed(proof.checks)}


@pytest.mark.parametrize("lie", ["no-medium", "library-managed", "lto-3-medium", "page-length"])
def test_prove_while_it_lies(bench: Bench, lie: str) -> None:
    counter = bench.load().counter
    bench.write(b"block")
    bench.drive.tell_lie(lie)
    if lie == "library-managed":
        bench.driver.ability()
        assert failed(bench.driver.prove(KEY_ID, counter).checks) == ["controlled by"]
    else:
        assert bench.driver.prove(KEY_ID, counter).encrypted


@pytest.mark.parametrize("lie", sorted(LIES))
def test_clear(bench: Bench, lie: str) -> None:
    bench.load()
    bench.drive.tell_lie(lie)
    report = bench.driver.clear()
    assert report.held == (KEY_ID, VOLUME.encode())
    if lie == "library-managed":
        # Reading the capabilities hands the drive to the library, which holds on to the key.
        assert not report.cleared
        assert "5/74/21" in report.checks[0].detail
        return
    assert report.cleared
    assert not bench.holds_a_key
    frozen = [check.name for check in report.checks if check.status is Status.WARN]
    assert frozen == (["key instance counter"] if lie == "counter-frozen" else [])


def test_busy_for_too_long(bench: Bench) -> None:
    bench.drive.tell_lie("busy", times=1000)
    with pytest.raises(BusyError):
        bench.load()
