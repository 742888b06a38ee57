"""Set Data Encryption."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.errors import ParseError
from hwkm.keys import SecretBytes
from hwkm.scsi.pages.directory import KeyFormat
from hwkm.scsi.pages.kad import Authentication, Kad, KadFormat, KadType
from hwkm.scsi.pages.set_encryption import PAGE, RawReadControl, SetDataEncryption
from hwkm.scsi.pages.status import DecryptionMode, EncryptionMode, ModeCheck, Scope
from tests.scsi.pages import vectors
from tests.scsi.pages.hostile import hostile, survives

U_KAD = Kad(KadType.U_KAD, vectors.U_KAD)
A_KAD = Kad(KadType.A_KAD, vectors.A_KAD)

BASE = SetDataEncryption(
    Scope.ALL_I_T_NEXUS,
    EncryptionMode.ENCRYPT,
    DecryptionMode.MIXED,
    algorithm_index=1,
    key=SecretBytes(vectors.KEY),
    kads=(U_KAD,),
)
CLEAR = SetDataEncryption(
    Scope.ALL_I_T_NEXUS, EncryptionMode.DISABLE, DecryptionMode.DISABLE, algorithm_index=1
)
VECTORS = {
    "U-KAD": (BASE, vectors.SET_U_KAD),
    "both KADs": (
        replace(BASE, decryption_mode=DecryptionMode.DECRYPT, kads=(U_KAD, A_KAD), ckod=True),
        vectors.SET_BOTH_KADS,
    ),
    "read only": (
        replace(BASE, encryption_mode=EncryptionMode.DISABLE, kads=(), ckod=True),
        vectors.SET_READ_ONLY,
    ),
    "clear": (CLEAR, vectors.SET_CLEAR),
    "stenc's clear": (replace(CLEAR, ceem=ModeCheck.NO_CHECK), vectors.STENC_CLEAR),
    "Bareos's clear": (replace(CLEAR, key=SecretBytes(bytes(32))), vectors.BAREOS_CLEAR),
    "release": (replace(CLEAR, scope=Scope.PUBLIC), vectors.RELEASE),
    "stenc's key": (
        replace(
            BASE,
            decryption_mode=DecryptionMode.DECRYPT,
            ceem=ModeCheck.NO_CHECK,
            kad_format=KadFormat.ASCII_KEY_NAME,
            key=SecretBytes(bytes.fromhex("00112233445566778899AABBCCDDEEFF") * 2),
            kads=(Kad(KadType.U_KAD, b"Hello world!"),),
        ),
        vectors.STENC_SET,
    ),
}

kads = st.lists(
    st.builds(Kad, st.integers(0, 255), st.binary(max_size=64)),
    max_size=4,
    unique_by=lambda kad: kad.type,
)
requests = st.builds(
    SetDataEncryption,
    scope=st.integers(0, 7),
    encryption_mode=st.integers(0, 255),
    decryption_mode=st.integers(0, 255),
    algorithm_index=st.integers(0, 255),
    key_format=st.integers(0, 255),
    key=st.binary(max_size=400).map(SecretBytes),
    kads=kads.map(lambda some: tuple(sorted(some, key=lambda kad: kad.type))),
    lock=st.booleans(),
    ceem=st.sampled_from(ModeCheck),
    rdmc=st.integers(0, 3),
    sdk=st.booleans(),
    ckod=st.booleans(),
    ckorp=st.booleans(),
    ckorl=st.booleans(),
    kad_format=st.integers(0, 255),
)


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name: str) -> None:
    request, page = VECTORS[name]
    assert request.pack().expose() == page
    assert SetDataEncryption.parse(page) == request


def test_page_code() -> None:
    assert PAGE == 0x0010


def test_ckod_and_kad_format() -> None:
    request = replace(BASE, ckod=True, kad_format=KadFormat.ASCII_KEY_NAME)
    page = bytearray(vectors.SET_U_KAD)
    page[5], page[10] = 0x04, 0x02
    assert request.pack().expose() == page


@pytest.mark.parametrize(
    ("change", "at", "byte"),
    [
        ({"scope": Scope.LOCAL}, 4, 0x20),
        ({"lock": True}, 4, 0x41),
        ({"ceem": ModeCheck.REFUSE_ENCRYPT}, 5, 0xC0),
        ({"rdmc": RawReadControl.PREVENT}, 5, 0x30),
        ({"rdmc": RawReadControl.ALLOW}, 5, 0x20),
        ({"sdk": True}, 5, 0x08),
        ({"ckod": True}, 5, 0x04),
        ({"ckorp": True}, 5, 0x02),
        ({"ckorl": True}, 5, 0x01),
        ({"encryption_mode": EncryptionMode.EXTERNAL}, 6, 0x01),
        ({"decryption_mode": DecryptionMode.RAW}, 7, 0x01),
        ({"algorithm_index": 0}, 8, 0x00),
        ({"key_format": KeyFormat.WRAPPED}, 9, 0x02),
        ({"kad_format": KadFormat.BINARY_KEY_NAME}, 10, 0x01),
    ],
)
def test_field_by_field(change: dict[str, object], at: int, byte: int) -> None:
    request: SetDataEncryption = replace(BASE, **change)  # type: ignore[arg-type]
    page = vectors.SET_U_KAD[:at] + bytes((byte,)) + vectors.SET_U_KAD[at + 1 :]
    assert request.pack().expose() == page
    assert SetDataEncryption.parse(page) == request


def test_kads_are_put_in_order() -> None:
    request = replace(BASE, kads=(A_KAD, U_KAD))
    assert request.pack() == replace(BASE, kads=(U_KAD, A_KAD)).pack()


def test_the_key_is_not_shown() -> None:
    assert vectors.KEY.hex() not in repr(BASE)
    assert repr(vectors.KEY)[2:-1] not in repr(BASE)
    assert isinstance(BASE.pack(), SecretBytes)


@pytest.mark.parametrize(
    "change",
    [
        {"scope": 8},
        {"scope": -1},
        {"encryption_mode": 256},
        {"decryption_mode": -1},
        {"algorithm_index": 256},
        {"key_format": 256},
        {"kad_format": 256},
        {"ceem": 4},
        {"rdmc": 4},
        {"rdmc": -1},
        {"key": SecretBytes(bytes(65_499))},
        {"kads": (U_KAD, U_KAD)},
    ],
)
def test_out_of_range(change: dict[str, object]) -> None:
    request: SetDataEncryption = replace(BASE, **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"bytes|range|bits|once"):
        request.pack()


def test_the_longest_page() -> None:
    page = replace(CLEAR, key=SecretBytes(bytes(65_519))).pack()
    assert len(page) == 65_539
    assert SetDataEncryption.parse(page.expose()).pack() == page
    with pytest.raises(ValueError, match="65,539"):
        replace(CLEAR, key=SecretBytes(bytes(65_520))).pack()


@pytest.mark.parametrize("end", range(len(vectors.SET_BOTH_KADS)))
def test_cut_off(end: int) -> None:
    with pytest.raises(ParseError):
        SetDataEncryption.parse(vectors.SET_BOTH_KADS[:end])


def test_bytes_behind() -> None:
    with pytest.raises(ParseError, match="lengths"):
        SetDataEncryption.parse(vectors.SET_CLEAR + b"\0")


def test_key_longer_than_the_page() -> None:
    page = vectors.SET_READ_ONLY[:18] + b"\x00\x21" + vectors.SET_READ_ONLY[20:]
    with pytest.raises(ParseError, match="lengths"):
        SetDataEncryption.parse(page)


def test_key_shorter_than_what_follows() -> None:
    page = vectors.SET_READ_ONLY[:18] + b"\x00\x1f" + vectors.SET_READ_ONLY[20:]
    with pytest.raises(ParseError, match="KADs") as error:
        SetDataEncryption.parse(page)
    assert "1F" not in str(error.value).upper()


@pytest.mark.parametrize(("at", "bit"), [(4, 0x02), (4, 0x10), (11, 1), (14, 0x80), (17, 1)])
def test_reserved_bits(at: int, bit: int) -> None:
    page = bytearray(vectors.SET_U_KAD)
    page[at] |= bit
    with pytest.raises(ParseError, match="reserved bits"):
        SetDataEncryption.parse(bytes(page))


def test_kads_out_of_order() -> None:
    page = vectors.SET_BOTH_KADS[:52] + vectors.SET_BOTH_KADS[73:] + vectors.SET_BOTH_KADS[52:73]
    with pytest.raises(ParseError, match="KADs astray"):
        SetDataEncryption.parse(page)


def test_kad_twice() -> None:
    kad = vectors.SET_U_KAD[52:]
    length = (len(vectors.SET_U_KAD) + len(kad) - 4).to_bytes(2)
    with pytest.raises(ParseError, match="KADs"):
        SetDataEncryption.parse(vectors.SET_U_KAD[:2] + length + vectors.SET_U_KAD[4:] + kad)


def test_kad_that_claims_authentication() -> None:
    page = vectors.SET_U_KAD[:53] + bytes((Authentication.AUTHENTICATED,)) + vectors.SET_U_KAD[54:]
    with pytest.raises(ParseError, match="KADs astray"):
        SetDataEncryption.parse(page)


@given(requests)
def test_round_trip(request: SetDataEncryption) -> None:
    page = request.pack()
    assert SetDataEncryption.parse(page.expose()) == request
    assert int.from_bytes(page.expose()[2:4]) == len(page) - 4


@given(hostile(vectors.SET_BOTH_KADS, vectors.STENC_SET, vectors.SET_CLEAR))
def test_hostile(data: bytes) -> None:
    survives(SetDataEncryption.parse, data)


@given(hostile(vectors.SET_BOTH_KADS, vectors.STENC_SET, vectors.SET_CLEAR))
def test_what_parses_packs_to_the_same(data: bytes) -> None:
    try:
        found = SetDataEncryption.parse(data)
    except ParseError:
        return
    assert found.pack().expose() == data
