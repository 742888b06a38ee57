"""Initialises a token as ``hwkm token init`` does. Argument: a request, as :func:`described`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hwkm.token.initialize import TokenRequest, initialize_token


def described(request: TokenRequest) -> str:
    """Return ``request`` as this program's argument."""
    facts = [request.module_path, dict(request.environment), request.slot_id, request.label]
    return json.dumps([*facts, str(request.pin_file), str(request.so_pin_file)])


def main(description: str) -> None:
    module_path, environment, slot_id, label, pin_file, so_pin_file = json.loads(description)
    files = (Path(pin_file), Path(so_pin_file))
    print(initialize_token(TokenRequest(module_path, environment, slot_id, label, *files)))


if __name__ == "__main__":
    main(*sys.argv[1:])
