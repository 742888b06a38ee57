"""Builds the PKCS#11 module that misbehaves on demand (shim.c)."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
FLAGS = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC")


def build(folder: Path) -> Path:
    """Compile the module into ``folder`` and return its path."""
    module = folder / "shim.so"
    command = ["gcc", *FLAGS, "-o", str(module), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"gcc (Debian: gcc libc6-dev) can't build {SOURCE}:\n{done.stderr}")
    module.chmod(0o755)
    return module
