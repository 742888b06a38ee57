"""``hwkm keystore``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwkm import kept
from hwkm.cli.context import JsonOption, TokenOption, caller, installation, now
from hwkm.cli.output import print_checks, print_fields, time_text
from hwkm.manager import by_id
from hwkm.verify import open_all

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hwkm.installation import Installation
    from hwkm.keystore.backup import Manifest
    from hwkm.keystore.records import Generation
    from hwkm.verify import Opened

MOST_SHOWN = 20
"""How many envelopes that don't open are listed for people."""

app = typer.Typer(help="The keystore database.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Work on the keystore database."""


@app.command("migrate")
def migrate(context: typer.Context) -> None:
    """Bring the keystore to this release's revision. Back it up first.

    Example: hwkm keystore migrate
    """
    from hwkm.keystore import migrate as migrations  # alembic takes long to import

    revision = migrations.migrate(installation(context).config.keystore)
    typer.echo(f"The keystore is at revision {revision}.")


@app.command("backup")
def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")],
    with_token: Annotated[
        bool, typer.Option("--with-token", help="Also the files of tokens that are a SoftHSM.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the whole keystore into one new file, while hwkm works.

    No key is in it in clear, and nothing that opens without a token. With --with-token the master
    keys are in it, behind the token's PIN: keep such a file as you keep the token. FILE belongs to
    the user that hwkm runs as, who must be able to write to its folder.

    Example: hwkm keystore backup /safe/keystore/2026-11-24.db
    """
    from hwkm.keystore import backup as backups

    site = installation(context)
    config, path = site.config, file.absolute()
    tokens: list[str] = []
    if with_token:
        from hwkm import token_copy

        made, tokens = token_copy.make_backup(
            config, path, site.lock_seconds, now=now(), who=caller().who
        )
    else:
        made = backups.make(config.keystore, config.installation, path, now=now(), who=caller().who)
    said = {"tokens_behind_their_pin": tokens, "keys_in_clear": 0}
    print_fields({"file": str(path), **_contents(made), **said}, as_json=as_json)


@app.command("restore")
def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What keystore backup made.")],
    token_to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write the tokens' files into this new folder."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the keystore again out of its backup, where there is none, and open all envelopes.

    The file is looked at as a whole before anything is made. Afterwards every envelope is opened
    with the tokens at hand. With status 1 the keystore is restored, but some don't open.

    Example: hwkm keystore restore /safe/keystore/2026-11-24.db
    """
    from hwkm import token_copy
    from hwkm.keystore import backup as backups
    from hwkm.keystore import restore as restoring

    site = installation(context)
    config = site.config
    if token_to is not None:
        token_copy.refuse_used(token_to.absolute())
    found = restoring.restore(
        config.keystore, config.installation, file, now=now(), who=caller().who
    )
    if token_to is not None:
        token_copy.unpack(backups.attached_files(found), token_to.absolute())
    result = _open_all(site)
    summary = {
        "restored_from": str(file.absolute()),
        **_contents(found.manifest),
        "opened": result.opened,
        "unopened": result.unopened,
    }
    shown = result.failures if as_json else result.failures[:MOST_SHOWN]
    print_checks(shown, summary, as_json=as_json)
    if left := len(result.failures) - len(shown):
        typer.echo(f"and {left} more: hwkm volume check shows all")
    if result.failures:
        raise typer.Exit(1)


@app.command("copy")
def copy(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="An empty database.")],
    as_json: JsonOption = False,
) -> None:
    """Copy the keystore into another, empty database, and compare.

    Stop agent and Storage Daemon first: what is written meanwhile is not in the copy. The
    configuration goes on naming the old one until you change it.

    Example: hwkm keystore copy postgresql+psycopg://hwkm@db.example.org/hwkm
    """
    from hwkm.keystore import copy as copying

    config = installation(context).config
    with copying.copy(config.keystore, url).reading() as transaction:
        generations = sum(1 for _ in transaction.all_generations())
    print_fields({"generations": generations, "compared": True}, as_json=as_json)


@app.command("kept")
def keep(
    context: typer.Context,
    item: Annotated[kept.Item, typer.Argument(metavar="ITEM", help="What there is a copy of.")],
    token: TokenOption = None,
) -> None:
    """Note that a copy of something is in a safe place, for the list that hwkm check shows.

    A token, its PINs, or the configuration. Backups of the keystore are noted when they are made.

    Example: hwkm keystore kept token --token main
    """
    site = installation(context)
    settings = None if item is kept.Item.CONFIGURATION else site.config.token(token)
    with site.keystore().open().writing() as transaction:
        kept.tick(transaction, item, settings, now(), caller().who)
    typer.echo(f"Noted: there is a copy of {item.of(settings)}.")


def _contents(made: Manifest) -> dict[str, Any]:
    newest = made.newest_event
    return {
        "made": time_text(made.made),
        "installation": made.installation,
        "volumes": made.rows("volume"),
        "generations": made.rows("generation"),
        "envelopes": made.rows("envelope"),
        "master_keys": made.rows("master_key"),
        "events": made.rows("event"),
        "newest_event": None if newest is None else time_text(newest[1]),
    }


def _open_all(site: Installation) -> Opened:
    keystore = site.keystore().open()
    with keystore.reading() as transaction:
        records = by_id(transaction.masters())
    with site.tokens() as tokens:
        return open_all(keystore, tokens.identities(records), _watched)


def _watched(records: Iterable[Generation]) -> Iterable[Generation]:
    """Show a bar on a terminal."""
    if not sys.stderr.isatty():
        return records
    from rich.console import Console
    from rich.progress import track

    return track(records, "Opening envelopes", console=Console(stderr=True), transient=True)
