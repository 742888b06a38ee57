"""``hwkm bacula``."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import Annotated, Any

import typer

from hwkm import bacula_setup
from hwkm import config as configuration
from hwkm.agent.unit_files import Service
from hwkm.bacula_setup import Setup
from hwkm.checks import all_ok
from hwkm.cli.context import JsonOption, settings
from hwkm.cli.output import print_checks
from hwkm.errors import ConfigError

UNIT_FOLDER = Path("/etc/systemd/system")

app = typer.Typer(help="Bacula's Storage Daemon and the agent.", no_args_is_help=True)


@app.callback()
def bacula() -> None:
    """Bacula's Storage Daemon and the agent."""


@app.command()
def setup(
    context: typer.Context,
    write: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the units there, instead of showing them."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite units that are there and differ.")
    ] = False,
    sd_config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also look at this configuration of a Storage Daemon."),
    ] = None,
    sd_user: Annotated[
        str, typer.Option(metavar="USER", help="User that the Storage Daemon runs as.")
    ] = "bacula",
    as_json: JsonOption = False,
) -> None:
    """Show what Bacula and systemd need, and try it. What can be is tried as the daemon's user.

    Example: hwkm bacula setup --write /etc/systemd/system
    """
    config = configuration.load(settings(context).config.absolute())
    found = Setup(Service(config, _program()), sd_user, sd_config)
    files = found.files()
    written = bacula_setup.write(files, write, force=force) if write else {}
    checks = found.checks()
    if not as_json:
        _print_texts(found, {} if write else files, written, write)
    document = _document(found, files, written) | {"ok": all_ok(checks)} if as_json else {}
    print_checks(checks, document, as_json=as_json)
    if not all_ok(checks):
        raise typer.Exit(1)


def _program() -> Path:
    """Return the hwkm that runs, by the name that it was called by.

    :raises ConfigError: if it can't be told.
    """
    called = Path(sys.argv[0])
    candidates = (called.absolute(), Path(sysconfig.get_path("scripts")) / "hwkm")
    for path in candidates:
        if path.name == "hwkm" and path.is_file():
            return path
    raise ConfigError("it can't be told where hwkm is installed", hint="Call it by its full path")


def _document(found: Setup, files: dict[str, str], written: dict[str, str]) -> dict[str, Any]:
    return {
        "encryption_command": found.encryption_command,
        "changer_commands": found.changer_commands,
        "groups": found.group_commands,
        "files": files,
        "written": written,
    }


def _print_texts(
    found: Setup, files: dict[str, str], written: dict[str, str], folder: Path | None
) -> None:
    typer.echo("# In the Storage resource of bacula-sd.conf:")
    typer.echo(f'Encryption Command = "{found.encryption_command}"\n')
    for command in found.changer_commands:
        typer.echo("# In the Autochanger, or in the Device of each tape drive:")
        typer.echo(f'Changer Command = "{command}"\n')
    for command in found.group_commands:
        typer.echo(f"# As root:\n{command}\n")
    for name, text in files.items():
        typer.echo(f"# --- {UNIT_FOLDER / name} ---\n{text}")
    for name, what in written.items():
        typer.echo(f"{what}: {(folder or UNIT_FOLDER) / name}")
    typer.echo("# Then, as root:")
    typer.echo("systemctl daemon-reload && systemctl enable --now hwkm-agent.service\n")
