"""The page of a share."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import segno

from hwkm.escrow import join, split
from hwkm.escrow_page import page

from .keys import key

if TYPE_CHECKING:
    from hwkm.escrow import Share

SHARES = split(key())
RECIPIENT = key().recipient.recipient_id


class Cells(HTMLParser):
    """Reads table cells, and notes every element and attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.attributes: set[str] = set()
        self.elements: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, _value in attrs}

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1] == "td" and data.strip():
            self.cells.append(data.strip())


def parsed(share: Share, made: str = "2026-01-01") -> Cells:
    found = Cells()
    found.feed(page(share, RECIPIENT, made))
    return found


def words_on(share: Share) -> list[str]:
    cells = parsed(share).cells[: 2 * 33]
    numbered = dict(zip(map(int, cells[::2]), cells[1::2], strict=True))
    assert sorted(numbered) == list(range(1, 34))
    return [numbered[place] for place in sorted(numbered)]


def test_the_words_are_on_it_in_their_order() -> None:
    read = [" ".join(words_on(share)) for share in SHARES]
    assert read == [share.words.expose().decode() for share in SHARES]
    assert join(read[:2]).seed == key().seed


def test_no_page_has_another_ones_words() -> None:
    other = SHARES[1].words.expose().decode().split()
    assert sum(a == b for a, b in zip(words_on(SHARES[0]), other, strict=True)) < 12


def test_it_says_what_it_is() -> None:
    text = page(SHARES[1], RECIPIENT, "2026-01-01 on host <one>")
    assert "Share 2 of 3" in text
    assert "Any 2 of the 3 shares together" in text
    assert "on host &lt;one&gt;" in text
    assert RECIPIENT.hex() in re.sub(r"\s", "", text)
    (alone,) = split(key(), 1, 1)
    assert "This page alone is the whole" in page(alone, RECIPIENT, "now")


def test_the_code_is_that_of_the_words_in_capitals() -> None:
    """Its dots, read back from the drawing, are those of the same text encoded by itself."""
    words = SHARES[0].words.expose().decode()
    code = segno.make_qr(words.upper(), error="M")
    assert code.mode == "alphanumeric"
    dark = {(x, y) for y, row in enumerate(code.matrix) for x, dot in enumerate(row) if dot}
    assert _dots(page(SHARES[0], RECIPIENT, "now")) == dark


def _dots(text: str) -> set[tuple[int, int]]:
    """Return the dark dots of the page's drawing; it is of horizontal strokes, border 4."""
    (path,) = re.findall(r'<path[^>]* d="([^"]+)"', text)
    found, x, y = set(), 0.0, 0.0
    for command, numbers in re.findall(r"([Mmh])([-\d. ]+)", path):
        values = [float(number) for number in re.findall(r"-?[\d.]+", numbers)]
        if command == "h":
            found |= {(int(x) + step - 4, int(y - 0.5) - 4) for step in range(int(values[0]))}
            x += values[0]
        elif command == "M":
            x, y = values
        else:
            x, y = x + values[0], y + values[1]
    return found


def test_it_needs_nothing_from_elsewhere() -> None:
    for share in SHARES:
        found = parsed(share)
        assert not {"src", "href", "onload"} & found.attributes
        assert not {"script", "link", "img", "iframe", "object"} & set(found.elements)
        assert "url(" not in page(share, RECIPIENT, "now")
