"""A private SoftHSM: its configuration and tokens in one folder, apart from the system's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.errors import ConfigError, TokenError
from hwkm.token import seal, vendor
from hwkm.token.module import loaded
from hwkm.token.settings import locate_module
from hwkm.token.uri import TokenUri

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.keys import SecretBytes
    from hwkm.token.module import TokenInfo

MODULE_NAME = "softhsm2"

_CONFIGURATION = """\
directories.tokendir = {tokens}
objectstore.backend = file
log.level = ERROR
slots.removable = false
"""


def module_path() -> str:
    """Return where SoftHSM's module is installed.

    :raises TokenError: if it is not.
    """
    try:
        return locate_module(TokenUri(module_name=MODULE_NAME))
    except ConfigError as error:
        raise TokenError("SoftHSM is not installed", hint="apt install softhsm2") from error


def environment(folder: Path) -> dict[str, str]:
    """Return the variables that make SoftHSM use ``folder``."""
    return {"SOFTHSM2_CONF": str(folder / "softhsm2.conf")}


def create(folder: Path, label: str, so_pin: SecretBytes, user_pin: SecretBytes) -> TokenInfo:
    """Make a SoftHSM in ``folder`` with one initialised token, and return what it is.

    :raises TokenError: if SoftHSM is not installed or fails.
    """
    tokens = folder / "tokens"
    tokens.mkdir(mode=0o700, exist_ok=True)
    (folder / "softhsm2.conf").write_text(
        seal.MARK + _CONFIGURATION.format(tokens=tokens), encoding="utf-8"
    )
    path = module_path()
    new = vendor.NewToken(_free_slot(path, folder), label, so_pin, user_pin)
    vendor.initialize(path, environment(folder), new)
    return _only_token(path, folder, label)


def _free_slot(path: str, folder: Path) -> int:
    with loaded(path, environment(folder)) as module:
        free = [info.slot_id for info, _ in module.tokens() if not info.initialized]
    if not free:
        raise TokenError(f"SoftHSM in {folder} shows no free slot")
    return free[0]


def _only_token(path: str, folder: Path, label: str) -> TokenInfo:
    with loaded(path, environment(folder)) as module:
        made = [info for info, _ in module.tokens() if info.initialized and info.label == label]
    if len(made) != 1:
        raise TokenError(f"SoftHSM in {folder} did not make the token {label!r}")
    return made[0]
