"""Has a session open, and says so, until standard input ends. Argument: a site."""

from __future__ import annotations

import sys

from .sites import child_session


def main(described: str) -> None:
    with child_session(described) as token:
        assert token.info.initialized
        print("open", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
