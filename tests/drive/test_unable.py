"""A drive that can't encrypt says so, takes no key, and stays as it was."""

from __future__ import annotations

import pytest

from hwkm.errors import DeviceError
from hwkm.scsi.pages.base import PageIn
from tests.drive.station import KEY, KEY_ID, LABEL, VOLUME, Station

pytestmark = pytest.mark.needs("unable")


def state(station: Station) -> object:
    return station.status() if PageIn.STATUS in station.session.pages() else None


def test_the_reason(station: Station) -> None:
    ability = station.driver.ability()
    assert not ability.can_encrypt
    assert len(ability.reason) > 10
    assert station.driver.ability() == ability


def test_a_load_is_refused_before_anything_is_sent(station: Station) -> None:
    before = state(station)
    with pytest.raises(DeviceError) as caught:
        station.driver.load(KEY, KEY_ID, VOLUME)
    reason = station.driver.ability().reason
    assert reason in str(caught.value) or "no cartridge" in str(caught.value)
    assert caught.value.hint
    assert state(station) == before


def test_there_is_nothing_to_be_cleared(station: Station) -> None:
    assert not station.driver.holds_any()
    before = state(station)
    report = station.driver.clear()
    assert report.cleared
    assert report.held == ()
    assert (state(station) is None) == (before is None)


@pytest.mark.needs("writable")
def test_it_can_be_written_in_clear(station: Station) -> None:
    station.rewind()
    station.write(LABEL)
    station.rewind()
    assert station.read(len(LABEL)) == LABEL
