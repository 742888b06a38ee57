"""PINs: reading and writing them, and when a token must not be given one."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pkcs11 import TokenFlag

from hwkm.errors import PinError
from hwkm.keys import SecretBytes
from hwkm.token.pin_source import PinKind, PinSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwkm.token.module import TokenInfo

MAX_PIN_BYTES = 255


@dataclass(frozen=True, slots=True)
class PinReader:
    """Reads PINs from their sources.

    ``credentials`` is systemd's credentials directory, if this process has one; ``prompt`` asks a
    person, if there is one to ask.
    """

    credentials: Path | None = None
    prompt: Callable[[str], str] | None = None

    def read(self, source: PinSource, token: str) -> SecretBytes | None:
        """Return the PIN, or None if the token asks for it by itself.

        :raises PinError: if it can't be had.
        """
        match source.kind:
            case PinKind.FILE:
                data = _read_file(Path(source.name), private=True)
            case PinKind.CREDENTIAL:
                data = _read_file(self._credential(source.name), private=False)
            case PinKind.DESCRIPTOR:
                data = _read_descriptor(int(source.name))
            case PinKind.PROMPT:
                data = self._ask(token)
            case PinKind.PROTECTED:
                return None
        return _pin(data, source)

    def _credential(self, name: str) -> Path:
        if self.credentials is None:
            raise PinError(
                f"there is no systemd credential {name!r}: this process was given none",
                hint="Add LoadCredential= or LoadCredentialEncrypted= to the unit",
            )
        return self.credentials / name

    def _ask(self, token: str) -> bytes:
        if self.prompt is None:
            raise PinError(
                f"the PIN of token {token!r} is needed and there is nobody to ask",
                hint="Add pin-source=file:/path to the token's URI",
            )
        return self.prompt(f"PIN of token {token!r}: ").encode()


def _read_file(path: Path, *, private: bool) -> bytes:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if private:
                _check_private(path, os.fstat(file.fileno()))
            return file.read(MAX_PIN_BYTES + 2)
    except OSError as error:
        raise PinError(
            f"the PIN file {path} can't be read: {error.strerror}",
            hint="It must belong to the user that hwkm runs as, with mode 0600",
        ) from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would wait for somebody to write


def _check_private(path: Path, status: os.stat_result) -> None:
    others = stat.S_IMODE(status.st_mode) & 0o077
    if others or not stat.S_ISREG(status.st_mode) or status.st_uid not in (0, os.geteuid()):
        raise PinError(
            f"the PIN file {path} is not private (mode {stat.S_IMODE(status.st_mode):04o})",
            hint=f"chmod 0600 {path}, and let it belong to the user that hwkm runs as",
        )


def _read_descriptor(number: int) -> bytes:
    try:
        with os.fdopen(number, "rb") as file:
            return file.read(MAX_PIN_BYTES + 2)
    except OSError as error:
        raise PinError(
            f"no PIN can be read from file descriptor {number}: {error.strerror}"
        ) from error


def _pin(data: bytes, source: PinSource) -> SecretBytes:
    pin = data.removesuffix(b"\n")
    if not 0 < len(pin) <= MAX_PIN_BYTES:
        raise PinError(f"the PIN from {source.kind} {source.name} is empty or too long")
    try:
        pin.decode()
    except UnicodeDecodeError:
        raise PinError(f"the PIN from {source.kind} {source.name} is not UTF-8") from None
    return SecretBytes(pin)


def check_flags(info: TokenInfo) -> None:
    """Refuse to log in where one more wrong PIN would lock the token, or it is locked.

    :raises PinError: if so.
    """
    if info.flags & TokenFlag.USER_PIN_LOCKED:
        raise PinError(
            f"the user PIN of token {info.label!r} is locked",
            hint="Its security officer must set a new one",
        )
    if info.flags & TokenFlag.USER_PIN_FINAL_TRY:
        raise PinError(
            f"one more wrong PIN would lock token {info.label!r}; hwkm does not try",
            hint="Log in once with the right PIN by the vendor's tool, which resets the count",
        )


def write_pin(path: Path, pin: SecretBytes) -> None:
    """Write a PIN to a new private file, through to the disk.

    :raises FileExistsError: if there is such a file.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pin.expose() + b"\n")
        file.flush()
        os.fsync(file.fileno())
