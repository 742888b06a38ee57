"""A key goes in and is read back, is proved on the tape, and goes out again."""

from __future__ import annotations

import pytest

from hwkm.drivers.report import WrappingKeyChangedError
from hwkm.errors import DeviceError
from hwkm.scsi.pages.kad import KadType
from hwkm.scsi.pages.status import DecryptionMode, EncryptionMode, Scope
from tests.drive.station import (
    BLOCKS,
    FIRST,
    KEY,
    KEY_ID,
    OTHER_ID,
    OTHER_KEY,
    VOLUME,
    Station,
)

pytestmark = pytest.mark.needs("encrypts")

READ_BACK = {
    "key sent",
    "encryption mode",
    "decryption mode",
    "algorithm",
    "key instance counter",
    "scope",
    "controlled by",
    "cartridge",
    "next block",
    "status, read again",
}


def test_every_check_is_made(station: Station) -> None:
    report = station.load()
    names = {check.name for check in report.checks}
    assert report.encrypted
    assert names >= READ_BACK
    assert names & {"A-KAD", "U-KAD"}
    assert report.drive.serial == station.serial


def test_what_the_drive_then_says(station: Station) -> None:
    report = station.load()
    status = station.status()
    assert status.encryption_mode == EncryptionMode.ENCRYPT
    assert status.decryption_mode == DecryptionMode.MIXED
    assert status.key_instance_counter == report.counter
    assert KEY_ID in station.driver.held_names()
    assert station.driver.holds(KEY_ID).encrypted
    assert not station.driver.holds(OTHER_ID).encrypted
    assert station.driver.holds_any()
    assert not station.driver.guard_changed(report.counter)


@pytest.mark.needs("a_kad")
def test_the_keys_name_is_authenticated(station: Station) -> None:
    station.load()
    assert station.status().kad(KadType.A_KAD) is not None
    assert station.driver.held_names()[0] == KEY_ID


@pytest.mark.needs("both_kads")
def test_the_volumes_name_goes_along(station: Station) -> None:
    station.load()
    found = station.status().kad(KadType.U_KAD)
    assert found is not None
    assert found.rstrip(b" \0") == VOLUME.encode()


@pytest.mark.needs("scope_shown")
def test_the_key_is_for_all(station: Station) -> None:
    report = station.load()
    assert station.status().key_scope == Scope.ALL_I_T_NEXUS
    assert "scope-not-reported" not in report.quirks


@pytest.mark.needs("writable")
def test_proof(station: Station) -> None:
    station.blank()
    counter = station.load().counter
    station.write_tape()
    for here in (0, FIRST + 1, FIRST + len(BLOCKS)):
        station.locate(here)
        report = station.driver.prove(KEY_ID, counter)
        assert report.encrypted, report.checks
        assert report.block is not None
        assert station.position() == here


@pytest.mark.needs("writable")
def test_no_proof_of_another_key(station: Station) -> None:
    station.blank()
    station.load(OTHER_KEY, OTHER_ID)
    station.write_tape()
    station.load()
    report = station.driver.prove(KEY_ID)
    assert not report.encrypted
    assert station.position() == 0
    # The key that opens it makes the drive forget the one that did not.
    station.load(OTHER_KEY, OTHER_ID)
    assert station.read_at(FIRST) == BLOCKS[0]


@pytest.mark.needs("writable")
def test_no_proof_of_a_blank_tape(station: Station) -> None:
    station.blank()
    station.load()
    report = station.driver.prove(KEY_ID)
    assert not report.encrypted
    assert report.block is None


@pytest.mark.needs("writable")
def test_the_tape_says_which_key_it_wants(station: Station) -> None:
    station.blank()
    assert not station.driver.next_key().is_encrypted
    station.load()
    station.write_tape()
    station.driver.clear()
    wanted = station.driver.next_key()
    assert wanted.is_encrypted
    assert wanted.names[0].rstrip(b" \0") == KEY_ID
    assert station.position() == 0


def test_out_again(station: Station) -> None:
    counter = station.load().counter
    report = station.driver.clear()
    assert report.cleared
    assert KEY_ID in report.held
    assert report.counter == counter + 1
    assert station.status().is_clear
    assert station.driver.held_names() == ()
    assert station.driver.clear().held == ()


@pytest.mark.needs("barcode")
def test_another_cartridge_than_expected(station: Station) -> None:
    counter = station.counter()
    with pytest.raises(DeviceError, match="instead of"):
        station.driver.load(KEY, KEY_ID, VOLUME, barcode="NOT001L1")
    assert station.counter() == counter
    assert station.status().is_clear


@pytest.mark.needs("wrapped")
def test_a_key_on_its_way_is_wrapped(station: Station) -> None:
    report = station.load()
    assert report.key_format == "wrapped"
    assert report.wrapping_key is not None
    again = station.driver.load(KEY, KEY_ID, VOLUME, pinned=report.wrapping_key)
    assert again.wrapping_key == report.wrapping_key


@pytest.mark.needs("wrapped")
def test_another_wrapping_key_than_on_record(station: Station) -> None:
    counter = station.counter()
    with pytest.raises(WrappingKeyChangedError):
        station.driver.load(KEY, KEY_ID, VOLUME, pinned=bytes(32))
    assert station.counter() == counter
    assert station.status().is_clear
