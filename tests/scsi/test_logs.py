"""Log pages, with what real drives gave as far as it is known."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.errors import ParseError
from hwkm.scsi.logs import (
    ALERT_NAMES,
    DeviceStatus,
    VolumeStatistics,
    alert_name,
    parse_tape_alert,
    parse_tape_alert_response,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# An HPE LTO-9 drive with a tape that was never encrypted.
SERIAL = bytes.fromhex("00 40 41 20") + b"2023B16307".ljust(32)
BARCODE = bytes.fromhex("00 42 41 20") + b"Z20001L9".ljust(32)
PERSONALITY = bytes.fromhex("00 45 41 09") + b"LTOL9G9  "
NEVER_ENCRYPTED = bytes.fromhex("02 00 43 0A 09 00 00 00 FF FF FF FF FF FF")
NO_CLEAR = bytes.fromhex("02 01 43 0A 09 00 00 00 FF FF FF FF FF FF")
# Made up by the same layout: a WORM cartridge with encrypted blocks in both partitions.
MAKER = bytes.fromhex("00 43 41 08") + b"FUJIFILM"
LOT = bytes.fromhex("00 41 41 08") + b"LOT 7   "
PROTECTED = bytes.fromhex("00 80 43 01 01  00 81 43 01 01")
OPEN = bytes.fromhex("00 80 43 01 00  00 81 43 01 00")
ENCRYPTED = bytes.fromhex("02 00 43 14 09 00 00 01 000000000001 09 00 00 00 000000000002")
CLEAR = bytes.fromhex("02 01 43 14 09 00 00 00 00000000abcd 09 00 00 01 ffffffffffff")

STATUS_VALUES = bytes.fromhex("00 01 43 02 01 F4  00 02 43 08") + bytes(8)
STATUS_VALUES += bytes.fromhex("00 03 43 0C") + bytes(12)
IDLE = bytes.fromhex("00 00 43 04 31 17 00 00") + STATUS_VALUES
WAITING = bytes.fromhex("00 00 43 04 31 17 00 18") + STATUS_VALUES


def page(code: int, *parameters: bytes) -> bytes:
    body = b"".join(parameters)
    return bytes((code, 0)) + len(body).to_bytes(2) + body


def alerts(*flags: int) -> bytes:
    values = (bytes((0, flag, 0xC0, 1, flag in flags)) for flag in range(1, 65))
    return page(0x2E, *values)


def test_never_encrypted() -> None:
    found = VolumeStatistics.parse(
        page(0x17, SERIAL, BARCODE, PERSONALITY, NEVER_ENCRYPTED, NO_CLEAR)
    )
    assert found == VolumeStatistics(serial="2023B16307", barcode="Z20001L9", personality="LTOL9G9")


def test_encrypted_worm() -> None:
    found = VolumeStatistics.parse(page(0x17, MAKER, LOT, PROTECTED, ENCRYPTED, CLEAR))
    assert (found.manufacturer, found.lot) == ("FUJIFILM", "LOT 7")
    assert (found.write_protected, found.worm) == (True, True)
    assert (found.first_encrypted, found.first_clear) == (2, 0xABCD)
    assert found.problems == ()


def test_neither_protected_nor_worm() -> None:
    found = VolumeStatistics.parse(page(0x17, OPEN))
    assert (found.write_protected, found.worm) == (False, False)


def test_flags_of_the_page_code_do_not_matter() -> None:
    # DS and SPF set.
    assert VolumeStatistics.parse(page(0xD7, SERIAL)).serial == "2023B16307"


def test_lengths_that_lie() -> None:
    data = page(0x17, SERIAL, BARCODE)
    longer = VolumeStatistics.parse(data[:2] + b"\x01\x00" + data[4:])
    assert (longer.serial, longer.barcode) == ("2023B16307", "Z20001L9")
    assert longer.problems == ("the page announces 256 bytes and has 72",)
    cut = VolumeStatistics.parse(data[:-1])
    assert (cut.serial, cut.barcode) == ("2023B16307", "")
    assert cut.problems[-1] == "the last parameter is cut off"


def test_a_partition_record_that_lies() -> None:
    for value in ("00 00 00 00", "ff 00 00 00 0001", "00 00 00 01 00 00 00 00", "09 00"):
        raw = bytes.fromhex(value)
        head = bytes.fromhex("02 00 43") + bytes((len(raw),))
        assert VolumeStatistics.parse(page(0x17, head + raw)).first_encrypted is None


def test_idle_drive() -> None:
    found = DeviceStatus.parse(page(0x11, IDLE))
    assert found.encryption_parameters_present is False
    assert found.service_requested is False
    assert found.encryption_control == bytes(8)
    assert found.key_error == bytes(12)


def test_drive_that_waits_for_a_key() -> None:
    found = DeviceStatus.parse(page(0x11, WAITING))
    assert found.encryption_parameters_present
    assert found.service_requested


def test_a_status_without_parameters() -> None:
    found = DeviceStatus.parse(page(0x11))
    assert found.encryption_parameters_present is None
    assert found.service_requested is None


def test_alerts() -> None:
    assert parse_tape_alert(alerts()) == frozenset()
    assert parse_tape_alert(alerts(1, 0x3D, 64)) == {1, 0x3D, 64}
    assert len(alerts()) == 4 + 0x140


def test_alerts_in_one_parameter() -> None:
    head = bytes.fromhex("12 00 00 0c 00 00 43 08")
    assert parse_tape_alert_response(head + bytes(8)) == frozenset()
    # Flag 1 is the top bit of the first byte, flag 61 is bit 3 of the last.
    assert parse_tape_alert_response(head + bytes.fromhex("8000000000000008")) == {1, 61}


@given(st.frozensets(st.integers(1, 64)))
def test_both_pages_say_the_same(flags: frozenset[int]) -> None:
    bits = sum(1 << 64 - flag for flag in flags)
    response = bytes.fromhex("12 00 00 0c 00 00 43 08") + bits.to_bytes(8)
    assert parse_tape_alert_response(response) == parse_tape_alert(alerts(*flags)) == flags


def test_alert_names() -> None:
    assert alert_name(0x3D) == "encryption policy violation"
    assert alert_name(0x30) == "TapeAlert flag 30h"
    assert all(1 <= flag <= 64 for flag in ALERT_NAMES)


@pytest.mark.parametrize(
    "parse",
    [
        VolumeStatistics.parse,
        DeviceStatus.parse,
        parse_tape_alert,
        parse_tape_alert_response,
    ],
)
@pytest.mark.parametrize("data", [b"", b"\x17\0\0", page(0x30), page(0)])
def test_another_page(parse: Callable[[bytes], object], data: bytes) -> None:
    with pytest.raises(ParseError, match="not the log page"):
        parse(data)


@given(st.sampled_from([0x11, 0x12, 0x17, 0x2E]), st.binary(max_size=120))
def test_hostile_bytes(code: int, data: bytes) -> None:
    whole = bytes((code, 0)) + data
    for parse in (
        VolumeStatistics.parse,
        DeviceStatus.parse,
        parse_tape_alert,
        parse_tape_alert_response,
    ):
        with suppress(ParseError):
            parse(whole)
