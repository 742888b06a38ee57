"""The command line: one module per noun. Parses, prints, exits; no logic."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hwkm import __version__
from hwkm.cli import check, envelope, getkey, init, keystore, master, token, volume
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
app.add_typer(keystore.app, name="keystore")
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
        Path, typer.Option(envvar="HWKM_CONFIG", help="The configuration file.")
    ] = DEFAULT_PATH,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback with errors; it never holds keys.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Hardware-backed key manager for encrypted backup volumes."""
    del version
    context.obj = Settings(config, debug)


def main() -> None:
    """Run the command line; errors end it with their own exit status."""
    try:
        app()
    except HwkmError as error:
        if "--debug" in sys.argv:
            raise
        print_error(error)
        sys.exit(error.exit_code)
