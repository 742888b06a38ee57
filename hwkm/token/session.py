"""A login on one token: opened once, dropped after any error, opened again at the next use."""

from __future__ import annotations

import contextlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pkcs11
from pkcs11 import PROTECTED_AUTH

from hwkm.errors import PinError, TokenError
from hwkm.token import lock, p11, seal
from hwkm.token.module import LOCK, Module
from hwkm.token.pin import check_flags
from hwkm.token.pin_guard import PinGuard
from hwkm.token.pin_source import PinKind, PinSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from hwkm.keys import SecretBytes
    from hwkm.token.module import TokenInfo
    from hwkm.token.pin import PinReader
    from hwkm.token.settings import TokenSettings


DEFAULT_LOCK_SECONDS = 10.0


class TokenUnavailableError(TokenError):
    """The token can't be opened: it is away, or its module does not work."""


@dataclass(frozen=True, slots=True)
class Access:
    """How sessions are opened.

    ``runtime_dir`` keeps the lock and refused PINs; ``pins`` gives the PIN; ``lock_seconds`` is
    how long to wait for another process that uses a token.
    """

    runtime_dir: Path
    pins: PinReader
    lock_seconds: float = DEFAULT_LOCK_SECONDS


class TokenSession:
    """One token, logged in, for the whole of a process's work with it.

    Use it as a context manager. While it is open, no other process of this installation uses a
    token (see :mod:`hwkm.token.lock`).
    """

    def __init__(self, settings: TokenSettings, access: Access, *, writable: bool = False) -> None:
        self.settings = settings
        self._access = access
        self._writable = writable
        self._locked = False
        self._module: Module | None = None
        self._session: pkcs11.Session | None = None
        self._info: TokenInfo | None = None
        self._pin: SecretBytes | None = None

    def __enter__(self) -> TokenSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def info(self) -> TokenInfo:
        """What the token says of itself.

        :raises TokenError, PinError: as :meth:`use` does.
        """
        with self.use("reading the token's description"):
            if self._info is None:
                raise TokenError("the token was lost")
            return self._info

    @contextmanager
    def use(self, doing: str) -> Iterator[pkcs11.Session]:
        """Give the logged-in session, alone in the process, for one piece of work.

        After any PKCS#11 error the session and the module are dropped, because some modules leave
        them unusable; the next use opens both again.

        :raises TokenError: if the token can't be reached or the work fails.
        :raises PinError: if there is no PIN or it is refused. It is never tried twice.
        """
        with LOCK:
            session = self._current() or self._open()
            try:
                with p11.errors(doing):
                    yield session
            except (p11.TokenOperationError, PinError):
                self._drop(unload=True)
                raise

    def close(self) -> None:
        """Log out, unload the module and let other processes in. Closing twice is allowed."""
        with LOCK:
            self._drop()
            if self._writable:
                seal.set_writable(self.settings.environment, writable=False)
            if self._locked:
                lock.release(self._access.runtime_dir)
                self._locked = False

    def _current(self) -> pkcs11.Session | None:
        """Return the open session, unless another user of the module has unloaded it."""
        if self._module is None or not self._module.alive:
            return None
        self._module.refuse_after_fork()
        return self._session

    def _open(self) -> pkcs11.Session:
        if not self._locked:
            lock.acquire(self._access.runtime_dir, self._access.lock_seconds)
            self._locked = True
        seal.set_writable(self.settings.environment, writable=self._writable)
        try:
            self._module = Module.load(self.settings.module_path, self.settings.environment, self)
            self._info, token = self._module.find(self.settings)
            self._session = self._login(token, self._info)
        except p11.TokenOperationError as error:
            self._drop(unload=True)
            raise TokenUnavailableError(
                f"token {self.settings.name!r} can't be opened: {error}",
                hint=error.hint or "Connect it, or see hwkm token list for what its module shows",
            ) from error
        except BaseException:
            self._drop(unload=True)  # a failed login leaves a session that only this ends
            raise
        return self._session

    def _login(self, token: pkcs11.Token, info: TokenInfo) -> pkcs11.Session:
        check_flags(info)
        source = PinSource.parse(self.settings.uri.pin_source)
        pin, self._pin = self._pin or self._access.pins.read(source, info.label), None
        if pin is None:
            with p11.errors(f"logging in to token {info.label!r} at its PIN pad"):
                return token.open(rw=self._writable, user_pin=PROTECTED_AUTH)
        guard = PinGuard(self._access.runtime_dir, info)
        with guard.attempt(pin), p11.errors(f"logging in to token {info.label!r}"):
            session = token.open(rw=self._writable, user_pin=pin.expose().decode())
        if source.kind in (PinKind.DESCRIPTOR, PinKind.PROMPT):
            self._pin = pin  # it can't be read, or should not be asked for, again
        return session

    def _drop(self, *, unload: bool = False) -> None:
        """Log out and let go of the module; ``unload`` it even if other sessions use it."""
        session, module = self._session, self._module
        self._session = self._module = self._info = None
        if module is None or not module.alive or module.forked:
            return
        if session is not None:
            # A lost session can't be closed; unloading the module ends it all the same.
            with contextlib.suppress(p11.TokenOperationError), p11.errors("logging out"):
                session.close()
        with contextlib.suppress(TokenError):
            if unload:
                module.unload()
            module.release(self)
