"""``hwkm envelope``: looking at envelopes without any key."""

from __future__ import annotations

import base64
import binascii
import sys
from typing import Any

import typer

from hwkm.cli.context import JsonOption
from hwkm.cli.output import print_json, time_text
from hwkm.envelope import Envelope
from hwkm.errors import ParseError

app = typer.Typer(help="Look at envelopes.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Look at envelopes."""


@app.command("inspect")
def inspect(as_json: JsonOption = False) -> None:
    """Show what an envelope on standard input says, in base64. Needs no key, proves nothing.

    Example: echo "$ENC_CIPHER_KEY" | hwkm envelope inspect
    """
    data = sys.stdin.buffer.read(65536)
    try:
        envelope = Envelope.parse(base64.b64decode(b"".join(data.split()), validate=True))
    except binascii.Error:
        raise ParseError(
            "standard input is not base64",
            hint="Give it the wrapped key of a volume label (ENC_CIPHER_KEY) in base64",
        ) from None
    shown = _described(envelope)
    if as_json:
        print_json(shown)
        return
    for recipient in shown.pop("recipients"):
        shown[f"recipient {recipient['id']}"] = f"{recipient['scheme']}, {recipient['bytes']} bytes"
    for name, value in shown.items():
        typer.echo(f"{name}: {value}")


def _described(envelope: Envelope) -> dict[str, Any]:
    header = envelope.header
    return {
        "volume": header.volume,
        "generation": header.generation,
        "key_id": header.key_id.hex(),
        "cipher": header.cipher.name,
        "created": time_text(header.created),
        "bytes": len(envelope.encode()),
        "recipients": [
            {"id": s.recipient_id.hex(), "scheme": s.scheme.label, "bytes": len(s.blob)}
            for s in envelope.stanzas
        ],
    }
