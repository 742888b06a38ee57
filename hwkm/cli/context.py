"""What every command starts from: the configuration, the right user, where PINs come from."""

from __future__ import annotations

import getpass
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwkm import config as configuration
from hwkm.envelope import TOKEN_SCHEMES, Scheme
from hwkm.errors import ConfigError, ParseError
from hwkm.installation import Installation
from hwkm.manager import Caller
from hwkm.privileges import become_owner_of, user_name
from hwkm.supervise import protect
from hwkm.token.pin import PinReader

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class Settings:
    """The options that stand before the command."""

    config: Path


JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
TokenOption = Annotated[
    str | None,
    typer.Option("--token", metavar="NAME", help="Name of the token in the configuration."),
]
SchemeOption = Annotated[
    str | None,
    typer.Option(metavar="SCHEME", help="gcm, hmac-kdf or oaep; without it, what works best."),
]


def chosen_scheme(name: str | None) -> Scheme | None:
    """Return the scheme that was asked for, if one was.

    :raises ConfigError: if there is no such scheme.
    """
    if name is None:
        return None
    names = ", ".join(scheme.label for scheme in TOKEN_SCHEMES)
    try:
        scheme = Scheme.from_label(name)
    except ParseError as error:
        raise ConfigError(str(error), hint=f"Choose one of: {names}") from error
    if scheme not in TOKEN_SCHEMES:
        raise ConfigError(f"{name!r} is no scheme of a token's", hint=f"Choose one of: {names}")
    return scheme


def installation(context: typer.Context) -> Installation:
    """Read the configuration, become the installation's owner, and return the installation.

    :raises ConfigError: if the configuration is wrong.
    """
    config = configuration.load(settings(context).config)
    become_owner_of(config.runtime_dir)
    protect()
    return Installation(config, pin_reader())


def settings(context: typer.Context) -> Settings:
    """Return the options that stood before the command."""
    found = context.find_root().obj
    if not isinstance(found, Settings):
        raise TypeError("the main callback did not run")
    return found


def pin_reader() -> PinReader:
    """Return what reads PINs for a person at a terminal, or for a unit of systemd."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    ask = getpass.getpass if sys.stdin.isatty() else None
    return PinReader(Path(credentials) if credentials else None, ask)


def caller() -> Caller:
    """Return who runs this command."""
    return Caller(user_name())


def now() -> int:
    """Return the time in whole seconds since 1970-01-01 UTC."""
    return int(time.time())
