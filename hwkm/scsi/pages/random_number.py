"""Page 0030h, Random Number (SSC-5)."""

from __future__ import annotations

from dataclasses import dataclass, field

from hwkm.scsi.pages.base import HEAD_BYTES, PageIn, open_page

NUMBER_BYTES = 32


@dataclass(frozen=True, slots=True)
class RandomNumber:
    """32 random bytes of the drive's making, not shown; never enough for a key on their own."""

    number: bytes = field(repr=False)
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> RandomNumber:
        """Read the page.

        :raises ParseError: if it is another page, or has less than 32 random bytes.
        """
        least = HEAD_BYTES + NUMBER_BYTES
        page, problems = open_page(data, PageIn.RANDOM_NUMBER, least)
        return cls(page[HEAD_BYTES:least], problems)
