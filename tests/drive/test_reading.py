"""What comes off the tape with the right key, a wrong one and none; for any algorithm."""

from __future__ import annotations

import pytest

from hwkm.scsi.pages.next_block import BlockEncryption
from hwkm.scsi.pages.status import DecryptionMode
from tests.drive.station import (
    BLOCKS,
    CANT_DECRYPT,
    FIRST,
    INCORRECT_KEY,
    KEY,
    KEY_ID,
    LABEL,
    OTHER_ID,
    OTHER_KEY,
    UNENCRYPTED,
    Station,
    refusal,
)

pytestmark = pytest.mark.needs("takes_keys", "writable")


def why_not(station: Station, number: int = FIRST) -> str:
    """Return with what sense the block is refused; the tape must stay before it."""
    station.locate(number)
    number_then = refusal(station.read).number
    assert station.position() == number
    return number_then


def names_at(station: Station, number: int = FIRST) -> set[bytes]:
    station.locate(number)
    found = {kad.value.rstrip(b" \0") for kad in station.next_block().kads}
    return found - {b""}


def seen_at(station: Station, number: int = FIRST) -> BlockEncryption | int:
    station.locate(number)
    return station.next_block().encryption


def test_the_right_key(station: Station) -> None:
    station.set_key()
    station.write_tape()
    assert seen_at(station) == BlockEncryption.READABLE
    assert KEY_ID in names_at(station)
    station.locate(FIRST)
    assert (station.read(), station.read()) == BLOCKS


def test_no_key(station: Station) -> None:
    station.set_key()
    station.write_tape()
    station.driver.clear()
    assert seen_at(station) == BlockEncryption.UNREADABLE
    assert KEY_ID in names_at(station)
    assert why_not(station) == CANT_DECRYPT


@pytest.mark.parametrize("mode", [DecryptionMode.DECRYPT, DecryptionMode.MIXED])
def test_a_wrong_key(station: Station, mode: DecryptionMode) -> None:
    station.set_key()
    station.write_tape()
    station.set_key(OTHER_KEY, KEY_ID, mode)
    assert why_not(station) == INCORRECT_KEY
    # The right one makes the drive forget the wrong one.
    station.set_key(KEY, KEY_ID, mode)
    assert station.read_at(FIRST) == BLOCKS[0]


def test_a_clear_tape(station: Station) -> None:
    station.write_tape()
    assert seen_at(station) == BlockEncryption.CLEAR
    station.set_key(decryption=DecryptionMode.MIXED)
    assert station.read_at(FIRST) == BLOCKS[0]
    station.set_key(decryption=DecryptionMode.DECRYPT)
    assert seen_at(station) == BlockEncryption.CLEAR
    assert why_not(station) == UNENCRYPTED


@pytest.mark.needs("mixed_tape")
def test_a_clear_label_before_encrypted_blocks(station: Station) -> None:
    station.rewind()
    station.write(LABEL)
    station.set_key()
    station.write(*BLOCKS)
    assert station.read_at(0, len(LABEL)) == LABEL
    assert station.read_at(FIRST) == BLOCKS[0]
    station.driver.clear()
    assert station.read_at(0, len(LABEL)) == LABEL
    assert why_not(station) == CANT_DECRYPT


def test_two_keys_on_one_tape(station: Station) -> None:
    station.set_key()
    station.rewind()
    station.write(LABEL, BLOCKS[0])
    station.set_key(OTHER_KEY, OTHER_ID)
    station.write(BLOCKS[1])
    assert names_at(station, FIRST) == {KEY_ID}
    assert names_at(station, FIRST + 1) == {OTHER_ID}
    assert station.read_at(FIRST + 1) == BLOCKS[1]
    assert why_not(station, FIRST) == INCORRECT_KEY
    station.set_key()
    assert station.read_at(FIRST) == BLOCKS[0]
    assert why_not(station, FIRST + 1) == INCORRECT_KEY
    assert station.read_at(FIRST) == BLOCKS[0]
