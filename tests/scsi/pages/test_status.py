"""Data Encryption Status and Next Block Encryption Status; Random Number."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.errors import ParseError
from hwkm.scsi.pages.kad import Authentication, Kad, KadFormat, KadType
from hwkm.scsi.pages.next_block import BlockCompression, BlockEncryption, NextBlockStatus
from hwkm.scsi.pages.random_number import RandomNumber
from hwkm.scsi.pages.status import (
    ControlledBy,
    DecryptionMode,
    EncryptionMode,
    EncryptionStatus,
    ModeCheck,
    Scope,
)
from tests.scsi.pages import vectors
from tests.scsi.pages.hostile import hostile, survives

HELLO = Kad(KadType.U_KAD, b"Hello world!", Authentication.NOT_COVERED)

KEY_SET = EncryptionStatus(
    nexus_scope=Scope.ALL_I_T_NEXUS,
    key_scope=Scope.ALL_I_T_NEXUS,
    encryption_mode=EncryptionMode.ENCRYPT,
    decryption_mode=DecryptionMode.DECRYPT,
    algorithm_index=1,
    key_instance_counter=1,
    controlled_by=ControlledBy.HOST,
    volume_contains_encrypted=True,
    ceems=ModeCheck.DEFAULT,
    raw_read_disabled=False,
    kad_format=KadFormat.UNSPECIFIED,
    free_sdk=0,
    kads=(HELLO,),
)
MHVTL_KEY = replace(
    KEY_SET,
    nexus_scope=Scope.LOCAL,
    key_scope=Scope.LOCAL,
    controlled_by=ControlledBy.NOT_REPORTED,
    volume_contains_encrypted=False,
    kads=(),
)
READABLE = NextBlockStatus(
    object_number=1,
    compression=BlockCompression.CANNOT_TELL,
    encryption=BlockEncryption.READABLE,
    algorithm_index=1,
    external=False,
    raw_read_disabled=False,
    kad_format=KadFormat.UNSPECIFIED,
    kads=(HELLO,),
)


def lies(page: int, announced: int, came: int) -> tuple[str, ...]:
    return (f"page {page:04X}h announces {announced} bytes, {came} came",)


def test_key_set() -> None:
    found = EncryptionStatus.parse(vectors.STATUS_KEY_SET)
    assert found == KEY_SET
    assert found.kad(KadType.U_KAD) == b"Hello world!"
    assert found.kad(KadType.A_KAD) is None
    assert not found.is_clear


def test_clear() -> None:
    found = EncryptionStatus.parse(vectors.STATUS_CLEAR)
    assert found.is_clear
    assert found.controlled_by == ControlledBy.HOST
    assert found.nexus_scope == found.key_scope == Scope.PUBLIC
    assert found.problems == ()
    assert found.kads == ()


def test_mhvtl_announces_twelve_bytes_too_many() -> None:
    clear = EncryptionStatus.parse(vectors.MHVTL_STATUS_CLEAR)
    assert clear.is_clear
    assert clear.problems == lies(0x20, 36, 24)
    key = EncryptionStatus.parse(vectors.MHVTL_STATUS_KEY)
    assert key == replace(MHVTL_KEY, problems=lies(0x20, 36, 24))


def test_mhvtl_kads() -> None:
    ukad = EncryptionStatus.parse(vectors.MHVTL_STATUS_U_KAD)
    assert ukad.key_instance_counter == 0x0C
    assert ukad.kads == (Kad(KadType.U_KAD, b"hwkm:key-1"),)
    assert ukad.problems == lies(0x20, 50, 38)
    akad = EncryptionStatus.parse(vectors.MHVTL_STATUS_A_KAD)
    assert akad.key_instance_counter == 0x46
    assert akad.kad(KadType.A_KAD) == b"A" * 12
    assert akad.problems == lies(0x20, 52, 40)


@pytest.mark.parametrize(
    ("encryption", "decryption", "clear"),
    [(0, 0, True), (0, 3, False), (2, 0, False), (2, 3, False), (9, 0, False), (0, 9, False)],
)
def test_is_clear(encryption: int, decryption: int, clear: bool) -> None:
    page = vectors.STATUS_CLEAR[:5] + bytes((encryption, decryption)) + vectors.STATUS_CLEAR[7:]
    assert EncryptionStatus.parse(page).is_clear is clear


def test_every_field_of_the_status() -> None:
    page = bytes.fromhex("0020 0014 BE 07 08 09 DEADBEEF FF 05 0102 0000000000000000")
    assert EncryptionStatus.parse(page) == EncryptionStatus(
        nexus_scope=5,
        key_scope=6,
        encryption_mode=7,
        decryption_mode=8,
        algorithm_index=9,
        key_instance_counter=0xDEAD_BEEF,
        controlled_by=7,
        volume_contains_encrypted=True,
        ceems=ModeCheck.REFUSE_ENCRYPT,
        raw_read_disabled=True,
        kad_format=5,
        free_sdk=0x0102,
    )


@pytest.mark.parametrize(
    ("byte", "control", "encrypted", "ceems", "raw_disabled"),
    [
        (0x80, ControlledBy.NOT_REPORTED, False, ModeCheck.DEFAULT, False),
        (0x30, ControlledBy.LIBRARY, False, ModeCheck.DEFAULT, False),
        (0x40, ControlledBy.MANAGEMENT, False, ModeCheck.DEFAULT, False),
        (0x08, ControlledBy.NOT_REPORTED, True, ModeCheck.DEFAULT, False),
        (0x04, ControlledBy.NOT_REPORTED, False, ModeCheck.REFUSE_EXTERNAL, False),
        (0x01, ControlledBy.NOT_REPORTED, False, ModeCheck.DEFAULT, True),
    ],
)
def test_byte_12(
    byte: int, control: ControlledBy, encrypted: bool, ceems: ModeCheck, raw_disabled: bool
) -> None:
    page = vectors.STATUS_CLEAR[:12] + bytes((byte,)) + vectors.STATUS_CLEAR[13:]
    found = EncryptionStatus.parse(page)
    assert found.controlled_by == control
    assert found.volume_contains_encrypted == encrypted
    assert found.ceems == ceems
    assert found.raw_read_disabled == raw_disabled


def test_status_with_half_a_kad() -> None:
    found = EncryptionStatus.parse(vectors.STATUS_KEY_SET[:-1])
    assert found.kads == ()
    assert found.problems == (*lies(0x20, 40, 39), "the last KAD is cut off")


@pytest.mark.parametrize("end", [4, 12, 23])
def test_status_too_short(end: int) -> None:
    with pytest.raises(ParseError, match="at least 24 are needed"):
        EncryptionStatus.parse(vectors.STATUS_KEY_SET[:end])


def test_next_block_is_not_the_status() -> None:
    with pytest.raises(ParseError, match=r"^the drive gave page 0021h instead of 0020h$"):
        EncryptionStatus.parse(vectors.NEXT_READABLE)


def test_readable_block() -> None:
    found = NextBlockStatus.parse(vectors.NEXT_READABLE)
    assert found == READABLE
    assert found.kad(KadType.U_KAD) == b"Hello world!"
    assert found.kad(KadType.A_KAD) is None


def test_unreadable_block() -> None:
    found = NextBlockStatus.parse(vectors.NEXT_UNREADABLE)
    assert found == replace(READABLE, encryption=BlockEncryption.UNREADABLE)


def test_clear_block() -> None:
    found = NextBlockStatus.parse(vectors.NEXT_CLEAR)
    assert found.encryption == BlockEncryption.CLEAR
    assert found.kads == ()
    assert found.problems == ()


def test_mhvtl_blank_medium() -> None:
    found = NextBlockStatus.parse(vectors.MHVTL_NEXT_BLANK)
    assert found.encryption == BlockEncryption.NOT_A_BLOCK
    assert found.object_number == 0


def test_mhvtl_blocks() -> None:
    ukad = NextBlockStatus.parse(vectors.MHVTL_NEXT_U_KAD)
    assert ukad.kads == (Kad(KadType.U_KAD, b"hwkm:key-1", Authentication.NOT_COVERED),)
    akad = NextBlockStatus.parse(vectors.MHVTL_NEXT_A_KAD)
    assert akad.kads == (Kad(KadType.A_KAD, b"AKAD-12bytes", Authentication.AUTHENTICATED),)
    assert ukad.problems == akad.problems == ()


def test_every_field_of_the_next_block() -> None:
    page = bytes.fromhex("0021 000C 0102030405060708 4F 09 02 02")
    assert NextBlockStatus.parse(page) == NextBlockStatus(
        object_number=0x0102_0304_0506_0708,
        compression=BlockCompression.COMPRESSED,
        encryption=15,
        algorithm_index=9,
        external=True,
        raw_read_disabled=False,
        kad_format=KadFormat.ASCII_KEY_NAME,
    )
    marked = NextBlockStatus.parse(page[:14] + b"\x01\x07")
    assert marked.raw_read_disabled
    assert not marked.external
    assert marked.kad_format == 7


@pytest.mark.parametrize("end", [4, 15])
def test_next_block_too_short(end: int) -> None:
    with pytest.raises(ParseError, match="at least 16 are needed"):
        NextBlockStatus.parse(vectors.NEXT_READABLE[:end])


def test_random_number() -> None:
    page = bytes.fromhex("0030 0020") + vectors.KEY
    found = RandomNumber.parse(page)
    assert found == RandomNumber(vectors.KEY)
    assert repr(found) == "RandomNumber(problems=())"


def test_random_number_of_the_wrong_length() -> None:
    found = RandomNumber.parse(bytes.fromhex("0030 0021") + vectors.KEY + b"!")
    assert found.number == vectors.KEY
    with pytest.raises(ParseError, match="at least 36 are needed"):
        RandomNumber.parse(bytes.fromhex("0030 0020") + vectors.KEY[:31])


@given(hostile(vectors.STATUS_KEY_SET, vectors.MHVTL_STATUS_A_KAD))
def test_hostile_status(data: bytes) -> None:
    survives(EncryptionStatus.parse, data)


@given(hostile(vectors.NEXT_READABLE, vectors.MHVTL_NEXT_A_KAD))
def test_hostile_next_block(data: bytes) -> None:
    survives(NextBlockStatus.parse, data)


@given(hostile(bytes.fromhex("0030 0020") + vectors.KEY))
def test_hostile_random_number(data: bytes) -> None:
    survives(RandomNumber.parse, data)


@given(st.binary(min_size=20, max_size=20), st.binary(max_size=40))
def test_any_status_is_read(fields: bytes, kads: bytes) -> None:
    body = fields + kads
    found = EncryptionStatus.parse(bytes((0, 0x20)) + len(body).to_bytes(2) + body)
    assert found.key_instance_counter == int.from_bytes(fields[4:8])
    assert found.nexus_scope << 5 | found.key_scope == fields[0] & 0b1110_0111
