"""The command line: one module per noun. Parses, prints, exits; no logic."""

from __future__ import annotations

import io
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from hwkm import __version__
from hwkm.cli import (
    agent,
    bacula,
    check,
    drive,
    emulator,
    envelope,
    escrow,
    getkey,
    init,
    keystore,
    master,
    token,
    volume,
)
from hwkm.cli.context import Settings
from hwkm.cli.output import print_error
from hwkm.config import DEFAULT_PATH
from hwkm.errors import HwkmError

app = typer.Typer(
    name="hwkm",
    help="Hardware-backed key manager for encrypted backup volumes.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)
app.command("init")(init.init)
app.add_typer(token.app, name="token")
app.add_typer(master.app, name="master")
app.add_typer(volume.app, name="volume")
app.add_typer(envelope.app, name="envelope")
app.add_typer(escrow.app, name="escrow")
app.add_typer(keystore.app, name="keystore")
app.add_typer(drive.app, name="drive")
app.add_typer(emulator.app, name="emulator")
app.add_typer(bacula.app, name="bacula")
app.add_typer(agent.app, name="agent")
app.command("getkey")(getkey.getkey)
app.command("check")(check.check)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hwkm {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path,
        typer.Option(
            envvar="HWKM_CONFIG",
            metavar="FILE",
            help="The configuration file.",
            readable=False,  # whoever has an agent may do without; others are told by us
        ),
    ] = DEFAULT_PATH,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback with errors; it never holds keys.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Hardware-backed key manager for encrypted backup volumes."""
    del version, debug  # main() looks for --debug itself: an error can be older than this
    context.obj = Settings(config)


def main() -> None:
    """Run the command line; errors end it with their own exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale without our characters is no failure
    try:
        app()
    except Exception as error:  # noqa: BLE001  # whatever it is, people get a sentence
        if "--debug" in sys.argv:
            traceback.print_exc()
        known = error if isinstance(error, HwkmError) else _explained(error)
        print_error(known)
        sys.exit(known.exit_code)


def _explained(error: Exception) -> HwkmError:
    """Return an unforeseen error in words; but for the system's, its text could hold anything."""
    if isinstance(error, OSError) and error.strerror:
        return HwkmError(f"{error.filename or 'the system'}: {error.strerror}")
    return HwkmError(
        f"hwkm failed unexpectedly ({type(error).__name__})",
        hint="Run it again as hwkm --debug ... and report what that shows",
    )
