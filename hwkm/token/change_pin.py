"""Changing a token's user PIN together with the file it is read from.

The new PIN is on disk before the token has it, and takes the old one's place after. A process
killed in between leaves both; the next run finds out which of them the token takes.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hwkm.errors import ConfigError
from hwkm.keys import SecretBytes
from hwkm.token import lock
from hwkm.token.p11 import WrongPinError
from hwkm.token.pin import write_pin
from hwkm.token.pin_guard import RefusedBeforeError
from hwkm.token.pin_source import PinKind, PinSource
from hwkm.token.session import TokenSession

if TYPE_CHECKING:
    from hwkm.token.session import Access
    from hwkm.token.settings import TokenSettings

GENERATED_PIN_BYTES = 15


def generate_pin() -> SecretBytes:
    """Return a random PIN of 20 characters, as long as pkcs11-tool takes one that is typed."""
    return SecretBytes(secrets.token_urlsafe(GENERATED_PIN_BYTES).encode())


def change_pin_file(settings: TokenSettings, access: Access, new: SecretBytes) -> Path:
    """Give the token the PIN ``new`` and write it to the token's PIN file; return that file.

    :raises ConfigError: if the token's PIN does not come from a file.
    :raises PinError, TokenError: if the token does not take the old PIN, or refuses the new one;
        then the file is as it was.
    """
    source = PinSource.parse(settings.uri.pin_source)
    if source.kind is not PinKind.FILE:
        raise ConfigError(
            f"the PIN of token {settings.name!r} does not come from a file",
            hint="Change it with the vendor's tool, and then where it comes from",
        )
    current = Path(source.name)
    # One run at a time, and nobody reads the file while it is not the token's PIN.
    with lock.held(access.runtime_dir, access.lock_seconds):
        _change(settings, access, current, new)
    return current


def _change(settings: TokenSettings, access: Access, current: Path, new: SecretBytes) -> None:
    pending = current.with_name(current.name + ".new")
    if pending.exists():
        _settle(settings, access, current, pending)
    with TokenSession(settings, access, writable=True) as token:
        with token.use("logging in with the old PIN"):
            pass  # before a new PIN is on disk, which a later run would have to try
        write_pin(pending, new)
        try:
            _set_pin(token, access, PinSource(PinKind.FILE, str(current)), new)
        except WrongPinError:
            pending.unlink()
            raise
    pending.replace(current)


def _set_pin(token: TokenSession, access: Access, source: PinSource, new: SecretBytes) -> None:
    old = access.pins.read(source, token.settings.name)
    if old is None:
        raise ConfigError("a token with a PIN pad changes its PIN there")
    with token.use("changing the PIN") as session:
        session.set_pin(old.expose().decode(), new.expose().decode())


def _settle(settings: TokenSettings, access: Access, current: Path, pending: Path) -> None:
    """Find out which PIN the token takes after an interrupted change, and keep only that file."""
    if _takes(settings, access):
        pending.unlink()
        return
    other = replace(settings, uri=replace(settings.uri, pin_source=f"file:{pending}"))
    with TokenSession(other, access) as token, token.use("logging in with the new PIN"):
        pending.replace(current)


def _takes(settings: TokenSettings, access: Access) -> bool:
    try:
        with TokenSession(settings, access) as token, token.use("logging in with the old PIN"):
            return True
    except (WrongPinError, RefusedBeforeError):
        return False
