"""The envelope in the cartridge's chip: what is said of it is so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from hwkm.checks import Status
from hwkm.drivers import chip
from tests.drive.needs import MADE

if TYPE_CHECKING:
    from tests.drive.station import Station

pytestmark = pytest.mark.needs("chip")


@pytest.mark.parametrize("length", [1, 100, chip.MAX_BYTES])
def test_kept_and_read_back(station: Station, length: int) -> None:
    envelope = os.urandom(length)
    check = station.driver.keep_on_chip(envelope)
    if station.sort in MADE:
        assert check.status is Status.OK, check.detail
    found = station.driver.envelope_on_chip()
    assert (found == envelope) == (check.status is Status.OK)


def test_it_stays_in_its_place(station: Station) -> None:
    """The tape and the key in the drive have nothing to do with it."""
    before = station.position()
    station.driver.keep_on_chip(b"an envelope")
    assert station.position() == before
