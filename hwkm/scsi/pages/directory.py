"""What the drive offers: protocols, certificate, pages and key formats (SPC-5, SSC-5)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique

from hwkm.errors import ParseError
from hwkm.scsi.pages.base import HEAD_BYTES, PageIn, compare_length, member, open_page

PROTOCOLS_HEAD_BYTES = 8
"""Six reserved bytes and the length of the list."""


@unique
class KeyFormat(IntEnum):
    """KEY FORMAT: how the key stands in the page Set Data Encryption."""

    PLAIN = 0
    VENDOR_REFERENCE = 1
    WRAPPED = 2
    ESP_SCSI = 3


@dataclass(frozen=True, slots=True)
class SupportedProtocols:
    """Protocol 00h, page 0000h: the security protocols the drive knows; 20h is tape encryption."""

    protocols: tuple[int, ...]
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> SupportedProtocols:
        """Read the list of protocols, one byte each.

        :raises ParseError: if not even the eight bytes of its head are there.
        """
        if len(data) < PROTOCOLS_HEAD_BYTES:
            raise ParseError(f"the list of security protocols has {len(data)} bytes, not a head")
        end = PROTOCOLS_HEAD_BYTES + int.from_bytes(data[6:8])
        problems = compare_length("the list of security protocols", end, len(data))
        return cls(tuple(data[PROTOCOLS_HEAD_BYTES:end]), problems)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Protocol 00h, page 0001h: the drive's certificate, DER or PEM as it comes; b"" if none."""

    data: bytes
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Certificate:
        """Read the certificate; what it says is not looked at.

        :raises ParseError: if not even the four bytes of its head are there.
        """
        if len(data) < HEAD_BYTES:
            raise ParseError(f"the page of the certificate has {len(data)} bytes, not even a head")
        end = HEAD_BYTES + int.from_bytes(data[2:4])
        return cls(data[HEAD_BYTES:end], compare_length("the certificate's page", end, len(data)))


@dataclass(frozen=True, slots=True)
class SupportedPages:
    """Pages 0000h and 0001h: the codes the drive takes with SECURITY PROTOCOL IN, or OUT."""

    pages: tuple[int, ...]
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes, code: PageIn = PageIn.IN_SUPPORT) -> SupportedPages:
        """Read the list of page codes, two bytes each.

        :param code: IN_SUPPORT or OUT_SUPPORT.
        :raises ParseError: if it is another page.
        """
        page, problems = open_page(data, code)
        if len(page) % 2:
            problems += (f"page {code:04X}h ends with half a page code",)
        codes = range(HEAD_BYTES, len(page) - 1, 2)
        return cls(tuple(int.from_bytes(page[at : at + 2]) for at in codes), problems)


@dataclass(frozen=True, slots=True)
class KeyFormats:
    """Page 0011h: how the drive takes keys, each format once."""

    formats: tuple[KeyFormat | int, ...]
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> KeyFormats:
        """Read the list of key formats, one byte each.

        :raises ParseError: if it is another page.
        """
        page, problems = open_page(data, PageIn.KEY_FORMATS)
        formats = dict.fromkeys(member(KeyFormat, number) for number in page[HEAD_BYTES:])
        return cls(tuple(formats), problems)
