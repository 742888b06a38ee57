"""A login on one token: opened once, dropped after any error, opened again at the next use."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pkcs11
from pkcs11 import PROTECTED_AUTH

from hwkm.errors import PinError, TokenError
from hwkm.token import p11, seal
from hwkm.token.module import LOCK, Module
from hwkm.token.pin import PinSource, check_flags
from hwkm.token.pin_guard import PinGuard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from hwkm.token.module import TokenInfo
    from hwkm.token.pin import PinReader
    from hwkm.token.settings import TokenSettings

DEFAULT_LOCK_SECONDS = 10.0
_LOCK_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Access:
    """How sessions are opened.

    ``runtime_dir`` keeps locks and refused PINs; ``pins`` gives the PIN; ``lock_seconds`` is how
    long to wait for another process that uses the same module.
    """

    runtime_dir: Path
    pins: PinReader
    lock_seconds: float = DEFAULT_LOCK_SECONDS


class TokenSession:
    """One token, logged in, for the whole of a process's work with it.

    Use it as a context manager. While it is open, no other hwkm process is inside the same
    module: SoftHSM rewrites the token's file at each login, and loses it when two do so at once.
    """

    def __init__(self, settings: TokenSettings, access: Access, *, writable: bool = False) -> None:
        self.settings = settings
        self._access = access
        self._writable = writable
        self._lock_descriptor: int | None = None
        self._module: Module | None = None
        self._session: pkcs11.Session | None = None
        self._info: TokenInfo | None = None

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
            session = self._session or self._open()
            try:
                with p11.errors(doing):
                    yield session
            except (p11.TokenOperationError, PinError):
                self._drop()
                raise

    def close(self) -> None:
        """Log out, unload the module and let other processes in. Closing twice is allowed."""
        with LOCK:
            self._drop()
            if self._writable:
                seal.set_writable(self.settings.environment, writable=False)
            if self._lock_descriptor is not None:
                os.close(self._lock_descriptor)
                self._lock_descriptor = None

    def _open(self) -> pkcs11.Session:
        if self._lock_descriptor is None:
            self._lock_descriptor = lock_module(self.settings, self._access)
        if self._writable:
            seal.set_writable(self.settings.environment, writable=True)
        try:
            self._module = Module(self.settings.module_path, self.settings.environment)
            self._info, token = self._module.find(self.settings)
            self._session = self._login(token, self._info)
        except BaseException:
            self._drop()  # a failed login leaves a session behind, which only unloading ends
            raise
        return self._session

    def _login(self, token: pkcs11.Token, info: TokenInfo) -> pkcs11.Session:
        check_flags(info)
        source = PinSource.parse(self.settings.uri.pin_source)
        pin = self._access.pins.read(source, info.label)
        if pin is None:
            with p11.errors(f"logging in to token {info.label!r} at its PIN pad"):
                return token.open(rw=self._writable, user_pin=PROTECTED_AUTH)
        guard = PinGuard(self._access.runtime_dir, info)
        with guard.attempt(pin), p11.errors(f"logging in to token {info.label!r}"):
            return token.open(rw=self._writable, user_pin=pin.expose().decode())

    def _drop(self) -> None:
        session, module = self._session, self._module
        self._session = self._module = self._info = None
        if session is not None:
            # A lost session can't be closed; unloading the module ends it all the same.
            with contextlib.suppress(p11.TokenOperationError), p11.errors("logging out"):
                session.close()
        if module is not None:
            with contextlib.suppress(p11.TokenOperationError):
                module.unload()


@contextmanager
def alone_with(settings: TokenSettings, access: Access) -> Iterator[Module]:
    """Load the module, without a login, while no other hwkm process uses it.

    :raises TokenError: if it can't be loaded, or others use it for too long.
    """
    descriptor = lock_module(settings, access)
    try:
        with LOCK:
            module = Module(settings.module_path, settings.environment)
            try:
                yield module
            finally:
                module.unload()
    finally:
        os.close(descriptor)


def lock_module(settings: TokenSettings, access: Access) -> int:
    """Wait until no other hwkm process uses the module, and return the lock's descriptor.

    :raises TokenError: if that takes longer than ``access.lock_seconds``, or the lock file can't
        be opened.
    """
    environment = sorted(settings.environment.items())
    name = hashlib.sha256(repr((settings.module_path, environment)).encode()).hexdigest()[:16]
    path = access.runtime_dir / f"module-{name}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise TokenError(
            f"the lock {path} can't be opened: {error.strerror}",
            hint="The runtime directory must exist and belong to the user that hwkm runs as",
        ) from error
    try:
        _wait_for_lock(descriptor, path, access.lock_seconds)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _wait_for_lock(descriptor: int, path: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TokenError(
                    f"another hwkm process has been using the token for {seconds:.0f} seconds",
                    hint=f"See who holds {path} (fuser shows it), and whether the token hangs",
                ) from None
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            return
