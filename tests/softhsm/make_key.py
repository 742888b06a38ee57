"""Makes a master key in a token, and says so. Arguments: a site, a scheme, an id in hex."""

from __future__ import annotations

import sys

from hwkm.envelope import Scheme
from hwkm.token import master

from .sites import child_session


def main(described: str, scheme: str, key_id: str) -> None:
    with child_session(described, writable=True) as token:
        assert token.info.initialized
        print("logged in", flush=True)
        master.generate(token, Scheme.from_label(scheme), bytes.fromhex(key_id), "made")
        print("made", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
