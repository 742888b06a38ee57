"""SoftHSM with its own configuration and token directory."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from . import TokenUnderTest, require_packages
from .processes import run_tool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
USER_PIN = "1234"
SO_PIN = "12345678"


@contextmanager
def running(directory: Path, label: str = "hwkm-softhsm") -> Iterator[TokenUnderTest]:
    """Yield a new SoftHSM token; its files are in ``directory``. There is nothing to stop."""
    require_packages()
    yield add_token({"SOFTHSM2_CONF": str(_configure(directory))}, label)


def add_token(env: Mapping[str, str], label: str) -> TokenUnderTest:
    """Make another token in the SoftHSM whose SOFTHSM2_CONF is in ``env``."""
    pins = ("--so-pin", SO_PIN, "--pin", USER_PIN)
    run_tool("softhsm2-util", "--init-token", "--free", "--label", label, *pins, env=env)
    return TokenUnderTest(
        name="softhsm",
        module_path=MODULE,
        token_label=label,
        serial=_serial(env, label),
        user_pin=USER_PIN,
        so_pin=SO_PIN,
        env=dict(env),
        can_generate_secret=True,
        has_gcm=True,
        has_oaep_sha256=False,
        can_restrict_rsa=True,
        rsa_bits=3072,
    )


def _configure(directory: Path) -> Path:
    tokens = directory.resolve() / "tokens"
    tokens.mkdir(mode=0o700)
    configuration = directory.resolve() / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    return configuration


def _serial(env: Mapping[str, str], label: str) -> str:
    for slot in run_tool("softhsm2-util", "--show-slots", env=env).split("\nSlot "):
        if re.search(rf"^\s+Label:\s+{re.escape(label)}\s*$", slot, re.MULTILINE):
            found = re.search(r"^\s+Serial number:\s+(\S+)", slot, re.MULTILINE)
            if found:
                return found[1]
    raise RuntimeError(f"softhsm2-util does not show the token {label}")
