"""Logs in with a runtime directory that is a full or a read-only file system; prints the error.

Run as root of a mount namespace of its own. Arguments: a site, and ``full`` or ``read-only``.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from hwkm.errors import HwkmError

from .sites import child_session

SIZE = "size=128k"


def main(described: str, how: str) -> None:
    runtime_dir = Path(json.loads(described)["runtime_dir"])
    mount("-t", "tmpfs", "-o", SIZE, "tmpfs", str(runtime_dir))
    (runtime_dir / "tokens.lock").touch()
    if how == "full":
        with contextlib.suppress(OSError), (runtime_dir / "big").open("wb", 0) as file:
            while True:
                file.write(bytes(4096))
    else:
        mount("-o", "remount,bind,ro", str(runtime_dir))
    try:
        with child_session(described) as token:
            print("logged in to", token.info.label)
    except HwkmError as error:
        print(f"{error.exit_code}: {error}")


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
