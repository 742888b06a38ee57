"""What a drive says of itself: pages, identity, chip, logs, and how it refuses."""

from __future__ import annotations

import pytest

from hwkm.scsi.attributes import AttributeId, parse_attribute_list, parse_attributes
from hwkm.scsi.commands import AttributeAction, log_sense, read_attribute
from hwkm.scsi.inventory import identify_cartridge, same_cartridge
from hwkm.scsi.logs import (
    DeviceStatus,
    LogPage,
    VolumeStatistics,
    parse_tape_alert,
    parse_tape_alert_response,
)
from hwkm.scsi.optional import if_known
from hwkm.scsi.pages.base import PageIn
from hwkm.scsi.pages.capabilities import ConfigurationPrevented
from hwkm.scsi.pages.directory import KeyFormat
from hwkm.scsi.pages.set_encryption import PAGE
from tests.drive.station import Station, refusal, usable

UNKNOWN_PAGE = 0x00FF
PARSERS = {
    LogPage.TAPE_ALERT: parse_tape_alert,
    LogPage.TAPE_ALERT_RESPONSE: parse_tape_alert_response,
    LogPage.VOLUME_STATISTICS: VolumeStatistics.parse,
    LogPage.DEVICE_STATUS: DeviceStatus.parse,
}


def test_it_is_the_drive_that_was_meant(station: Station) -> None:
    drive, _ = station.driver.identify()
    assert drive.serial == station.serial
    assert drive.vendor
    assert drive.product


@pytest.mark.needs("cartridge")
def test_the_cartridge_is_known_again(station: Station) -> None:
    first = identify_cartridge(station.session.transport)
    second = identify_cartridge(station.session.transport)
    assert first is not None
    assert second is not None
    assert first.serial or first.barcode
    assert first.sources
    assert same_cartridge(first, second)


@pytest.mark.needs("chip")
def test_the_chip(station: Station) -> None:
    values = parse_attributes(station.session.transport.execute(read_attribute()))
    listed = station.session.transport.execute(read_attribute(action=AttributeAction.LIST))
    assert {one.id for one in values} <= set(parse_attribute_list(listed))
    assert AttributeId.MEDIUM_SERIAL_NUMBER in {one.id for one in values}
    for one in values:
        assert not set(one.text) & set("\0")


@pytest.mark.parametrize("page", PARSERS)
def test_log_pages(station: Station, page: LogPage) -> None:
    """A drive gives a page that can be read, or says that it knows none."""
    data = if_known(station.session.transport, log_sense(page))
    if data is not None:
        PARSERS[page](data)


def test_the_pages_that_it_lists_can_be_read(station: Station) -> None:
    session = station.session
    for number in session.pages():
        if number == PageIn.NEXT_BLOCK_STATUS:
            session.next_block()  # some drives have none on a blank tape
            continue
        data = station.spin(number)
        assert int.from_bytes(data[:2]) == number
    assert bool(session.pages()) == (PAGE in session.pages(PageIn.OUT_SUPPORT))


def test_the_ability_is_that_of_the_pages(station: Station) -> None:
    ability, algorithm = station.driver.ability(), usable(station.session)
    assert ability.reason
    if ability.can_encrypt:
        assert ability.algorithm == algorithm
        assert ability.algorithm is not None
        assert ability.algorithm.is_aes_256_gcm
        assert KeyFormat.PLAIN in ability.formats
        assert PageIn.STATUS in station.session.pages()
    elif algorithm is not None:
        assert not algorithm.is_aes_256_gcm
        assert algorithm.name in ability.reason


@pytest.mark.needs("encrypts")
def test_who_encrypts_is_not_kept_from_it(station: Station) -> None:
    found = station.session.capabilities()
    assert found is not None
    assert found.configuration_prevented != ConfigurationPrevented.PREVENTED


@pytest.mark.needs("takes_keys")
def test_the_status_without_a_key(station: Station) -> None:
    status = station.status()
    assert status.is_clear
    assert not any(kad.value.strip(b"\0") for kad in status.kads)
    assert status.kad_format == 0


def test_a_page_that_nobody_knows(station: Station) -> None:
    sense = refusal(lambda: station.spin(UNKNOWN_PAGE))
    assert sense.is_unknown_request
    assert not sense.deferred
    assert sense.field_pointer is None or sense.field_pointer.in_cdb
