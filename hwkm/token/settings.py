"""What hwkm is told about one token, and where its module lies."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwkm.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hwkm.token.uri import TokenUri

MODULE_FOLDERS = (
    "/usr/lib/*-linux-gnu/pkcs11",
    "/usr/lib/*-linux-gnu",
    "/usr/lib64/pkcs11",
    "/usr/lib64",
    "/usr/lib/pkcs11",
    "/usr/lib/softhsm",
    "/usr/local/lib",
    "/usr/lib",
)
"""Where a module that is only named is looked for, in this order."""


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """One token: its name in the configuration, its URI, and its module.

    ``environment`` holds the variables that the module reads; they are set before it is loaded,
    because whoever starts hwkm (a Storage Daemon) does not set them.
    """

    name: str
    uri: TokenUri
    module_path: str
    environment: Mapping[str, str]


def locate_module(uri: TokenUri) -> str:
    """Return the path of the module that ``uri`` names (RFC 7512, section 2.4).

    :raises ConfigError: if it names none, or none of that name is installed.
    """
    if uri.module_path is not None:
        return uri.module_path
    if uri.module_name is None:
        raise ConfigError(
            "the token's URI names no PKCS#11 module",
            hint="Add ?module-path=/path/of/the/module.so to it",
        )
    for folder in MODULE_FOLDERS:
        for name in (f"lib{uri.module_name}.so", f"{uri.module_name}.so"):
            for path in sorted(Path("/").glob(f"{folder[1:]}/{glob.escape(name)}")):
                return str(path)
    raise ConfigError(
        f"no PKCS#11 module {uri.module_name!r} is installed",
        hint="Install it, or give its place by module-path instead of module-name",
    )
