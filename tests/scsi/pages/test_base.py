"""The head of pages, bits and unknown numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.errors import ParseError
from hwkm.scsi.pages.base import PageIn, bits, flag, member, open_page


def page(body: bytes, length: int | None = None) -> bytes:
    return bytes((0x00, 0x20)) + (len(body) if length is None else length).to_bytes(2) + body


def test_honest_page() -> None:
    assert open_page(page(b"abc"), 0x20) == (page(b"abc"), ())


def test_announces_more_than_came() -> None:
    found, problems = open_page(page(b"abc", 15), 0x20)
    assert found == page(b"abc", 15)
    assert problems == ("page 0020h announces 19 bytes, 7 came",)


def test_announces_less_than_came() -> None:
    found, problems = open_page(page(b"abcdef", 3), 0x20)
    assert found == page(b"abc")
    assert problems == ("page 0020h announces 7 bytes, 10 came",)


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\x20", b"\0\x20\0"])
def test_no_head(data: bytes) -> None:
    with pytest.raises(ParseError, match=rf"^page 0020h has {len(data)} bytes, not even a head$"):
        open_page(data, 0x20)


def test_another_page() -> None:
    with pytest.raises(ParseError, match=r"^the drive gave page 0020h instead of 0021h$"):
        open_page(page(b""), 0x21)


@pytest.mark.parametrize("data", [page(b"abc"), page(b"abcdef", 3), page(b"abc", 99)])
def test_fixed_fields_missing(data: bytes) -> None:
    with pytest.raises(ParseError, match=r"^page 0020h has 7 bytes, at least 8 are needed$"):
        open_page(data, 0x20, 8)


def test_fixed_fields_there() -> None:
    assert open_page(page(b"abc"), 0x20, 7) == (page(b"abc"), ())


@given(st.binary(max_size=64), st.integers(0, 0xFFFF), st.integers(4, 40))
def test_never_more_than_came(body: bytes, length: int, least: int) -> None:
    try:
        found, problems = open_page(page(body, length), 0x20, least)
    except ParseError:
        assert min(len(body), length) + 4 < least
    else:
        assert found == page(body, length)[: length + 4]
        assert len(found) >= least
        assert bool(problems) == (length != len(body))


@pytest.mark.parametrize(
    ("high", "low", "value"),
    [(7, 7, 1), (7, 5, 0b101), (6, 4, 0b010), (3, 0, 0b0110), (2, 1, 0b11), (7, 0, 0b10100110)],
)
def test_bits(high: int, low: int, value: int) -> None:
    assert bits(0b1010_0110, high, low) == value


def test_flag() -> None:
    assert [bit for bit in range(8) if flag(0b1010_0110, bit)] == [1, 2, 5, 7]


def test_member() -> None:
    assert member(PageIn, 0x31) is PageIn.WRAPPING_PUBLIC_KEY
    assert member(PageIn, 0x32) == 0x32
