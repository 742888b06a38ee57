"""Runs docs/open_envelope.py on many envelopes, in a process of its own, and says what came out.

It reads one JSON object from standard input (module, PIN, and the envelopes with the label of the
token for each) and writes a list of outcomes to standard output. Each envelope gets a session of
its own: some modules leave one unusable after an error.
"""

from __future__ import annotations

import base64
import json
import runpy
import sys
from typing import Any

import pkcs11

from . import DECODER

open_envelope = runpy.run_path(str(DECODER))["open_envelope"]


def main() -> None:
    asked = json.load(sys.stdin)
    library = pkcs11.lib(asked["module"])
    outcomes = []
    for entry in asked["envelopes"]:
        token = library.get_token(token_label=entry["token"])
        with token.open(user_pin=asked["pin"]) as session:
            outcomes.append(outcome(session, base64.b64decode(entry["envelope"])))
    json.dump(outcomes, sys.stdout)


def outcome(session: pkcs11.Session, data: bytes) -> dict[str, Any]:
    try:
        header, key = open_envelope(session, data)
    except ValueError as error:
        return {"expect": str(error).partition(":")[0], "text": str(error)}
    return {"expect": "success", "header": header, "key": key.hex()}


if __name__ == "__main__":
    main()
