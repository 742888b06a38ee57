"""Changes a token's PIN as ``hwkm token change-pin`` does. Arguments: a site, and the new PIN."""

from __future__ import annotations

import sys

from hwkm.errors import HwkmError
from hwkm.keys import SecretBytes
from hwkm.token.change_pin import change_pin_file

from .sites import child_session


def main(described: str, new: str) -> None:
    token = child_session(described)
    try:
        change_pin_file(token.settings, token._access, SecretBytes(new.encode()))
        print("changed")
    except HwkmError as error:
        print(f"{error.exit_code}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
