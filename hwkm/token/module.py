"""The one owner of a PKCS#11 module in this process.

python-pkcs11 calls C_Initialize without locking functions and drops the interpreter lock around
every call, so two threads inside one module corrupt its memory. Everything that touches a module
holds :data:`LOCK`. A child that was forked after a module was loaded must not use it.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

import pkcs11
from pkcs11 import TokenFlag
from pkcs11.exceptions import TokenNotPresent, TokenNotRecognised

from hwkm.errors import TokenError
from hwkm.token import p11

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hwkm.token.settings import TokenSettings

_LOADING = (
    "See whether the files, daemons and variables that it needs are there, and whether this user "
    "may use them (SoftHSM: what SOFTHSM2_CONF names, and the token folder that it names)"
)

LOCK = RLock()
"""Held around every call into any PKCS#11 module."""


_loaded: dict[str, Module] = {}
"""The modules loaded in this process, by path."""


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
    """One loaded PKCS#11 module, shared by all sessions with tokens behind it.

    Callers hold :data:`LOCK`. Whatever came from a module that is not ``alive`` any more (token,
    session, key) must not be touched: that crashes the process.
    """

    def __init__(self, path: str, environment: Mapping[str, str]) -> None:
        """Load and initialise the module; use :meth:`load` instead."""
        self.path = path
        self.environment = dict(environment)
        self.alive = True
        self._process = os.getpid()
        self._users: set[object] = set()
        os.environ.update(environment)
        with p11.errors(f"loading the PKCS#11 module {path}", _LOADING):
            try:
                self._lib = pkcs11.lib(path)
            except pkcs11.PKCS11Error as error:
                if "already initialized" not in str(error):
                    raise
                _finalize(path)
                self._lib = pkcs11.lib(path)

    @classmethod
    def load(cls, path: str, environment: Mapping[str, str], user: object) -> Module:
        """Return the module at ``path``, loaded with ``environment`` set, for ``user``.

        A module is loaded once in a process. If that was with another environment (another
        SoftHSM, say), it is loaded anew, and whoever used it so far has to open it again.

        :raises TokenError: if it is not there or does not initialise.
        """
        module = _loaded.get(path)
        if module is not None and module.environment != dict(environment):
            module.unload()
            module = None
        if module is None:
            if not Path(path).is_file():
                raise TokenError(
                    f"there is no PKCS#11 module {path}",
                    hint="Install it, or correct module-path in the token's URI",
                )
            module = _loaded[path] = cls(path, environment)
        module.refuse_after_fork()
        module._users.add(user)
        return module

    def tokens(self) -> list[tuple[TokenInfo, pkcs11.Token]]:
        """Return the tokens present, uninitialised ones included, in the order of their slots."""
        with p11.errors("listing the tokens"):
            slots = self._lib.get_slots(token_present=True)
            found = [token for slot in slots if (token := _token_in(slot)) is not None]
            return [(_info(token), token) for token in found]

    def find(self, settings: TokenSettings) -> tuple[TokenInfo, pkcs11.Token]:
        """Return the one initialised token that the URI in ``settings`` names.

        :raises TokenError: if there is none, or more than one.
        """
        present = self.tokens()
        found = [pair for pair in present if pair[0].initialized and _matches(settings, pair[0])]
        if len(found) == 1:
            return found[0]
        seen = ", ".join(repr(info.label) for info, _ in present if info.initialized)
        what = "no token" if not found else f"{len(found)} tokens"
        raise TokenError(
            f"{what} behind {self.path} matches the URI of {settings.name!r}",
            hint=f"Tokens seen: {seen}. Correct token= and serial= in the URI so that one matches; "
            "hwkm token list shows them"
            if seen
            else "No token was seen at all. Connect it; for SoftHSM, see to its token folder",
        )

    def release(self, user: object) -> None:
        """Say that ``user`` is done; without users the module is unloaded."""
        self._users.discard(user)
        if not self._users and self.alive:
            self.unload()

    def unload(self) -> None:
        """Finalise and close the module, whoever still uses it."""
        self.refuse_after_fork()
        self.alive = False
        _loaded.pop(self.path, None)
        with p11.errors(f"unloading the PKCS#11 module {self.path}"):
            pkcs11.unload(self.path)

    def refuse_after_fork(self) -> None:
        """Refuse to go on in a forked child: it shares the parent's login, and locks in any state.

        :raises TokenError: if this process did not load the module itself.
        """
        if self.forked:
            raise TokenError(f"{self.path} was loaded before this process was forked")

    @property
    def forked(self) -> bool:
        """Whether this process is a forked child of the one that loaded the module."""
        return self._process != os.getpid()


@contextmanager
def loaded(path: str, environment: Mapping[str, str]) -> Iterator[Module]:
    """Load a module for the time of a block, with nobody logged in.

    :raises TokenError: as :meth:`Module.load` does.
    """
    user = object()
    with LOCK:
        module = Module.load(path, environment, user)
        try:
            yield module
        finally:
            module.release(user)


def _finalize(path: str) -> None:
    """Finalise a module that nobody here uses: its C_Finalize failed, or its C_Initialize late.

    python-pkcs11 has let go of it then, and could never initialise it again.
    """
    import ctypes  # only needed here, where time does not matter any more

    class FunctionList(ctypes.Structure):
        """The beginning of CK_FUNCTION_LIST (PKCS #11 v2.40, section 3.6)."""

        _fields_ = (
            ("version", ctypes.c_ubyte * 2),
            ("initialize", ctypes.c_void_p),
            ("finalize", ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)),
        )

    functions = ctypes.POINTER(FunctionList)()
    if ctypes.CDLL(path).C_GetFunctionList(ctypes.byref(functions)) == 0:
        functions.contents.finalize(None)


def _token_in(slot: pkcs11.Slot) -> pkcs11.Token | None:
    try:
        return slot.get_token()
    except (TokenNotPresent, TokenNotRecognised):
        return None  # a foreign card in one reader is no reason not to use the others


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
