"""p11-kit's client module, a unix socket, p11-kit's server, and SoftHSM behind it.

Every client process gets a server process of its own, and with it its own login.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from . import LIBRARIES, TokenUnderTest, softhsm
from .processes import accepts, run_tool, server, socket_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULE = str(LIBRARIES / "pkcs11" / "p11-kit-client.so")
FIRST_WITH_GCM = (0, 25)
"""The protocol of earlier versions cannot carry CKM_AES_GCM's parameters."""


@contextmanager
def running(directory: Path) -> Iterator[TokenUnderTest]:
    """Yield a new SoftHSM token that is reached through a p11-kit server in ``directory``."""
    with softhsm.running(directory, "hwkm-p11kit") as behind, serving(behind, directory) as token:
        yield token


@contextmanager
def serving(behind: TokenUnderTest, directory: Path) -> Iterator[TokenUnderTest]:
    """Yield the token ``behind`` as a client of a p11-kit server sees it."""
    socket = socket_path(directory, "p11-kit.sock")
    provider = ("--provider", behind.module_path, "pkcs11:")
    command = ("p11-kit", "server", "--foreground", "--name", str(socket), *provider)
    with server(command, behind.env, directory / "p11-kit.log", lambda: accepts(socket)):
        yield replace(
            behind,
            name="p11kit",
            module_path=MODULE,
            env={"P11_KIT_SERVER_ADDRESS": f"unix:path={socket}"},
            has_gcm=behind.has_gcm and _version() >= FIRST_WITH_GCM,
        )


def _version() -> tuple[int, ...]:
    shown = run_tool("dpkg-query", "--show", "--showformat=${Version}", "p11-kit", env={})
    return tuple(int(number) for number in shown.split(".")[:2])
