"""Page 0012h, Data Encryption Management Capabilities (SSC-5)."""

from __future__ import annotations

from dataclasses import dataclass

from hwkm.scsi.pages.base import PageIn, flag, open_page

LEAST_BYTES = 8
"""Up to the last byte with a field in it; eight reserved ones follow."""


@dataclass(frozen=True, slots=True)
class ManagementCapabilities:
    """What ties a key to something: LOCK, the three "clear key on" bits, and the scopes.

    ``ckod``: on demount; ``ckorp``: on reservation preempted; ``ckorl``: on reservation lost.
    """

    lock: bool
    ckod: bool
    ckorp: bool
    ckorl: bool
    all_i_t_nexus: bool
    local: bool
    public: bool
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> ManagementCapabilities:
        """Read the page.

        :raises ParseError: if it is another page, or shorter than eight bytes.
        """
        page, problems = open_page(data, PageIn.MANAGEMENT_CAPABILITIES, LEAST_BYTES)
        return cls(
            lock=flag(page[4], 0),
            ckod=flag(page[5], 2),
            ckorp=flag(page[5], 1),
            ckorl=flag(page[5], 0),
            all_i_t_nexus=flag(page[7], 2),
            local=flag(page[7], 1),
            public=flag(page[7], 0),
            problems=problems,
        )
