"""Builds PKCS#11 modules that misbehave on demand: shim.c, and others of that kind."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
FLAGS = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC")


def build(folder: Path, source: Path = SOURCE) -> Path:
    """Compile the module into ``folder`` and return its path."""
    module = folder / f"{source.stem}.so"
    command = ["gcc", *FLAGS, "-o", str(module), str(source), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"gcc (Debian: gcc libc6-dev) can't build {source}:\n{done.stderr}")
    module.chmod(0o755)
    return module
