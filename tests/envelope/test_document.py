"""What docs/envelope-format.md says is what the code does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from hwkm import envelope as envelopes
from hwkm.envelope import Scheme
from hwkm.keys import Cipher

from . import DOCUMENT, document

if TYPE_CHECKING:
    from .tokens import VectorTokens

TEXT = DOCUMENT.read_text("utf-8")


def test_the_size_table(vector_tokens: VectorTokens) -> None:
    assert document.section("sizes") == document.size_table(vector_tokens)


def test_the_hexdump() -> None:
    assert document.section("hexdump") == document.hexdump()


def test_three_rsa_stanzas() -> None:
    assert document.longest_name(385, 3) == 0
    assert f"up to {document.longest_name(257, 3)} bytes" in TEXT
    assert document.longest_name(385, 2) == 127


def test_the_limits() -> None:
    for limit in (
        envelopes.MAX_ENVELOPE_BYTES,
        envelopes.MAX_STANZAS,
        envelopes.MAX_RECIPIENT_ID_BYTES,
        envelopes.MAX_BLOB_BYTES,
        envelopes.MAX_VOLUME_BYTES,
        envelopes.MAX_LABEL_BYTES,
    ):
        assert re.search(rf"\b{limit:,}\b", TEXT), limit
    assert envelopes.MAX_GENERATION == 2**32 - 1
    assert f"{envelopes.MAX_CREATED}" in TEXT


@pytest.mark.parametrize("numbered", [*Cipher, *Scheme])
def test_numbers_and_names(numbered: Cipher | Scheme) -> None:
    name = numbered.label if isinstance(numbered, Scheme) else numbered.name
    assert re.search(rf"^\| {numbered.value} \| `{re.escape(name)}` \|", TEXT, re.MULTILINE)
