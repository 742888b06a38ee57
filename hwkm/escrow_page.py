"""A share of an escrow key as a page to print: words to type, and a QR code to scan. Pure."""

from __future__ import annotations

import io
from html import escape
from typing import TYPE_CHECKING

import segno

if TYPE_CHECKING:
    from hwkm.escrow import Share

COLUMNS = 3
_STYLE = """
@page { size: A4; margin: 20mm }
body { font: 12pt/1.4 serif; max-width: 170mm; margin: auto; color: #000; background: #fff }
td { font: 14pt monospace; padding: 0.5mm 6mm 0.5mm 0 }
td:nth-child(odd) { font-size: 9pt; text-align: right; padding-right: 2mm }
code { font-size: 10pt; overflow-wrap: anywhere }
svg { width: 60mm; height: 60mm; float: right }
"""


def page(share: Share, recipient_id: bytes, made: str) -> str:
    """Return one share as an HTML page that needs nothing from elsewhere.

    ``made`` is what the page says about time and place. The page is as secret as the share.
    """
    words = share.words.expose().decode("ascii").split()
    what = f"Share {share.number} of {share.count}"
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f"<title>hwkm escrow key, {what.lower()}</title>",
            f"<style>{_STYLE}</style></head><body>",
            _qr_code(words),
            f"<h1>{what}</h1>",
            f"<p>{_enough(share)} of the key that opens backups when no token is left.",
            f"It was made {escape(made)}. Escrow key:</p>",
            f"<p><code>{_grouped(recipient_id)}</code></p>",
            _table(words),
            "<p>In a disaster: install hwkm on any machine and run <code>hwkm escrow open</code>.",
            "Type the words, their first four letters are enough, or scan the code. The words are",
            "SLIP-39's, so any program for that gives the 32 bytes of the key back, too.</p>",
            "<p>Keep this page by itself: never beside another share, never in a computer.</p>",
            "</body></html>",
            "",
        )
    )


def _enough(share: Share) -> str:
    if share.threshold == 1:
        return "This page alone is the whole"
    return f"Any {share.threshold} of the {share.count} shares together are the whole"


def _grouped(recipient_id: bytes) -> str:
    return recipient_id.hex(" ", 4)


def _table(words: list[str]) -> str:
    """Return the words, numbered down each column."""
    height = -(-len(words) // COLUMNS)
    rows = []
    for row in range(height):
        places = range(row, len(words), height)
        cells = (f"<td>{place + 1}</td><td>{escape(words[place])}</td>" for place in places)
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _qr_code(words: list[str]) -> str:
    """Return the words as a QR code: in capitals, which it can hold in fewer dots."""
    out = io.BytesIO()
    code = segno.make_qr(" ".join(words).upper(), error="M")
    code.save(out, kind="svg", xmldecl=False, svgns=True, omitsize=True, border=4)
    return out.getvalue().decode("ascii").strip()
