"""``hwkm agent ...``: the process that owns the token for as long as the host runs."""

from __future__ import annotations

from dataclasses import replace

import typer

from hwkm import config as configuration
from hwkm.agent import client
from hwkm.cli.context import JsonOption, installation, settings
from hwkm.cli.output import print_fields
from hwkm.token.pin import PinReader

app = typer.Typer(help="The long-lived process that hands out keys.", no_args_is_help=True)


@app.command("run")
def run(context: typer.Context) -> None:
    """Be the agent, in the foreground, until SIGTERM. SIGHUP reads the configuration again.

    Example: hwkm agent run
    """
    from hwkm.agent import front  # all of hwkm, which no other command needs

    site = installation(context)
    # There is nobody to ask for a PIN, least of all when the token's process is started anew.
    front.run(replace(site, pins=PinReader(site.pins.credentials)))


@app.command("status")
def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show what the agent has done so far. Without one the status is 1.

    Example: hwkm agent status --json
    """
    config = configuration.load(settings(context).config)
    print_fields(client.status(config.agent.socket), as_json=as_json)


@app.command("stop")
def stop(context: typer.Context) -> None:
    """Let the agent answer what it was asked, and end. Without one the status is 1.

    Under systemd, systemctl stop hwkm-agent does the same.

    Example: hwkm agent stop
    """
    config = configuration.load(settings(context).config)
    client.stop(config.agent.socket)
