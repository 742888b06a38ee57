"""``hwkm init``."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Annotated

import typer

from hwkm.cli.context import JsonOption, SchemeOption, caller, chosen_scheme
from hwkm.cli.output import print_json
from hwkm.errors import ConfigError, PolicyError
from hwkm.privileges import become
from hwkm.supervise import protect


def init(
    home: Annotated[Path, typer.Option(metavar="DIR", help="The folder to make it in.")],
    softhsm: Annotated[
        bool, typer.Option("--softhsm", help="With a SoftHSM of its own as the token.")
    ] = False,
    owner: Annotated[
        str | None,
        typer.Option(metavar="USER", help="User that it is for (root only), such as bacula."),
    ] = None,
    scheme: SchemeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a complete private installation in a folder. Asks no questions.

    Example: hwkm init --home /var/lib/hwkm --softhsm --owner bacula
    """
    if not softhsm:
        raise ConfigError(
            "init needs --softhsm",
            hint="For another token write a config.toml, then run hwkm token init and "
            "hwkm master create; docs/tokens.md shows how",
        )
    wanted = chosen_scheme(scheme)
    folder = Path(os.path.abspath(home))  # noqa: PTH100  # resolve() would follow links
    protect()
    if owner is not None:
        _hand_over(folder, owner)
    from hwkm.initialize import initialize  # it needs alembic, which takes long to import

    made = initialize(folder, wanted, caller())
    if as_json:
        print_json({"config": str(folder / "config.toml"), "master_id": made.master_id.hex()})
        return
    typer.echo(f"Made {folder} with master key {made.master_id.hex()} ({made.scheme.label}).")
    typer.echo(_BACKUP.format(home=folder))


def _hand_over(folder: Path, owner: str) -> None:
    try:
        user = pwd.getpwnam(owner)
    except KeyError:
        raise ConfigError(f"there is no user {owner!r}") from None
    if os.geteuid() != 0:
        raise ConfigError("--owner is for root only")
    if (folder / "config.toml").exists():
        raise PolicyError(
            f"{folder} already holds an installation",
            hint="Use it with --config, or choose another folder; nothing was changed",
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        os.chown(folder, user.pw_uid, user.pw_gid)
    become(user.pw_uid)


_BACKUP = """\
Back up from {home}, and keep it apart from the volumes:
  tokens/, user-pin, so-pin    now: the master key; whoever has these has every volume key
  config.toml, softhsm2.conf   now: how it fits together
  keystore.db                  every day: the wrapped volume keys, useless without the master key
There is one recipient: if the token is lost, so is every volume. Add a second token to the policy.
Try it: hwkm --config {home}/config.toml check"""
