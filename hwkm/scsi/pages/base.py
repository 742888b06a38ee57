"""What all pages share: codes, the four bytes at their head, bits, and numbers nobody knows."""

from __future__ import annotations

from enum import IntEnum, unique
from typing import TypeVar

from hwkm.errors import ParseError

_Number = TypeVar("_Number", bound=IntEnum)

HEAD_BYTES = 4
"""PAGE CODE and PAGE LENGTH, which does not count these four."""

MAX_PAGE_LENGTH = 0xFFFF


@unique
class PageIn(IntEnum):
    """Pages of SECURITY PROTOCOL IN, protocol 20h (SSC-5)."""

    IN_SUPPORT = 0x0000
    OUT_SUPPORT = 0x0001
    CAPABILITIES = 0x0010
    KEY_FORMATS = 0x0011
    MANAGEMENT_CAPABILITIES = 0x0012
    STATUS = 0x0020
    NEXT_BLOCK_STATUS = 0x0021
    ENCRYPTION_MANAGEMENT_ATTRIBUTES = 0x0022
    RANDOM_NUMBER = 0x0030
    WRAPPING_PUBLIC_KEY = 0x0031


@unique
class PageOut(IntEnum):
    """Pages of SECURITY PROTOCOL OUT, protocol 20h (SSC-5)."""

    SET_DATA_ENCRYPTION = 0x0010
    SA_ENCAPSULATION = 0x0011
    SET_ENCRYPTION_MANAGEMENT_ATTRIBUTES = 0x0022


@unique
class InformationPage(IntEnum):
    """Pages of SECURITY PROTOCOL IN, protocol 00h (SPC-5)."""

    SUPPORTED_PROTOCOLS = 0x0000
    CERTIFICATE = 0x0001
    SECURITY_COMPLIANCE = 0x0002


def open_page(data: bytes, code: int, least: int = HEAD_BYTES) -> tuple[bytes, tuple[str, ...]]:
    """Return the page in ``data``, head included and cut to its length, and what is wrong with it.

    A drive that announces more bytes than it sends is believed about those it sent: some models
    do that with every status page.

    :param code: the PAGE CODE it must have.
    :param least: how many bytes its fixed fields take, the head's four included.
    :raises ParseError: if it is another page, or shorter than that.
    """
    if len(data) < HEAD_BYTES:
        raise ParseError(f"page {code:04X}h has {len(data)} bytes, not even a head")
    found, end = int.from_bytes(data[:2]), HEAD_BYTES + int.from_bytes(data[2:4])
    if found != code:
        raise ParseError(f"the drive gave page {found:04X}h instead of {code:04X}h")
    page = data[:end]
    if len(page) < least:
        raise ParseError(f"page {code:04X}h has {len(page)} bytes, at least {least} are needed")
    return page, compare_length(f"page {code:04X}h", end, len(data))


def compare_length(what: str, announced: int, came: int) -> tuple[str, ...]:
    """Return the sentence about ``what`` if not as many bytes came as were announced."""
    if announced == came:
        return ()
    return (f"{what} announces {announced} bytes, {came} came",)


def bits(byte: int, high: int, low: int) -> int:
    """Return bits ``high`` to ``low`` of ``byte``; bit 7 is the most significant."""
    return byte >> low & (1 << high - low + 1) - 1


def flag(byte: int, bit: int) -> bool:
    """Return whether ``bit`` of ``byte`` is set."""
    return bool(byte >> bit & 1)


def member(kind: type[_Number], value: int) -> _Number | int:
    """Return the member of ``kind`` for ``value``, or the number itself if there is none."""
    try:
        return kind(value)
    except ValueError:
        return value
