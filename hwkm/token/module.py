"""The one owner of a PKCS#11 module in this process.

python-pkcs11 calls C_Initialize without locking functions and drops the interpreter lock around
every call, so two threads inside one module corrupt its memory. Everything that touches a module
holds :data:`LOCK`. A child that was forked after a module was loaded must not use it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

import pkcs11
from pkcs11 import TokenFlag

from hwkm.errors import TokenError
from hwkm.token import p11

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hwkm.token.settings import TokenSettings

LOCK = RLock()
"""Held around every call into any PKCS#11 module."""


_loaded_by: dict[str, int] = {}
"""Process id of whoever loaded the module at a path."""


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What C_GetTokenInfo says of one token. ``serial`` is text, as in a PKCS#11 URI."""

    slot_id: int
    label: str
    serial: str
    manufacturer: str
    model: str
    flags: TokenFlag

    @property
    def initialized(self) -> bool:
        """Whether C_InitToken was done."""
        return bool(self.flags & TokenFlag.TOKEN_INITIALIZED)


class Module:
    """One loaded PKCS#11 module. Callers hold :data:`LOCK`."""

    def __init__(self, path: str, environment: Mapping[str, str]) -> None:
        """Load and initialise the module at ``path``, with ``environment`` set first.

        :raises TokenError: if it is not there or does not initialise.
        """
        self.path = path
        _refuse_after_fork(path)
        if not Path(path).is_file():
            raise TokenError(
                f"there is no PKCS#11 module {path}",
                hint="Install it, or correct module-path in the token's URI",
            )
        os.environ.update(environment)
        with p11.errors(f"loading the PKCS#11 module {path}"):
            self._lib = pkcs11.lib(path)
        _loaded_by[path] = os.getpid()

    def tokens(self) -> list[tuple[TokenInfo, pkcs11.Token]]:
        """Return the tokens present, uninitialised ones included, in the order of their slots."""
        with p11.errors("listing the tokens"):
            slots = self._lib.get_slots(token_present=True)
            return [(_info(token), token) for token in (slot.get_token() for slot in slots)]

    def find(self, settings: TokenSettings) -> tuple[TokenInfo, pkcs11.Token]:
        """Return the one initialised token that the URI in ``settings`` names.

        :raises TokenError: if there is none, or more than one.
        """
        present = self.tokens()
        found = [pair for pair in present if pair[0].initialized and _matches(settings, pair[0])]
        if len(found) == 1:
            return found[0]
        seen = ", ".join(repr(info.label) for info, _ in present if info.initialized) or "none"
        what = "no token" if not found else f"{len(found)} tokens"
        raise TokenError(
            f"{what} behind {self.path} matches the URI of {settings.name!r}",
            hint=f"Tokens seen: {seen}. Add token= and serial= to the URI so that one matches; "
            "hwkm token list shows them",
        )

    def unload(self) -> None:
        """Finalise and close the module. Nothing that came from it may be touched afterwards."""
        _loaded_by.pop(self.path, None)
        with p11.errors(f"unloading the PKCS#11 module {self.path}"):
            pkcs11.unload(self.path)


def _refuse_after_fork(path: str) -> None:
    # The child would share the parent's login, and its module's locks in any state.
    if _loaded_by.get(path, os.getpid()) != os.getpid():
        raise TokenError(f"{path} was loaded before this process was forked")


def _info(token: pkcs11.Token) -> TokenInfo:
    return TokenInfo(
        slot_id=token.slot.slot_id,
        label=token.label,
        serial=token.serial.rstrip(b"\0 ").decode("utf-8", "replace"),
        manufacturer=token.manufacturer_id,
        model=token.model,
        flags=token.flags,
    )


def _matches(settings: TokenSettings, info: TokenInfo) -> bool:
    uri = settings.uri
    return uri.matches(info.label, info.serial, info.manufacturer, info.model, info.slot_id)
