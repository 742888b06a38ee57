"""Parameters in the drive: the counter, refusals that change nothing, LOCK, scopes and CKOD."""

from __future__ import annotations

from contextlib import closing
from itertools import pairwise

import pytest

from hwkm.drivers.tape import TapeDriver
from hwkm.scsi.pages.kad import Kad, KadType
from hwkm.scsi.pages.status import Scope
from tests.drive.station import (
    BLOCKS,
    FIRST,
    KEY,
    KEY_ID,
    OTHER_ID,
    OTHER_KEY,
    Station,
    refusal,
)

pytestmark = pytest.mark.needs("takes_keys")

ALGORITHM_BYTE, FORMAT_BYTE = 8, 9
NO_SUCH_INDEX, NO_SUCH_FORMAT = 0xEE, 0x7F
REFUSED = "5/26/00"


def test_the_counter_moves_by_one(station: Station) -> None:
    seen = [station.counter()]
    for key, name in ((KEY, KEY_ID), (KEY, KEY_ID), (OTHER_KEY, OTHER_ID)):
        station.set_key(key, name)
        seen.append(station.counter())
    station.driver.clear()
    seen.append(station.counter())
    assert [after - before for before, after in pairwise(seen)] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("byte", "value"), [(ALGORITHM_BYTE, NO_SUCH_INDEX), (FORMAT_BYTE, NO_SUCH_FORMAT)]
)
def test_a_refused_page_changes_nothing(station: Station, byte: int, value: int) -> None:
    station.set_key()
    before = station.status()
    page = station.page()
    page[byte] = value
    sense = refusal(lambda: station.spout(page))
    assert sense.number == REFUSED
    assert sense.field_pointer is None or (
        sense.field_pointer.byte == byte and not sense.field_pointer.in_cdb
    )
    assert station.status() == before


@pytest.mark.needs("refuses_cleanly")
def test_a_name_that_is_too_long(station: Station) -> None:
    station.set_key()
    before = station.status()
    page = station.page(Kad(KadType.U_KAD, b"x" * (station.algorithm().max_ukad + 1)))
    refusal(lambda: station.spout(page))
    assert station.status() == before


@pytest.mark.needs("encrypts", "writable", "lock")
def test_lock_lets_the_host_write(station: Station) -> None:
    station.blank()
    station.load()
    station.write_tape()
    assert station.read_at(FIRST) == BLOCKS[0]


@pytest.mark.needs("encrypts", "writable", "lock", "second_host")
def test_lock_stops_writing_when_another_host_sets_a_key(station: Station) -> None:
    counter = station.load().counter
    assert station.other_host is not None
    with closing(station.other_host()) as transport:
        TapeDriver(transport, station.runtime).load(OTHER_KEY, OTHER_ID, "")
    assert refusal(lambda: station.write(BLOCKS[0])).number == "7/2A/13"
    assert station.driver.guard_changed(counter)
    assert not station.driver.holds(KEY_ID).encrypted


@pytest.mark.needs("encrypts", "second_host")
def test_another_hosts_key_is_seen(station: Station) -> None:
    counter = station.load().counter
    assert station.other_host is not None
    with closing(station.other_host()) as transport:
        other = TapeDriver(transport, station.runtime)
        assert KEY_ID in other.held_names()
        other.load(OTHER_KEY, OTHER_ID, "")
    assert station.driver.guard_changed(counter)
    assert OTHER_ID in station.driver.held_names()


@pytest.mark.needs("local_scope")
def test_a_key_for_this_host_alone(station: Station) -> None:
    page = station.page()
    page[4] = Scope.LOCAL << 5
    station.spout(page)
    status = station.status()
    assert (status.nexus_scope, status.key_scope) == (Scope.LOCAL, Scope.LOCAL)
    assert not status.is_clear


@pytest.mark.needs("encrypts", "ckod", "reload")
def test_the_key_leaves_with_the_cartridge(station: Station) -> None:
    report = station.load()
    if any(check.name == "CKOD" for check in report.checks):
        pytest.fail("the drive offers CKOD, and the key was loaded without it")
    assert station.reload is not None
    station.reload(station)
    assert station.status().is_clear
    assert station.driver.held_names() == ()
