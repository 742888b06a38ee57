"""What mhvtl does with keys, where it differs from a drive; and that hwkm knows how to take it."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from hwkm.checks import Status
from hwkm.drivers.tape import TapeDriver
from hwkm.scsi.pages.kad import Kad, KadType
from hwkm.scsi.pages.next_block import BlockEncryption
from hwkm.scsi.pages.status import DecryptionMode, EncryptionMode
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
    VOLUME,
    Station,
    refusal,
)

if TYPE_CHECKING:
    from tests.mhvtl.models import Model

pytestmark = pytest.mark.needs("takes_keys")

SCOPE_BYTE, ENCRYPTION_BYTE, DECRYPTION_BYTE, FORMAT_BYTE = 4, 6, 7, 9
LOCK = 0x01
SHOWN_SCOPES = 0x21
WRITE_PROTECTED = "7/27/00"


# What it takes


@pytest.mark.parametrize("key_format", [0x01, 0x02, 0x03, 0x80])
def test_keys_in_plain_only(station: Station, key_format: int) -> None:
    station.set_key()
    before = station.status()
    page = station.page()
    page[FORMAT_BYTE] = key_format
    sense = refusal(lambda: station.spout(page))
    assert sense.number == "5/26/00"
    assert sense.field_pointer is not None
    assert (sense.field_pointer.in_cdb, sense.field_pointer.byte) == (False, FORMAT_BYTE)
    assert station.status() == before


@pytest.mark.needs("a_kad", "u_kad")
def test_the_first_kad_only(station: Station) -> None:
    station.spout(station.page(Kad(KadType.U_KAD, b"first"), Kad(KadType.A_KAD, KEY_ID)))
    assert [(kad.type, kad.value) for kad in station.status().kads] == [(KadType.U_KAD, b"first")]


@pytest.mark.needs("encrypts", "a_kad", "u_kad")
def test_a_load_keeps_the_keys_name(station: Station) -> None:
    """The first try loses the key's name, which is noticed; the second sends nothing else."""
    counter = station.counter()
    report = station.load()
    assert report.encrypted, report.checks
    assert "one-kad-only" in report.quirks
    assert report.counter == counter + 2
    assert [(kad.type, kad.value) for kad in station.status().kads] == [(KadType.A_KAD, KEY_ID)]
    counter = report.counter
    assert station.driver.load(OTHER_KEY, OTHER_ID, VOLUME).counter == counter + 1


@pytest.mark.needs("encrypts")
def test_what_a_load_warns_of(station: Station) -> None:
    station.rewind()
    report = station.load()
    assert {"page-length-too-long", "scope-not-reported"} <= set(report.quirks)
    assert "unit-attention" not in report.quirks
    warned = {check.name for check in report.checks if check.status is Status.WARN}
    assert "scope" in warned
    assert warned <= {"scope", "next block"}
    assert report.key_format == "plain"


def test_one_scope_whatever_was_set(station: Station) -> None:
    for scope in (1, 2):
        page = station.page()
        page[SCOPE_BYTE] = scope << 5
        station.spout(page)
        assert station.spin(0x0020)[SCOPE_BYTE] == SHOWN_SCOPES


# What it refuses


@pytest.mark.needs("measured")
def test_a_refused_name_changes_the_state(station: Station, model: Model) -> None:
    """The key is gone, but decryption is on: what a drive holds after a refusal must be read."""
    for kind, most in zip((KadType.U_KAD, KadType.A_KAD), model.limits, strict=True):
        station.set_key()
        counter = station.counter()
        sense = refusal(partial(station.spout, station.page(Kad(kind, b"x" * (most + 1)))))
        assert sense.number == "5/24/00"
        assert sense.field_pointer is None
        status = station.status()
        assert status.encryption_mode == EncryptionMode.DISABLE
        assert status.decryption_mode == DecryptionMode.DECRYPT
        assert status.kads == ()
        assert status.key_instance_counter == counter
        assert not status.is_clear
        assert station.driver.clear().cleared


@pytest.mark.needs("no_name_alone")
def test_a_name_without_encryption(station: Station) -> None:
    page = station.page()
    page[ENCRYPTION_BYTE] = EncryptionMode.DISABLE
    assert refusal(lambda: station.spout(page)).number == "5/24/00"
    assert station.driver.clear().cleared


def test_another_protocol(station: Station) -> None:
    sense = refusal(lambda: station.spout(station.page(), protocol=0x21))
    assert sense.number == "5/24/00"
    assert sense.field_pointer is not None
    assert (sense.field_pointer.in_cdb, sense.field_pointer.byte) == (True, 1)


# What it keeps


@pytest.mark.needs("reload")
def test_keys_stay_when_the_cartridge_leaves(station: Station) -> None:
    """CKOD or not: so hwkm takes keys out itself, before an unload."""
    page = station.page()
    page[5] |= 0x04
    station.spout(page)
    before = station.status()
    assert station.reload is not None
    station.reload(station)
    assert station.status() == before
    assert station.driver.holds_any()
    assert station.driver.clear().cleared


@pytest.mark.needs("reload")
def test_nobody_is_told_of_another_cartridge(station: Station) -> None:
    with closing(station.reopen()) as transport:
        other = TapeDriver(transport, station.runtime)
        other.session.status()
        assert station.reload is not None
        station.reload(station)
        other.session.status()
        assert "unit-attention" not in other.session.quirks
    assert "unit-attention" not in station.session.quirks


def test_nobody_is_told_of_another_key(station: Station) -> None:
    with closing(station.reopen()) as transport:
        other = TapeDriver(transport, station.runtime)
        before = other.session.status().key_instance_counter
        station.set_key()
        assert other.session.status().key_instance_counter == before + 1
        assert other.session.quirks == ("page-length-too-long",)


@pytest.mark.needs("writable")
def test_lock_locks_nothing(station: Station) -> None:
    page = station.page()
    page[SCOPE_BYTE] |= LOCK
    station.spout(page)
    with closing(station.reopen()) as transport:
        TapeDriver(transport, station.runtime).session.set_key(station.request(OTHER_KEY))
    station.write_tape()
    assert station.read_at(FIRST) == BLOCKS[0]


# What it gives out


@pytest.mark.needs("writable")
def test_no_raw_reads(station: Station) -> None:
    station.set_key()
    station.write_tape()
    page = station.page()
    page[DECRYPTION_BYTE] = DecryptionMode.RAW
    station.spout(page)
    station.locate(FIRST)
    assert station.next_block().encryption == BlockEncryption.READABLE
    assert refusal(station.read).number == CANT_DECRYPT


@pytest.mark.needs("measured", "writable")
def test_the_same_key_by_another_name(station: Station, model: Model) -> None:
    """A T10000B does not open it, though it says that it can."""
    station.set_key()
    station.write_tape()
    station.set_key(KEY, OTHER_ID)
    station.locate(FIRST)
    assert station.next_block().encryption == BlockEncryption.READABLE
    if model.kad_must_match:
        assert refusal(station.read).number == INCORRECT_KEY
    else:
        assert station.read() == BLOCKS[0]
    station.set_key()
    assert station.read_at(FIRST) == BLOCKS[0]


@pytest.mark.needs("plain_first_block", "writable")
def test_the_first_block_of_a_3592(station: Station) -> None:
    station.set_key(decryption=DecryptionMode.DECRYPT)
    station.write_tape()
    assert station.next_block().encryption == BlockEncryption.CLEAR
    assert refusal(lambda: station.read(len(LABEL))).number == UNENCRYPTED
    assert station.read_at(FIRST) == BLOCKS[0]


@pytest.mark.needs("plain_first_block", "writable")
def test_a_3592_encrypts_from_the_beginning_or_not_at_all(station: Station) -> None:
    station.rewind()
    station.write(LABEL)
    station.set_key()
    assert refusal(lambda: station.write(BLOCKS[0])).number == WRITE_PROTECTED


@pytest.mark.needs("name_must_match", "unable")
def test_a_t10000_is_not_for_hwkm(station: Station) -> None:
    assert "AES-256-CCM (Oracle)" in station.driver.ability().reason
