"""Sense data in both formats, and what people get to read of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.errors import ParseError
from hwkm.keys import SecretBytes
from hwkm.scsi import commands
from hwkm.scsi.sense import FieldPointer, Sense, SenseKey
from hwkm.scsi.sense_codes import BY_CODE, BY_KEY, IBM_BY_CODE, MANAGED
from hwkm.scsi.sense_text import explain, field_at, refused

# A real drive, sent ALGORITHM INDEX 00 where it has only 01.
WRONG_INDEX = bytes.fromhex("70 00 05 00 00 00 00 10 00 00 00 00 26 00 00 8F 00 08").ljust(
    24, b"\0"
)
# mhvtl: an LTO-3 drive asked for SECURITY PROTOCOL IN, and an LTO-5 one for a page it lacks.
NO_ENCRYPTION = bytes.fromhex("f0 00 05 00000000 58 00000000 20 00 00 c0 00 00").ljust(96, b"\0")
NO_PAGE = bytes.fromhex("f0 00 05 00000000 58 00000000 24 00 00 c0 00 02").ljust(96, b"\0")
# The same in descriptor format, with a sense key specific descriptor.
NO_PAGE_DESCRIPTOR = bytes.fromhex("72 05 24 00 00 00 00 08  02 06 00 00 c0 00 02 00")
# A filemark met when reading, and in the stream commands descriptor.
FILEMARK = bytes.fromhex("f0 00 80 00000064 0a 00000000 00 01 00 00 00 00")
FILEMARK_DESCRIPTOR = bytes.fromhex(
    "72 00 00 01 00 00 00 10  00 0a 80 00 0000000000000064  04 02 00 80"
)
# 100 bytes were asked for, and the block has 300: INFORMATION is -200.
LONG_BLOCK = bytes.fromhex("f0 00 20 ffffff38 0a 00000000 00 00 00 00 00 00")
EARLY_WARNING = bytes.fromhex("70 00 40 00000000 0a 00000000 00 02 00 00 00 00")
DEFERRED = bytes.fromhex("71 00 03 00000000 0a 00000000 0c 00 00 00 00 00")
DEFERRED_DESCRIPTOR = bytes.fromhex("73 03 0c 00 00 00 00 00")

KEY = bytes(range(0x40, 0x60))
LOAD = commands.security_protocol_out(
    0x20, 0x10, SecretBytes(bytes.fromhex("00100030 40000202 00") + bytes(9) + b"\0\x20" + KEY)
)
STATUS = commands.security_protocol_in(0x20, 0x20)

# Every code that a drive is documented to give in connection with encryption, by sense key.
DOCUMENTED = {
    0x0: "00/16 00/01 00/02 00/04",
    0x2: "3A/00 3A/04 04/00 04/01 04/02 04/04 04/12 04/13 00/16 30/03 74/10 74/11 74/12 74/30",
    0x3: "3B/00 14/03 0C/00 11/00",
    0x4: "04/03 44/00 53/00",
    0x5: "20/00 24/00 26/00 26/02 26/11 26/12 2C/00 2C/0B 3B/00 3B/0C 55/08 74/08 74/0C 74/0D 74/10"
    " 74/11 74/12 74/21 74/30",
    0x6: "28/00 29/00 29/01 29/03 29/04 29/07 2A/03 2A/04 2A/05 2A/0D 2A/10 2A/11 2A/12 2A/14",
    0x7: "26/10 27/00 2A/13 74/00 74/01 74/02 74/03 74/04 74/05 74/06 74/07 74/09 74/0A 74/0B 74/40"
    " 74/61 74/62 74/63 74/64 74/6E 74/6F 74/71 74/79",
    0x8: "00/05 14/03",
}

# IBM's codes, by sense key; those of key 3 are documented by number only.
IBM_DOCUMENTED = {
    0x0: "EF/13",
    0x5: "EE/00 EE/01 EE/02 EE/0D EE/10 EE/20 EE/21 EE/22 EE/23 EE/24 EE/25 EE/26 EE/27 EE/28 EE/29"
    " EE/2A EE/2B EE/2C EE/2D EE/2E EE/2F EE/30 EE/31 EE/32 EE/42 EE/E2 EE/FF EF/01",
    0x6: "EE/11 EE/12 EE/13 EE/18 EE/19 EE/40 EE/41 EE/50 EE/51 EF/01 EF/10 EF/11 EF/13 EF/1A",
    0x7: "EE/0E EE/0F EF/10 EF/11 EF/13 EF/1A EF/31 EF/C0",
}


def senses(table: dict[int, str]) -> list[Sense]:
    return [
        Sense(key, int(pair[:2], 16), int(pair[3:], 16))
        for key, pairs in table.items()
        for pair in pairs.split()
    ]


def test_field_pointer_into_the_page() -> None:
    sense = Sense.parse(WRONG_INDEX)
    assert sense.code == (5, 0x26, 0x00)
    assert sense.field_pointer == FieldPointer(in_cdb=False, byte=8, bit=7)
    assert sense.information is None
    assert sense.number == "5/26/00"
    assert isinstance(sense.key, SenseKey)


def test_field_pointer_into_the_command() -> None:
    sense = Sense.parse(NO_PAGE)
    assert sense.code == (5, 0x24, 0x00)
    assert sense.field_pointer == FieldPointer(in_cdb=True, byte=2)
    assert sense.information == 0


def test_both_formats_say_the_same() -> None:
    fixed, described = Sense.parse(NO_PAGE), Sense.parse(NO_PAGE_DESCRIPTOR)
    assert fixed.code == described.code
    assert fixed.field_pointer == described.field_pointer
    assert described.information is None


@pytest.mark.parametrize("data", [FILEMARK, FILEMARK_DESCRIPTOR])
def test_filemark(data: bytes) -> None:
    sense = Sense.parse(data)
    assert sense.code == (0, 0, 1)
    assert (sense.filemark, sense.eom, sense.ili) == (True, False, False)
    assert sense.information == 100


def test_information_is_signed() -> None:
    sense = Sense.parse(LONG_BLOCK)
    assert sense.ili
    assert sense.information == -200


def test_early_warning() -> None:
    assert Sense.parse(EARLY_WARNING).eom


@pytest.mark.parametrize("data", [DEFERRED, DEFERRED_DESCRIPTOR])
def test_deferred(data: bytes) -> None:
    sense = Sense.parse(data)
    assert sense.deferred
    assert sense.code == (3, 0x0C, 0)


def test_unknown_codes_are_kept() -> None:
    sense = Sense.parse(bytes.fromhex("70 00 0c 00000000 0a 00000000 b7 c3 00 00 00 00"))
    assert sense.code == (0xC, 0xB7, 0xC3)
    assert explain(sense).text.endswith("C/B7/C3")


def test_field_pointer_belongs_to_illegal_request_only() -> None:
    progress = bytes.fromhex("70 00 02 00000000 0a 00000000 04 04 00 80 40 00")
    assert Sense.parse(progress).field_pointer is None


def test_the_length_it_gives_counts() -> None:
    short = WRONG_INDEX[:7] + b"\x06" + WRONG_INDEX[8:]
    assert Sense.parse(short).code == (5, 0x26, 0x00)
    assert Sense.parse(short).field_pointer is None
    assert Sense.parse(WRONG_INDEX[:7] + b"\0" + WRONG_INDEX[8:]).code == (5, 0, 0)


@pytest.mark.parametrize(
    "data",
    ["", "70", "7000", "72", "00" * 18, "7f00050000000a", "6f00050000000a", "f4 00 05 00"],
)
def test_what_is_no_sense(data: str) -> None:
    with pytest.raises(ParseError):
        Sense.parse(bytes.fromhex(data))


@given(st.sampled_from([0x70, 0x71, 0x72, 0x73, 0xF0, 0xF1, 0xF2, 0xF3, 0x7F]), st.binary())
def test_hostile_sense(code: int, rest: bytes) -> None:
    try:
        sense = Sense.parse(bytes((code,)) + rest)
    except ParseError:
        return
    assert all(0 <= number <= 0xFF for number in sense.code)
    assert refused("/dev/sg3", LOAD, sense).sense is sense


@given(
    deferred=st.booleans(),
    key=st.integers(0, 15),
    code=st.integers(0, 0xFFFF),
    information=st.none() | st.integers(-(1 << 31), (1 << 31) - 1),
    flags=st.integers(0, 7),
)
def test_fixed_and_descriptor_format_agree(
    deferred: bool, key: int, code: int, information: int | None, flags: int
) -> None:
    valid = 0x80 if information is not None else 0
    number = information or 0
    fixed = bytes((0x70 + deferred | valid, 0, flags << 5 | key)) + number.to_bytes(4, signed=True)
    fixed += b"\x0a" + bytes(4) + code.to_bytes(2) + bytes(4)
    body = bytes((0, 10, valid, 0)) + number.to_bytes(8, signed=True) + bytes((4, 2, 0, flags << 5))
    described = (
        bytes((0x72 + deferred, key)) + code.to_bytes(2) + bytes((0, 0, 0, len(body))) + body
    )
    one, other = Sense.parse(fixed), Sense.parse(described)
    assert one.raw == fixed
    assert one.code == other.code == (key, code >> 8, code & 0xFF)
    assert one.deferred is other.deferred is deferred
    assert one.information == other.information == information
    assert (one.filemark, one.eom, one.ili) == (other.filemark, other.eom, other.ili)


def test_matches() -> None:
    sense = Sense(SenseKey.NOT_READY, 0x3A, 0x04)
    assert sense.matches(2, 0x3A)
    assert sense.matches(2, 0x3A, 4)
    assert not sense.matches(2, 0x3A, 0)
    assert not sense.matches(6, 0x3A)
    assert Sense(6, 0x28, 0).is_unit_attention
    assert not sense.is_unit_attention


@pytest.mark.parametrize("sense", senses(DOCUMENTED), ids=lambda sense: sense.number)
def test_documented_codes_have_words(sense: Sense) -> None:
    text = explain(sense).text
    assert "not known" not in text
    assert sense.number not in text


@pytest.mark.parametrize("sense", senses(IBM_DOCUMENTED), ids=lambda sense: sense.number)
def test_ibm_codes_say_who_manages_the_keys(sense: Sense) -> None:
    text, advice = explain(sense)
    assert IBM_BY_CODE[sense.asc, sense.ascq] in text
    assert advice == MANAGED


@pytest.mark.parametrize("ascq", [0x60, 0xD0, 0xD1, 0xE0, 0xE1, 0xF0, 0xF1])
def test_ibm_codes_without_words(ascq: int) -> None:
    assert explain(Sense(3, 0xEE, ascq)).advice == MANAGED


def test_the_sense_key_decides_where_it_matters() -> None:
    assert "loaded since" in explain(Sense(6, 0x28, 0)).text
    assert "3592" in explain(Sense(7, 0x27, 0)).advice
    assert "3592" not in explain(Sense(5, 0x27, 0)).advice
    assert "cleaning" in explain(Sense(2, 0x30, 3)).text


def test_the_texts_are_parts_of_sentences() -> None:
    for text, advice in (*BY_KEY.values(), *BY_CODE.values()):
        assert text
        assert not text.endswith(".")
        assert not advice.endswith(".")
        assert not advice or advice[0].isupper()


def test_refusal_names_the_field_of_the_page() -> None:
    error = refused("/dev/sg3", LOAD, Sense.parse(WRONG_INDEX))
    assert str(error) == (
        "/dev/sg3: SECURITY PROTOCOL OUT 20h/0010h was refused: the drive does not accept a field"
        " of the data sent (5/26/00); the drive points at ALGORITHM INDEX, byte 8, bit 7, of the"
        " page Set Data Encryption"
    )
    assert error.hint == "Compare the field with what the drive's capabilities allow"
    assert error.exit_code == 5


def test_refusal_names_the_field_of_the_command() -> None:
    error = refused("/dev/sg3", STATUS, Sense.parse(NO_PAGE))
    assert str(error).endswith("SECURITY PROTOCOL SPECIFIC, byte 2 of the command")
    unknown = refused("/dev/sg3", commands.rewind(), Sense.parse(NO_PAGE))
    assert str(unknown).endswith("points at byte 2 of the command")


def test_refusal_of_other_data() -> None:
    sense = Sense(5, 0x26, 0, field_pointer=FieldPointer(in_cdb=False, byte=4))
    error = refused("/dev/sg3", commands.write_attribute(bytes(9)), sense)
    assert str(error).endswith("points at byte 4 of the data sent")


def test_refusal_never_shows_the_key() -> None:
    error = refused("/dev/sg3", LOAD, Sense(5, 0x26, 0, field_pointer=FieldPointer(False, 20)))
    shown = f"{error} {error.hint} {error!r} {error.args}"
    assert KEY.hex() not in shown.lower()
    assert repr(KEY)[2:-1] not in shown
    assert "KEY or one of the KAD descriptors" in str(error)


@pytest.mark.parametrize(
    ("sense", "words"),
    [
        (Sense(6, 0x28, 0), "TEST UNIT READY was not run: a medium was loaded"),
        (Sense(0, 0, 1, filemark=True), "stopped early: a filemark was met (0/00/01)"),
        (Sense(0, 0, 0, ili=True), "stopped early: the block has another length"),
        (Sense(3, 0x0C, 0, deferred=True), "found that an earlier command had failed"),
        (Sense(8, 0, 5), "stopped early: the end of the data was met (8/00/05)"),
        (Sense(0xB, 0x4E, 0), "was aborted: two commands overlapped"),
    ],
)
def test_other_ends_are_no_refusals(sense: Sense, words: str) -> None:
    error = refused("/dev/sg3", commands.test_unit_ready(), sense, b"data")
    assert words in str(error)
    assert error.data == b"data"


@pytest.mark.parametrize(
    ("offset", "bit", "name"),
    [
        (0, None, "PAGE CODE"),
        (3, None, "PAGE LENGTH"),
        (4, 7, "SCOPE"),
        (4, 0, "LOCK"),
        (5, 7, "CEEM"),
        (5, 5, "RDMC"),
        (5, 3, "SDK"),
        (5, 2, "CKOD"),
        (5, 1, "CKORP"),
        (5, 0, "CKORL"),
        (6, None, "ENCRYPTION MODE"),
        (7, 7, "DECRYPTION MODE"),
        (8, None, "ALGORITHM INDEX"),
        (9, None, "KEY FORMAT"),
        (10, None, "KAD FORMAT"),
        (17, None, "a reserved field"),
        (19, None, "KEY LENGTH"),
    ],
)
def test_fields_of_set_data_encryption(offset: int, bit: int | None, name: str) -> None:
    assert field_at(offset, bit) == name


def test_fields_that_share_a_byte() -> None:
    assert "CKOD" in field_at(5)
    assert field_at(0xFFFF).startswith("KEY")
