"""Other processes: hwkm itself, Python programs of this folder, and strace around them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
SECONDS = 120
HWKM = (sys.executable, "-m", "hwkm")


def run(
    *command: str, env: Mapping[str, str] | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` to its end, whatever that is, with ``text`` as its standard input."""
    return subprocess.run(
        command,
        input=text,
        env={**os.environ, **(env or {})},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def hwkm(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return run(*HWKM, *arguments, env=env)


def program(name: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a program of this folder."""
    return (sys.executable, "-m", f"tests.softhsm.{name}", *arguments)
