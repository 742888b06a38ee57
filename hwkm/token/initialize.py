"""Initialising the token in a slot: refused where it could destroy keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pkcs11 import TokenFlag

from hwkm.errors import PolicyError, TokenError
from hwkm.token import p11, vendor
from hwkm.token.change_pin import generate_pin
from hwkm.token.module import loaded
from hwkm.token.pin import PinReader, write_pin
from hwkm.token.pin_guard import PinGuard
from hwkm.token.pin_source import PinKind, PinSource
from hwkm.token.uri import TokenUri

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pkcs11

    from hwkm.keys import SecretBytes
    from hwkm.token.module import TokenInfo

MAX_LABEL_BYTES = 32
"""CK_TOKEN_INFO.label (PKCS #11 v3.0, section 3.2)."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A token to be initialised, and the files that its PINs are read from or written to."""

    module_path: str
    environment: Mapping[str, str]
    slot_id: int
    label: str
    pin_file: Path
    so_pin_file: Path


def initialize_token(request: TokenRequest) -> str:
    """Initialise the token and set its user PIN; return the URI for the configuration.

    The PIN files are written before the token is touched. After an interruption, running it
    again sets the user PIN that is still missing.

    :raises PolicyError: if the slot holds an initialised token with another label, or with a
        user PIN: it may hold keys. Or if another token has the label.
    :raises TokenError, PinError: if it can't be done.
    """
    if not 0 < len(request.label.encode()) <= MAX_LABEL_BYTES:
        raise TokenError(f"a token's label has 1 to {MAX_LABEL_BYTES} bytes")
    info = _look(request)
    if info.initialized and (info.label != request.label or _has_user_pin(info)):
        raise PolicyError(
            f"slot {request.slot_id} holds the initialised token {info.label!r}",
            hint="It may hold keys. Erase it with its vendor's tool if it is really not needed",
        )
    so_pin, user_pin = _pin(request.so_pin_file), _pin(request.pin_file)
    if not info.initialized:
        new = vendor.NewToken(request.slot_id, request.label, so_pin, user_pin)
        vendor.initialize(request.module_path, request.environment, new)
    made = _set_user_pin(request, so_pin, user_pin)
    return str(
        TokenUri(
            token=made.label,
            serial=made.serial,
            module_path=request.module_path,
            pin_source=f"file:{request.pin_file.absolute()}",
        )
    )


def _pin(path: Path) -> SecretBytes:
    if path.exists() and path.stat().st_size == 0:
        path.unlink()  # a killed process came no further
    if not path.exists():
        write_pin(path, generate_pin())
    pin = PinReader().read(PinSource(PinKind.FILE, str(path.absolute())), str(path))
    if pin is None:
        raise TokenError(f"{path} holds no PIN")
    return pin


def _has_user_pin(info: TokenInfo) -> bool:
    return bool(info.flags & TokenFlag.USER_PIN_INITIALIZED)


def _look(request: TokenRequest) -> TokenInfo:
    """Return the token that an interrupted run left without a user PIN, or the one in the slot."""
    with loaded(request.module_path, request.environment) as module:
        found = [info for info, _ in module.tokens()]
    for info in found:
        if info.initialized and info.label == request.label and not _has_user_pin(info):
            return info
    for info in found:
        if info.initialized and info.label == request.label and info.slot_id != request.slot_id:
            raise PolicyError(
                f"slot {info.slot_id} holds a token {info.label!r} already",
                hint="Choose another label, so that the configuration can tell them apart",
            )
    for info in found:
        if info.slot_id == request.slot_id:
            return info
    slots = ", ".join(str(info.slot_id) for info in found) or "none"
    raise TokenError(f"slot {request.slot_id} holds no token", hint=f"Slots with one: {slots}")


def _set_user_pin(request: TokenRequest, so_pin: SecretBytes, user_pin: SecretBytes) -> TokenInfo:
    """Set the user PIN of the initialised token if its tool did not, and return the token."""
    with loaded(request.module_path, request.environment) as module:
        tokens = [(info, token) for info, token in module.tokens() if info.initialized]
        made = [(info, token) for info, token in tokens if info.label == request.label]
        if len(made) != 1:
            raise TokenError(f"{len(made)} tokens have the label {request.label!r} now")
        info, token = made[0]
        if not _has_user_pin(info):
            _init_pin(request, info, token, so_pin, user_pin)
    return info


def _init_pin(
    request: TokenRequest,
    info: TokenInfo,
    token: pkcs11.Token,
    so_pin: SecretBytes,
    user_pin: SecretBytes,
) -> None:
    guard = PinGuard(request.so_pin_file.absolute().parent, info, role="so")
    doing = f"setting the user PIN of token {info.label!r}"
    with guard.attempt(so_pin), p11.errors(doing):
        session = token.open(rw=True, so_pin=so_pin.expose().decode())
        session.init_pin(user_pin.expose().decode())
        session.close()
