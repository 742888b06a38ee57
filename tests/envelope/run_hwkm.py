"""Runs hwkm on many envelopes, in a process of its own, as run_decoder.py runs the decoder."""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwkm.envelope import Envelope, MacError, NoRecipientError, StanzaError
from hwkm.errors import HwkmError, ParseError
from hwkm.recipients import open_envelope
from hwkm.recipients.token import TokenIdentity

from .cases import MAC_FAILURE, MALFORMED, NO_RECIPIENT, STANZA_FAILURE
from .tokens import open_token

if TYPE_CHECKING:
    from hwkm.token.session import TokenSession

EXPECTATIONS: dict[type[HwkmError], str] = {
    ParseError: MALFORMED,
    NoRecipientError: NO_RECIPIENT,
    StanzaError: STANZA_FAILURE,
    MacError: MAC_FAILURE,
}


def main() -> None:
    asked = json.load(sys.stdin)
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        pin = directory / "pin"
        pin.touch(mode=0o600)
        pin.write_text(asked["pin"])
        for entry in asked["envelopes"]:
            with open_token(asked["module"], entry["token"], pin, {}) as token:
                outcomes.append(outcome(token, base64.b64decode(entry["envelope"])))
    json.dump(outcomes, sys.stdout)


def outcome(token: TokenSession, data: bytes) -> dict[str, Any]:
    """Return what comes of an envelope, as plain values.

    No traceback gets out: its frames hold keys of a module that was unloaded, and showing one of
    these ends the process.
    """
    try:
        opened = open_envelope(Envelope.parse(data), [TokenIdentity(token)])
    except HwkmError as error:
        return {"expect": EXPECTATIONS.get(type(error), type(error).__name__), "text": str(error)}
    return {
        "expect": "success",
        "key": opened.key.expose().hex(),
        "opened_by": opened.stanza.recipient_id.hex(),
    }


if __name__ == "__main__":
    main()
