"""Key-associated data."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.scsi.pages.kad import Authentication, Kad, KadType, find_kad, pack_kads, parse_kads

HELLO = bytes.fromhex("00 01 00 0C 48 65 6C 6C 6F 20 77 6F 72 6C 64 21")

kads = st.lists(
    st.builds(Kad, st.integers(0, 255), st.binary(max_size=64)),
    max_size=6,
    unique_by=lambda kad: kad.type,
)


def test_parse() -> None:
    found, problems = parse_kads(HELLO)
    assert found == (Kad(KadType.U_KAD, b"Hello world!", Authentication.NOT_COVERED),)
    assert problems == ()


def test_reserved_bits_are_not_authentication() -> None:
    found, _ = parse_kads(bytes.fromhex("01 FB 0001 41"))
    assert found == (Kad(KadType.A_KAD, b"A", Authentication.AUTHENTICATED),)


def test_unknown_numbers_are_kept() -> None:
    found, problems = parse_kads(bytes.fromhex("09 06 0001 41"))
    assert found == (Kad(9, b"A", 6),)
    assert problems == ()


def test_nothing() -> None:
    assert parse_kads(b"") == ((), ())


@pytest.mark.parametrize("end", range(1, 16))
def test_cut_off(end: int) -> None:
    assert parse_kads(HELLO[:end]) == ((), ("the last KAD is cut off",))


@pytest.mark.parametrize("tail", [b"\0", b"\1\0\0", b"\1\0\0\x01", b"\1\0\xff\xffABC"])
def test_second_cut_off(tail: bytes) -> None:
    found, problems = parse_kads(HELLO + tail)
    assert [kad.value for kad in found] == [b"Hello world!"]
    assert problems == ("the last KAD is cut off",)


def test_type_twice() -> None:
    found, problems = parse_kads(HELLO + HELLO + bytes.fromhex("07 00 0000 07 00 0000"))
    assert len(found) == 4
    assert problems == (
        "U-KAD stands more than once",
        "the KAD of type 7 stands more than once",
    )


def test_many_empty_ones_take_no_time() -> None:
    begin = time.monotonic()
    found, _ = parse_kads(bytes(4) * 16_000)
    assert len(found) == 16_000
    assert time.monotonic() - begin < 5


def test_find() -> None:
    found = (Kad(KadType.U_KAD, b"label"), Kad(KadType.A_KAD, b"id"))
    assert find_kad(found, KadType.A_KAD) == b"id"
    assert find_kad(found, KadType.M_KAD) is None


def test_packed_by_ascending_type() -> None:
    packed = pack_kads([Kad(KadType.A_KAD, b"id"), Kad(KadType.U_KAD, b"label")])
    assert packed == bytes.fromhex("00 00 0005 6C6162656C 01 00 0002 6964")


def test_authenticated_is_the_drives_to_say() -> None:
    assert pack_kads([Kad(KadType.A_KAD, b"", Authentication.FAILED)]) == bytes.fromhex("01000000")


def test_packing_a_type_twice() -> None:
    with pytest.raises(ValueError, match=r"^A-KAD stands more than once$"):
        pack_kads([Kad(KadType.A_KAD, b"1"), Kad(1, b"2")])


@pytest.mark.parametrize(
    ("kind", "size", "authenticated"), [(256, 0, 0), (-1, 0, 0), (0, 65536, 0), (0, 0, 8)]
)
def test_out_of_range(kind: int, size: int, authenticated: int) -> None:
    with pytest.raises(ValueError, match="KAD"):
        Kad(kind, bytes(size), authenticated)


def test_labels() -> None:
    assert [kind.label for kind in KadType] == ["U-KAD", "A-KAD", "nonce", "M-KAD", "WK-KAD"]


@given(kads)
def test_round_trip(some: list[Kad]) -> None:
    found, problems = parse_kads(pack_kads(some))
    assert list(found) == sorted(some, key=lambda kad: kad.type)
    assert problems == ()


@given(st.binary(max_size=128))
def test_noise(data: bytes) -> None:
    found, problems = parse_kads(data)
    size = sum(4 + len(kad.value) for kad in found)
    assert size == len(data) or "the last KAD is cut off" in problems
