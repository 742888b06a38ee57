"""Opens a session, prints the token's serial, closes it. Argument: a site."""

from __future__ import annotations

import sys

from hwkm.errors import HwkmError

from .sites import child_session


def main(described: str) -> None:
    try:
        with child_session(described) as token:
            print(token.info.serial)
    except HwkmError as error:
        print(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
