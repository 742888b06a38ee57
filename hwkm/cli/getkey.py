"""``hwkm getkey``: only for its help; the entry point answers it before this is imported."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hwkm.getkey import main


def getkey(
    device: Annotated[str, typer.Option(metavar="PATH", help="Bacula's %a, for the log.")] = "",
    job: Annotated[
        str, typer.Option(metavar="ID", help="Bacula's %i, for events and the log.")
    ] = "",
    cipher: Annotated[
        str,
        typer.Option(
            metavar="CIPHER",
            help="AES_256_XTS or AES_128_XTS for a new label, instead of the policy's.",
        ),
    ] = "",
    no_agent: Annotated[
        str,
        typer.Option(metavar="REASON", help="Why hwkm-getkey did without the agent, for the log."),
    ] = "",
) -> None:
    """Bacula's Encryption Command: environment in, reply out. Always exits with status 0.

    Example: Encryption Command="/opt/hwkm/bin/hwkm getkey --device %a --job %i"
    """
    del device, job, cipher, no_agent
    raise typer.Exit(main(sys.argv[1:]))
