"""``hwkm keystore``."""

from __future__ import annotations

import typer

from hwkm.cli.context import installation

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
