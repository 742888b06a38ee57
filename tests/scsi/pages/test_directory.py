"""Lists of protocols, pages and key formats; certificate; management capabilities."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwkm.errors import ParseError
from hwkm.scsi.pages.base import PageIn
from hwkm.scsi.pages.directory import (
    Certificate,
    KeyFormat,
    KeyFormats,
    SupportedPages,
    SupportedProtocols,
)
from hwkm.scsi.pages.management import ManagementCapabilities
from tests.scsi.pages import vectors
from tests.scsi.pages.hostile import hostile, survives

PEM = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def test_protocols() -> None:
    assert SupportedProtocols.parse(vectors.MHVTL_PROTOCOLS) == SupportedProtocols((0x00, 0x20))


def test_protocols_cut_off() -> None:
    found = SupportedProtocols.parse(vectors.MHVTL_PROTOCOLS[:9])
    assert found.protocols == (0x00,)
    assert found.problems == ("the list of security protocols announces 10 bytes, 9 came",)


@pytest.mark.parametrize("end", range(8))
def test_protocols_without_head(end: int) -> None:
    with pytest.raises(ParseError, match=f"^the list of security protocols has {end} bytes"):
        SupportedProtocols.parse(vectors.MHVTL_PROTOCOLS[:end])


def test_no_certificate() -> None:
    assert Certificate.parse(vectors.NO_CERTIFICATE) == Certificate(b"")


def test_certificate_as_it_comes() -> None:
    page = bytes(2) + len(PEM).to_bytes(2) + PEM
    assert Certificate.parse(page) == Certificate(PEM)


def test_certificate_cut_off() -> None:
    found = Certificate.parse(bytes.fromhex("0000 05A0") + PEM)
    assert found.data == PEM
    assert found.problems == (f"the certificate's page announces 1444 bytes, {len(PEM) + 4} came",)


@pytest.mark.parametrize("end", range(4))
def test_certificate_without_head(end: int) -> None:
    with pytest.raises(ParseError, match="not even a head"):
        Certificate.parse(bytes(end))


def test_pages_in() -> None:
    found = SupportedPages.parse(vectors.MHVTL_IN_SUPPORT)
    assert found == SupportedPages((0x00, 0x01, 0x10, 0x11, 0x12, 0x20, 0x21))
    assert PageIn.STATUS in found.pages
    assert PageIn.WRAPPING_PUBLIC_KEY not in found.pages


def test_pages_out() -> None:
    found = SupportedPages.parse(vectors.OUT_SUPPORT, PageIn.OUT_SUPPORT)
    assert found == SupportedPages((0x10,))


def test_pages_of_the_other_direction() -> None:
    with pytest.raises(ParseError, match=r"^the drive gave page 0001h instead of 0000h$"):
        SupportedPages.parse(vectors.OUT_SUPPORT)


def test_half_a_page_code() -> None:
    found = SupportedPages.parse(bytes.fromhex("0000 0005 0000 0001 00"))
    assert found == SupportedPages((0, 1), ("page 0000h ends with half a page code",))


def test_key_formats() -> None:
    assert KeyFormats.parse(vectors.T10000_KEY_FORMATS) == KeyFormats((KeyFormat.PLAIN,))


def test_key_format_given_twice() -> None:
    assert KeyFormats.parse(vectors.MHVTL_KEY_FORMATS) == KeyFormats((KeyFormat.PLAIN,))


def test_all_key_formats_and_one_nobody_knows() -> None:
    found = KeyFormats.parse(bytes.fromhex("0011 0005 00 01 02 03 80"))
    assert found.formats == (*KeyFormat, 0x80)


def test_management() -> None:
    found = ManagementCapabilities.parse(vectors.HP_LTO_5_MANAGEMENT)
    assert found == ManagementCapabilities(
        lock=True,
        ckod=True,
        ckorp=True,
        ckorl=True,
        all_i_t_nexus=True,
        local=True,
        public=True,
    )


@pytest.mark.parametrize(
    ("at", "bit", "name"),
    [
        (4, 0x01, "lock"),
        (5, 0x04, "ckod"),
        (5, 0x02, "ckorp"),
        (5, 0x01, "ckorl"),
        (7, 0x04, "all_i_t_nexus"),
        (7, 0x02, "local"),
        (7, 0x01, "public"),
    ],
)
def test_management_bit_by_bit(at: int, bit: int, name: str) -> None:
    page = bytearray(bytes.fromhex("0012 000C") + bytes(12))
    page[at] = bit
    found = ManagementCapabilities.parse(bytes(page))
    bits = ("lock", "ckod", "ckorp", "ckorl", "all_i_t_nexus", "local", "public")
    assert [one for one in bits if getattr(found, one)] == [name]


def test_management_too_short() -> None:
    with pytest.raises(ParseError, match="at least 8 are needed"):
        ManagementCapabilities.parse(vectors.HP_LTO_5_MANAGEMENT[:7])


@given(hostile(vectors.MHVTL_PROTOCOLS, vectors.MHVTL_IN_SUPPORT, vectors.T10000_KEY_FORMATS))
def test_hostile_lists(data: bytes) -> None:
    survives(SupportedProtocols.parse, data)
    survives(Certificate.parse, data)
    survives(SupportedPages.parse, data)
    survives(KeyFormats.parse, data)


@given(hostile(vectors.HP_LTO_5_MANAGEMENT))
def test_hostile_management(data: bytes) -> None:
    survives(ManagementCapabilities.parse, data)


@given(st.lists(st.integers(0, 0xFFFF), max_size=20))
def test_any_list_of_pages(codes: list[int]) -> None:
    body = b"".join(code.to_bytes(2) for code in codes)
    found = SupportedPages.parse(bytes(2) + len(body).to_bytes(2) + body)
    assert found == SupportedPages(tuple(codes))
