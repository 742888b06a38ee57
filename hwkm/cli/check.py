"""``hwkm check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwkm.bacula_sd import check_storage_daemon
from hwkm.cli.context import JsonOption, installation
from hwkm.cli.output import report
from hwkm.health import check_installation


def check(
    context: typer.Context,
    bacula_sd: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also read this configuration of a Storage Daemon."),
    ] = None,
    sd_user: Annotated[
        str, typer.Option(metavar="USER", help="User that the Storage Daemon runs as.")
    ] = "bacula",
    as_json: JsonOption = False,
) -> None:
    """Look at everything that a key depends on. Fit for Bacula's RunBeforeJob.

    Example: hwkm check --bacula-sd /etc/bacula/bacula-sd.conf
    """
    site = installation(context)
    found = check_installation(site)
    if bacula_sd is not None:
        by_drives = site.config.policy.uses_drives
        found += check_storage_daemon(bacula_sd, sd_user=sd_user, by_drives=by_drives)
    report(found, as_json=as_json)
