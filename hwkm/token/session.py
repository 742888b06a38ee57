"""A login on one token: opened once, dropped after an error, opened again at the next use.

Some modules give the same error for a wrapped key that is bad and for a token that is sick. So
whoever can tell the two apart may keep the login until that is done (:meth:`TokenSession.kept`);
else who comes with bad wrapped keys could make it be opened again and again.
"""

from __future__ import annotations

import contextlib
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pkcs11
from pkcs11 import PROTECTED_AUTH

from hwkm.errors import HwkmError, PinError, TokenError
from hwkm.token import lock, p11, seal
from hwkm.token.module import LOCK, Module
from hwkm.token.pace import TokenUnavailableError, pace_of
from hwkm.token.pin import check_flags
from hwkm.token.pin_guard import PinGuard
from hwkm.token.pin_source import PinKind, PinSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from hwkm.keys import SecretBytes
    from hwkm.token.module import TokenInfo
    from hwkm.token.pin import PinReader
    from hwkm.token.settings import TokenSettings


DEFAULT_LOCK_SECONDS = 10.0
IDLE_SECONDS = 1.0
"""After how long without any use it is looked whether the session is still there."""


@dataclass(frozen=True, slots=True)
class Access:
    """How sessions are opened.

    ``runtime_dir`` keeps the lock and refused PINs; ``pins`` gives the PIN; ``lock_seconds`` is
    how long to wait for another process that uses a token. A token that failed is opened again at
    most once in ``reload_seconds`` of ``clock``; a process for one request does not wait.
    """

    runtime_dir: Path
    pins: PinReader
    lock_seconds: float = DEFAULT_LOCK_SECONDS
    reload_seconds: float = 0
    clock: Callable[[], float] = time.monotonic


class TokenSession:
    """One token, logged in, for the whole of a process's work with it.

    Use it as a context manager. While it is open, no other process of this installation uses a
    token (see :mod:`hwkm.token.lock`).
    """

    def __init__(self, settings: TokenSettings, access: Access, *, writable: bool = False) -> None:
        self.settings = settings
        self._access = access
        self._writable = writable
        self._pace = pace_of(settings)
        self._locked = False
        self._module: Module | None = None
        self._login: pkcs11.Session | None = None
        self._session: pkcs11.Session | None = None
        self._info: TokenInfo | None = None
        self._pin: SecretBytes | None = None
        self._keeps = False
        self._in_use = False
        self._used = 0.0
        self.seconds = 0.0
        """How long it was used, logging in included, by ``clock``."""
        self.logins = 0
        """How often it was opened, or that was tried."""
        self.last_login = 0.0
        """When it was last opened with success, in seconds since 1970; 0 if never."""

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
        them unusable; the next use opens both again. Within :meth:`kept` only the session is
        replaced.

        :raises TokenError: if the token can't be reached or the work fails.
        :raises PinError: if there is no PIN or it is refused. It is never tried twice.
        """
        with LOCK, self._timed():
            session = self._current() or self._open()
            before, self._in_use = self._in_use, True
            try:
                with p11.errors(doing):
                    yield session
            except (p11.TokenOperationError, PinError) as error:
                if self._keeps and not isinstance(error, PinError):
                    self._replace()
                else:
                    self._lose(error)
                raise
            finally:
                self._in_use, self._used = before, self._access.clock()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        begun, is_outermost = self._access.clock(), not self._in_use
        try:
            yield
        finally:
            if is_outermost:
                self.seconds += self._access.clock() - begun

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the login in spite of errors until the block ends; use nobody else meanwhile.

        The block finds out whose fault they are, and gives the login up if they are the token's.
        """
        with LOCK:
            before, self._keeps = self._keeps, True
            try:
                yield
            finally:
                self._keeps = before

    def give_up(self, why: str) -> None:
        """Drop session and module because of ``why``; the next use opens both again.

        :raises TokenUnavailableError: if it is too soon for that; they are not dropped then.
        """
        with LOCK:
            self._pace.give_up(why, self._access.reload_seconds, self._access.clock())
            self._drop(unload=True)

    def close(self) -> None:
        """Log out, unload the module and let other processes in. Closing twice is allowed.

        It may be used again: that logs in again.
        """
        with LOCK:
            self._drop()
            if self._writable:
                seal.set_writable(self.settings.environment, writable=False)
            if self._locked:
                lock.release(self._access.runtime_dir)
                self._locked = False

    def _current(self) -> pkcs11.Session | None:
        """Return the open session, unless it was lost, or another user unloaded the module."""
        if self._module is None or not self._module.alive:
            return None
        self._module.refuse_after_fork()
        idle = not self._in_use and self._access.clock() - self._used >= IDLE_SECONDS
        if idle and self._session is not None:
            self._look_after(self._session)
        return self._session

    def _look_after(self, session: pkcs11.Session) -> None:
        """See whether an idle session is still there, so that its loss costs nobody a request."""
        try:
            with p11.errors("looking for the token"):
                p11.touch(session)
        except p11.TokenOperationError as error:
            # Too soon after the last time it is left to show what it is still good for.
            with contextlib.suppress(TokenUnavailableError):
                self.give_up(str(error))

    def _open(self) -> pkcs11.Session:
        if not self._locked:
            lock.acquire(self._access.runtime_dir, self._access.lock_seconds)
            self._locked = True
        self._pace.begin(self._access.reload_seconds, self._access.clock())
        try:
            session = self._open_now()
        except PinError:
            self._pace.found()  # the token is there: what it waits for is another PIN
            self._drop(unload=True)
            raise
        except p11.TokenOperationError as error:
            self._lose(error)
            raise TokenUnavailableError(
                f"token {self.settings.name!r} can't be opened: {error}",
                hint=error.hint or "Connect it, or see hwkm token list for what its module shows",
            ) from error
        except BaseException as error:
            self._lose(error)  # a failed login leaves a session that only this ends
            raise
        self._pace.found()
        return session

    def _open_now(self) -> pkcs11.Session:
        self.logins += 1
        seal.set_writable(self.settings.environment, writable=self._writable)
        self._module = Module.load(self.settings.module_path, self.settings.environment, self)
        self._info, token = self._module.find(self.settings)
        self._login = self._session = self._log_in(token, self._info)
        self.last_login = time.time()
        return self._session

    def _log_in(self, token: pkcs11.Token, info: TokenInfo) -> pkcs11.Session:
        check_flags(info)
        source = PinSource.parse(self.settings.uri.pin_source)
        pin = self._pin or self._access.pins.read(source, info.label)
        if pin is None:
            with p11.errors(f"logging in to token {info.label!r} at its PIN pad"):
                return token.open(rw=self._writable, user_pin=PROTECTED_AUTH)
        # Kept if it can't be read, or should not be asked for, again; but never a refused one.
        self._pin = pin if source.kind in (PinKind.DESCRIPTOR, PinKind.PROMPT) else None
        guard = PinGuard(self._access.runtime_dir, info)
        try:
            with guard.attempt(pin), p11.errors(f"logging in to token {info.label!r}"):
                return token.open(rw=self._writable, user_pin=pin.expose().decode())
        except PinError:
            self._pin = None
            raise

    def _replace(self) -> None:
        """Go on in another session under the same login: some modules leave one unusable."""
        if self._login is None:
            return
        with contextlib.suppress(p11.TokenOperationError), p11.errors("opening another session"):
            self._close_second()
            self._session = self._login.token.open(rw=self._writable)

    def _close_second(self) -> None:
        second, self._session = self._session, self._login
        if second is not None and second is not self._login:
            second.close()

    def _lose(self, error: BaseException) -> None:
        if isinstance(error, HwkmError) and not isinstance(error, PinError):
            self._pace.lost(str(error), self._access.clock())
        self._drop(unload=True)

    def _drop(self, *, unload: bool = False) -> None:
        """Log out and let go of the module; ``unload`` it even if other sessions use it."""
        module, login = self._module, self._login
        if module is None or not module.alive or module.forked:
            self._module = self._login = self._session = self._info = None
            return
        if login is not None:
            # A lost session can't be closed; unloading the module ends it all the same.
            with contextlib.suppress(p11.TokenOperationError), p11.errors("logging out"):
                self._close_second()
            with contextlib.suppress(p11.TokenOperationError), p11.errors("logging out"):
                login.close()
        self._module = self._login = self._session = self._info = None
        with contextlib.suppress(TokenError):
            if unload:
                module.unload()
            module.release(self)
