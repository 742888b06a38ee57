"""Drives with peculiarities, mhvtl's among them: they are named, and the key is in all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hwkm.checks import Status
from hwkm.drivers.report import NotEncryptedError
from tests.drivers.bench import (
    BARCODE,
    KEY_ID,
    OTHER_ID,
    OTHER_KEY,
    VOLUME,
    Bench,
    Between,
    LikeMhvtl,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwkm.drivers.report import LoadReport
    from hwkm.scsi.completion import Completion
    from hwkm.scsi.transport import Command


def warnings(report: LoadReport) -> set[str]:
    return {one.name for one in report.checks if one.status is Status.WARN}


@pytest.mark.parametrize(
    ("quirks", "listed"),
    [
        (("no-ckod",), "no-ckod"),
        (("one-kad",), "one-kad-only"),
        (("padded-ukad",), "padded-ukad"),
    ],
)
def test_one_quirk(make: Callable[..., Bench], quirks: tuple[str, ...], listed: str) -> None:
    bench = make(quirks=quirks)
    report = bench.load()
    assert report.encrypted
    assert listed in report.quirks
    bench.write(b"block")
    assert bench.drive.blocks(BARCODE)[0].a_kad == KEY_ID
    assert bench.driver.holds(KEY_ID).encrypted
    assert bench.driver.prove(KEY_ID, report.counter).encrypted


def test_quirks_together(make: Callable[..., Bench]) -> None:
    bench = make(quirks=("no-ckod", "one-kad", "late-capabilities"))
    report = bench.load()
    assert report.encrypted
    assert {"no-ckod", "one-kad-only"} <= {*report.quirks}
    assert warnings(report) == {"CKOD"}
    assert bench.driver.held_names() == (KEY_ID,)


def test_a_padded_name_is_still_the_name(make: Callable[..., Bench]) -> None:
    bench = make(quirks=("padded-ukad",))
    bench.load(key_id=b"a name from stenc")
    bench.write(b"block")
    assert bench.drive.blocks(BARCODE)[0].u_kad == b"a name from stenc".ljust(32)
    assert bench.driver.prove(b"a name from stenc").encrypted


def test_late_capabilities(make: Callable[..., Bench]) -> None:
    bench = make(cartridge="", quirks=("late-capabilities",))
    ability = bench.driver.ability()
    assert not ability.can_encrypt
    assert ability.reason == "it tells its abilities with a cartridge only"
    assert bench.driver.session.quirks == ("late-capabilities",)
    assert bench.driver.clear().cleared


def test_an_index_of_zero(make: Callable[..., Bench]) -> None:
    assert "algorithm-index-0" in make("quantum-lto-4").load().quirks


# mhvtl


@pytest.fixture(name="mhvtl")
def _mhvtl(bench: Bench) -> Bench:
    return bench.through(LikeMhvtl(bench.path))


def test_a_drive_like_mhvtl(mhvtl: Bench) -> None:
    report = mhvtl.load()
    assert report.encrypted
    assert {"one-kad-only", "page-length-too-long", "scope-not-reported"} <= {*report.quirks}
    assert warnings(report) == {"scope"}
    assert report.counter == 2
    assert mhvtl.driver.held_names() == (KEY_ID,)
    mhvtl.write(b"block")
    assert mhvtl.drive.blocks(BARCODE)[0].a_kad == KEY_ID
    assert mhvtl.driver.prove(KEY_ID, report.counter).encrypted
    assert mhvtl.driver.clear().cleared


def test_the_second_load_knows(mhvtl: Bench) -> None:
    mhvtl.load()
    assert mhvtl.load(OTHER_KEY, OTHER_ID).counter == 3


def test_a_name_in_the_first_kad(mhvtl: Bench) -> None:
    report = mhvtl.load(key_id=b"a name from stenc")
    assert report.encrypted
    assert "one-kad-only" not in report.quirks
    assert mhvtl.driver.held_names() == (b"a name from stenc",)


class Public(LikeMhvtl):
    """Shows parameters that are everybody's but this host's."""

    def complete(self, command: Command) -> Completion:
        end = super().complete(command)
        if command.cdb[:4] == b"\xa2\x20\x00\x20":
            return type(end)(data=end.data[:4] + b"\0" + end.data[5:])
        return end


class Wandering(Between):
    """Shows the scope LOCAL once a key was set for all."""

    def complete(self, command: Command) -> Completion:
        end = super().complete(command)
        if command.cdb[:4] == b"\xa2\x20\x00\x20" and end.data[4]:
            return type(end)(data=end.data[:4] + b"\x21" + end.data[5:])
        return end


@pytest.mark.parametrize("port", [Public, Wandering])
def test_scopes_that_are_no_way_of_the_drive(bench: Bench, port: type[Between]) -> None:
    with pytest.raises(NotEncryptedError, match="check 'scope'"):
        bench.through(port(bench.path)).load()
    assert not bench.holds_a_key


def test_the_volumes_name_is_not_the_keys(mhvtl: Bench) -> None:
    mhvtl.load()
    assert not mhvtl.driver.holds(VOLUME.encode()).encrypted
