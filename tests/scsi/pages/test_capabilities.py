"""Data Encryption Capabilities."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.errors import ParseError
from hwkm.scsi.pages.capabilities import (
    Ability,
    Algorithm,
    Capabilities,
    ConfigurationPrevented,
    DecryptionKad,
    ExternalControl,
    ExternalMode,
    Nonce,
    PositionValidity,
    RawRead,
)
from tests.scsi.pages import vectors
from tests.scsi.pages.hostile import hostile, survives

HP_GCM = Algorithm(
    index=1,
    code=0x0001_0014,
    valid_for_volume=True,
    sdk=False,
    mac=False,
    distinguishes=False,
    decrypt=Ability.HARDWARE,
    encrypt=Ability.HARDWARE,
    position=PositionValidity.VALID,
    nonce=Nonce.NONE,
    kad_format=True,
    vcelb=True,
    fixed_ukad=False,
    fixed_akad=False,
    max_ukad=32,
    max_akad=60,
    key_bytes=32,
    dkad=DecryptionKad.ALLOWED,
    eemc=ExternalMode.ALLOWED,
    rdmc=RawRead.OFF_FIXED,
    earem=True,
    max_eedk_count=0,
    msdk_count=0,
    max_eedk_size=0,
)
HP_CCM = replace(
    HP_GCM,
    index=2,
    code=0x0001_0010,
    fixed_ukad=True,
    fixed_akad=True,
    eemc=ExternalMode.NOT_ALLOWED,
    rdmc=RawRead.OFF_CHANGEABLE,
)
MHVTL_GCM = replace(
    HP_GCM,
    mac=True,
    distinguishes=True,
    position=PositionValidity.NOT_APPLICABLE,
    nonce=Nonce.DEVICE,
    kad_format=False,
    vcelb=False,
    max_akad=12,
    dkad=DecryptionKad.UNSPECIFIED,
    eemc=ExternalMode.UNSPECIFIED,
    rdmc=RawRead.OFF_CHANGEABLE,
)

FULL = bytes.fromhex("07 00 0014 FF FB 0102 0304 0506 FF FF 0708 090A 0000 FFFFFFFF")
"""Every bit set, but for VCELB_C."""


def page(*descriptors: bytes, flags: int = 0x01) -> bytes:
    body = bytes((flags,)) + bytes(15) + b"".join(descriptors)
    return bytes((0x00, 0x10)) + len(body).to_bytes(2) + body


def test_hp_lto_6() -> None:
    assert Capabilities.parse(vectors.HP_LTO_6_CAPABILITIES) == Capabilities(
        (HP_GCM, HP_CCM), ExternalControl.CAPABLE, ConfigurationPrevented.ALLOWED
    )


def test_page_length_of_stencs_test() -> None:
    found = Capabilities.parse(vectors.STENC_CAPABILITIES)
    assert found.algorithms == (HP_GCM,)
    assert found.problems == (
        "page 0010h announces 64 bytes, 68 came",
        "an algorithm descriptor is cut off or too short",
    )


def test_mhvtl_lto() -> None:
    loaded = Capabilities.parse(vectors.MHVTL_LTO_LOADED)
    assert loaded == Capabilities(
        (MHVTL_GCM,), ExternalControl.NOT_REPORTED, ConfigurationPrevented.ALLOWED
    )
    empty = Capabilities.parse(vectors.MHVTL_LTO_EMPTY)
    assert empty.algorithms == (replace(MHVTL_GCM, valid_for_volume=False),)


def test_mhvtl_t10000() -> None:
    found = Capabilities.parse(vectors.MHVTL_T10000_LOADED)
    (algorithm,) = found.algorithms
    assert algorithm == replace(
        MHVTL_GCM,
        code=0x8001_0010,
        max_ukad=30,
        max_akad=0,
        dkad=DecryptionKad.REQUIRED,
        rdmc=RawRead.IMPOSSIBLE,
    )
    assert algorithm.name == "AES-256-CCM (Oracle)"
    assert found.gcm() is None


def test_mhvtl_3592() -> None:
    found = Capabilities.parse(vectors.MHVTL_3592_LOADED)
    assert found.configuration_prevented == ConfigurationPrevented.NOT_REPORTED
    assert found.algorithms == (replace(MHVTL_GCM, max_ukad=0, rdmc=RawRead.ON_FIXED),)


def test_every_field() -> None:
    (found,) = Capabilities.parse(page(FULL)).algorithms
    assert found == Algorithm(
        index=7,
        code=0xFFFF_FFFF,
        valid_for_volume=True,
        sdk=True,
        mac=True,
        distinguishes=True,
        decrypt=Ability.EXTERNAL,
        encrypt=Ability.EXTERNAL,
        position=3,
        nonce=Nonce.EITHER,
        kad_format=True,
        vcelb=False,
        fixed_ukad=True,
        fixed_akad=True,
        max_ukad=0x0102,
        max_akad=0x0304,
        key_bytes=0x0506,
        dkad=DecryptionKad.ALLOWED,
        eemc=3,
        rdmc=RawRead.ON_FIXED,
        earem=True,
        max_eedk_count=15,
        msdk_count=0x0708,
        max_eedk_size=0x090A,
    )
    assert found.name == "algorithm FFFFFFFFh"


@pytest.mark.parametrize(
    ("at", "byte", "names"),
    [
        (4, 0x80, {"valid_for_volume"}),
        (4, 0x40, {"sdk"}),
        (4, 0x20, {"mac"}),
        (4, 0x10, {"distinguishes"}),
        (4, 0x08, {"decrypt"}),
        (4, 0x02, {"encrypt"}),
        (5, 0x80, {"position"}),
        (5, 0x20, {"nonce"}),
        (5, 0x08, {"kad_format"}),
        (5, 0x04, {"vcelb"}),
        (5, 0x02, {"fixed_ukad"}),
        (5, 0x01, {"fixed_akad"}),
        (12, 0x80, {"dkad"}),
        (12, 0x20, {"eemc"}),
        (12, 0x08, {"rdmc"}),
        (12, 0x01, {"earem"}),
        (13, 0xF0, set()),
        (13, 0x01, {"max_eedk_count"}),
    ],
)
def test_bit_by_bit(at: int, byte: int, names: set[str]) -> None:
    descriptor = bytearray(bytes.fromhex("00 00 0014") + bytes(20))
    descriptor[at] = byte
    (found,) = Capabilities.parse(page(bytes(descriptor))).algorithms
    assert {name for name in Algorithm.__slots__ if getattr(found, name)} == names


@pytest.mark.parametrize(
    ("flags", "external", "prevented"),
    [
        (0x00, ExternalControl.NOT_REPORTED, ConfigurationPrevented.NOT_REPORTED),
        (0x06, ExternalControl.NOT_CAPABLE, ConfigurationPrevented.PREVENTED),
        (0xFF, 3, 3),
    ],
)
def test_who_may_configure(flags: int, external: int, prevented: int) -> None:
    found = Capabilities.parse(page(flags=flags))
    assert found == Capabilities((), external, prevented)


def test_longer_descriptors_are_stepped_over() -> None:
    first = bytes.fromhex("01 00 0018") + FULL[4:] + b"more"
    second = vectors.MHVTL_LTO_LOADED[20:]
    found = Capabilities.parse(page(first, second))
    assert [one.index for one in found.algorithms] == [1, 1]
    assert found.gcm() == MHVTL_GCM
    assert found.problems == ()


@pytest.mark.parametrize("length", [0x0000, 0x0013, 0x0015, 0xFFFF])
def test_descriptor_length_of_no_use(length: int) -> None:
    bad = b"\x02\x00" + length.to_bytes(2) + FULL[4:]
    found = Capabilities.parse(page(FULL, bad))
    assert [one.index for one in found.algorithms] == [7]
    assert found.problems == ("an algorithm descriptor is cut off or too short",)


def test_cut_off_page() -> None:
    found = Capabilities.parse(vectors.HP_LTO_6_CAPABILITIES[:60])
    assert found.algorithms == (HP_GCM,)
    assert found.problems == (
        "page 0010h announces 68 bytes, 60 came",
        "an algorithm descriptor is cut off or too short",
    )


@pytest.mark.parametrize("end", [4, 19])
def test_too_short(end: int) -> None:
    with pytest.raises(ParseError, match="at least 20 are needed"):
        Capabilities.parse(vectors.HP_LTO_6_CAPABILITIES[:end])


def test_the_best_gcm_is_chosen() -> None:
    software = replace(HP_GCM, index=3, encrypt=Ability.SOFTWARE)
    other_medium = replace(HP_GCM, index=4, valid_for_volume=False)
    odd_key = replace(HP_GCM, index=5, key_bytes=16)

    def chosen(*algorithms: Algorithm) -> Algorithm | None:
        found = Capabilities(algorithms, ExternalControl.CAPABLE, ConfigurationPrevented.ALLOWED)
        return found.gcm()

    assert chosen(software, other_medium, HP_CCM, HP_GCM) == HP_GCM
    assert chosen(software, other_medium) == other_medium
    assert chosen(HP_GCM, replace(HP_GCM, index=9)) == HP_GCM
    assert chosen(software) == software
    assert chosen(HP_CCM, odd_key) is None


def test_names() -> None:
    assert HP_GCM.name == "AES-256-GCM"
    assert HP_GCM.is_aes_256_gcm
    assert not HP_CCM.is_aes_256_gcm


@given(hostile(vectors.HP_LTO_6_CAPABILITIES, vectors.MHVTL_LTO_EMPTY, page(FULL)))
def test_hostile(data: bytes) -> None:
    survives(Capabilities.parse, data)
    survives(lambda page: Capabilities.parse(page).gcm(), data)


@given(st.lists(st.binary(min_size=20, max_size=40), max_size=5))
def test_any_descriptors(bodies: list[bytes]) -> None:
    descriptors = [bytes(2) + len(body).to_bytes(2) + body for body in bodies]
    found = Capabilities.parse(page(*descriptors))
    assert [one.code for one in found.algorithms] == [
        int.from_bytes(body[16:20]) for body in bodies
    ]
    assert found.problems == ()
