"""What mhvtl's drives answer, byte for byte as it was measured, and what hwkm makes of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from hwkm.scsi.attributes import (
    Attribute,
    AttributeFormat,
    AttributeId,
    pack_attributes,
    parse_attributes,
)
from hwkm.scsi.commands import read_attribute, write_attribute
from hwkm.scsi.inventory import identify_cartridge
from hwkm.scsi.pages.base import PageIn
from hwkm.scsi.pages.next_block import BlockEncryption
from tests.drive.station import FIRST, KEY_ID, LABEL, Station, refusal

if TYPE_CHECKING:
    from tests.mhvtl.models import Model

UNKNOWN_COMMAND = "f0000500000000580000000020 0000c00000"
SENSE_BYTES = 96
TOO_MANY = 12
PAGES = {
    0x0000: "0000 000e 0000 0001 0010 0011 0012 0020 0021",
    0x0001: "0001 0002 0010",
    0x0011: "0011 0002 0000",
    0x0012: "0012 000c 01070007 0000000000000000",
}
ABSENT = (0x0022, 0x0030, 0x0031)
VALIDITY_BYTE, VALID_FOR_VOLUME = 24, 0x80
NO_SUCH_ATTRIBUTE = 0x0820


@pytest.mark.needs("knows_keys")
@pytest.mark.parametrize("page", PAGES)
def test_pages_that_are_the_same_for_all(station: Station, page: int) -> None:
    assert station.spin(page) == bytes.fromhex(PAGES[page])


@pytest.mark.needs("knows_keys")
@pytest.mark.parametrize("page", ABSENT)
def test_pages_that_there_are_not(station: Station, page: int) -> None:
    sense = refusal(lambda: station.spin(page))
    assert sense.number == "5/24/00"
    assert sense.field_pointer is not None
    assert (sense.field_pointer.in_cdb, sense.field_pointer.byte) == (True, 2)


@pytest.mark.needs("knows_keys")
def test_capabilities_go_with_the_cartridge(station: Station, model: Model) -> None:
    found = station.spin(PageIn.CAPABILITIES)
    if found[VALIDITY_BYTE] & VALID_FOR_VOLUME:
        assert found == model.capabilities(mounted=True, suits=True)
    else:
        assert found == model.capabilities(mounted=False, suits=True)
        assert not station.driver.ability().can_encrypt


@pytest.mark.needs("unfit_cartridge")
def test_a_cartridge_that_can_t_be_encrypted(station: Station) -> None:
    """mhvtl would take a key for it; hwkm does not give it one."""
    assert "AVFMV" in station.driver.ability().reason


@pytest.mark.needs("knows_no_keys")
def test_a_drive_without_encryption(station: Station) -> None:
    expected = bytes.fromhex(UNKNOWN_COMMAND)
    for protocol, page in ((0x20, 0x0000), (0x20, 0x0020), (0x00, 0x0000)):
        sense = refusal(partial(station.spin, page, protocol))
        assert sense.raw[: len(expected)] == expected
    reason = station.driver.ability().reason
    assert reason == "it has no tape data encryption that a host could use"


@pytest.mark.needs("takes_keys")
def test_the_status_announces_twelve_bytes_too_many(station: Station) -> None:
    for with_key in (False, True):
        if with_key:
            station.set_key()
        data = station.spin(PageIn.STATUS)
        assert 4 + int.from_bytes(data[2:4]) == len(data) + TOO_MANY
        kads = [kad.value for kad in station.status().kads]
        assert kads == ([KEY_ID] if with_key else [])
    assert "page-length-too-long" in station.session.quirks


@pytest.mark.needs("takes_keys", "writable")
def test_the_next_block_of_a_tape(station: Station) -> None:
    """At a filemark and at the end of data it is the same: no block."""
    station.blank()
    for number in (0, 1):
        station.locate(number)
        data = station.spin(PageIn.NEXT_BLOCK_STATUS)
        assert data[:12] == bytes.fromhex("0021000c") + number.to_bytes(8)
        assert station.next_block().encryption == BlockEncryption.NOT_A_BLOCK
    station.rewind()
    station.write(LABEL)
    station.rewind()
    assert station.next_block().encryption == BlockEncryption.CLEAR


@pytest.mark.needs("measured", "takes_keys", "writable")
def test_the_names_of_a_block(station: Station, model: Model) -> None:
    station.set_key()
    station.write_tape()
    station.locate(FIRST)
    (kad,) = station.next_block().kads
    is_akad = model.limits[1] >= len(KEY_ID)
    assert (kad.type, kad.authenticated, kad.value) == (int(is_akad), 3 if is_akad else 1, KEY_ID)


@pytest.mark.needs("chip")
def test_the_chip_of_a_cartridge(station: Station) -> None:
    data = station.session.transport.execute(read_attribute())
    held = {one.id: one for one in parse_attributes(data)}
    assert held[AttributeId.MEDIUM_MANUFACTURER].text == "linuxVTL"
    assert held[AttributeId.BARCODE].value.endswith(b"\0")
    cartridge = identify_cartridge(station.session.transport)
    assert cartridge is not None
    assert cartridge.serial.startswith(f"{cartridge.barcode}_")
    assert cartridge.barcode == cartridge.barcode.strip()
    assert AttributeId.MEDIUM_GUID not in held


@pytest.mark.needs("chip")
def test_an_attribute_that_there_is_not(station: Station) -> None:
    command = read_attribute(NO_SUCH_ATTRIBUTE)
    sense = refusal(lambda: station.session.transport.execute(command))
    assert sense.number == "5/24/00"
    assert sense.field_pointer is not None
    assert (sense.field_pointer.in_cdb, sense.field_pointer.byte) == (True, 8)


@pytest.mark.needs("chip")
def test_attributes_are_taken_whatever_they_are(station: Station) -> None:
    """What can't be written is forgotten, and what can't be deleted stays: so it is read back."""
    execute = station.session.transport.execute
    text = Attribute(
        AttributeId.USER_MEDIUM_TEXT_LABEL, b"scratch".ljust(160), AttributeFormat.TEXT
    )
    execute(write_attribute(pack_attributes([text])))
    gone = Attribute(AttributeId.USER_MEDIUM_TEXT_LABEL, b"", AttributeFormat.TEXT)
    nobodys = Attribute(AttributeId.MEDIUM_GUID, b"x" * 36)
    execute(write_attribute(pack_attributes([gone])))
    execute(write_attribute(pack_attributes([nobodys])))
    held = {one.id: one.text for one in parse_attributes(execute(read_attribute()))}
    assert held[AttributeId.USER_MEDIUM_TEXT_LABEL] == "scratch"
    assert AttributeId.MEDIUM_GUID not in held
    blank = Attribute(AttributeId.USER_MEDIUM_TEXT_LABEL, b" " * 160, AttributeFormat.TEXT)
    execute(write_attribute(pack_attributes([blank])))


def test_sense_is_long_and_of_fixed_format(station: Station) -> None:
    sense = refusal(lambda: station.spin(0x00FF))
    assert len(sense.raw) == SENSE_BYTES
    assert sense.raw[0] == 0xF0
    assert not sense.deferred
