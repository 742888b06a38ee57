"""Bytes that no honest drive sends."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from hwkm.errors import ParseError

if TYPE_CHECKING:
    from collections.abc import Callable


def hostile(*pages: bytes) -> st.SearchStrategy[bytes]:
    """Return a strategy of pages that are cut, changed, lengthened, or nothing but noise."""
    page = st.sampled_from(pages)
    return st.one_of(
        st.binary(max_size=96),
        st.builds(lambda one, tail: one[:4] + tail, page, st.binary(max_size=96)),
        st.builds(lambda one, end: one[:end], page, st.integers(0, 96)),
        st.builds(_changed, page, st.integers(0, 1 << 16), st.integers(0, 255)),
        st.builds(lambda one, tail: one + tail, page, st.binary(max_size=16)),
    )


def survives(parse: Callable[[bytes], object], data: bytes) -> None:
    """Parse ``data``: it works or raises ParseError, and nothing else."""
    with suppress(ParseError):
        parse(data)


def _changed(page: bytes, at: int, byte: int) -> bytes:
    at %= len(page)
    return page[:at] + bytes((byte,)) + page[at + 1 :]
