"""``hwkm master``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hwkm.checks import Check, fail
from hwkm.cli.context import (
    JsonOption,
    SchemeOption,
    TokenOption,
    caller,
    chosen_scheme,
    installation,
    now,
)
from hwkm.cli.output import print_json, print_table, report, text, time_text
from hwkm.errors import ConfigError, NotFoundError
from hwkm.health import check_master
from hwkm.provision import Provisioner, find_existing

if TYPE_CHECKING:
    from hwkm.keystore.records import MasterKey
    from hwkm.tokens import Tokens

app = typer.Typer(help="Master keys.", no_args_is_help=True, rich_markup_mode=None)


@app.command("create")
def create(
    context: typer.Context,
    token: TokenOption = None,
    scheme: SchemeOption = None,
    existing: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Adopt the key with this label or id (hex) instead."),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="For new volumes, take the active master key's place."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a master key in a token. Run again after an interruption, it finishes the work.

    Example: hwkm master create --token main
    """
    if existing is not None and scheme is None:
        raise ConfigError("--existing needs --scheme", hint="Say what the key is to be used for")
    wanted = chosen_scheme(scheme)
    site = installation(context)
    keystore = site.keystore().open_or_create(now(), caller().who)
    with site.tokens(writable=True) as tokens:
        session = tokens.session(token)
        provisioner = Provisioner(keystore, session, caller(), now())
        if existing is not None and wanted is not None:
            master_id = find_existing(session, wanted, existing)
            made = provisioner.adopt(wanted, master_id, replace_active=replace)
        else:
            made = provisioner.create(wanted, replace_active=replace)
    if as_json:
        print_json(_described(made, 0))
        return
    typer.echo(f"Master key {made.master_id.hex()} ({made.scheme.label}) in token {made.token}.")
    typer.echo("Back up the token and the keystore now.")


@app.command("list")
def list_masters(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the master keys on record, with how many envelopes need each.

    Example: hwkm master list
    """
    with installation(context).keystore().open().reading() as transaction:
        masters = transaction.masters()
        counts = transaction.envelopes_by_recipient()
    shown = [_described(master, counts[master.master_id]) for master in masters]
    if as_json:
        print_json(shown)
        return
    titles = ("ID", "LABEL", "TOKEN", "SCHEME", "STATE", "CREATED", "ENVELOPES")
    keys = ("id", "label", "token", "scheme", "state", "created", "envelopes")
    print_table(titles, [[text(row[key]) for key in keys] for row in shown])


@app.command("show")
def show(
    context: typer.Context,
    master_id: Annotated[str, typer.Argument(metavar="ID", help="Its id, or how it begins.")],
    as_json: JsonOption = False,
) -> None:
    """Show a master key and its attributes. They were read back when it was made.

    Example: hwkm master show 3f2a91
    """
    with installation(context).keystore().open().reading() as transaction:
        master = _find(transaction.masters(), master_id)
        count = transaction.envelopes_by_recipient()[master.master_id]
    shown = {**_described(master, count), "serial": master.serial, "attributes": master.attributes}
    if as_json:
        print_json(shown)
        return
    del shown["attributes"]
    named = {f"CKA_{name}": value for name, value in master.attributes.items()}
    for name, value in (shown | named).items():
        typer.echo(f"{name:<23}{text(value)}")


@app.command("check")
def check(context: typer.Context, as_json: JsonOption = False) -> None:
    """Let every master key on record open its canary.

    Example: hwkm master check
    """
    site = installation(context)
    with site.keystore().open().reading() as transaction:
        masters = transaction.masters()
    with site.tokens() as tokens:
        report([_check(tokens, master) for master in masters], as_json=as_json)


def _check(tokens: Tokens, master: MasterKey) -> Check:
    try:
        return check_master(tokens.session(master.token), master)
    except ConfigError as error:
        return fail(f"master key {master.master_id.hex()}", str(error), error.hint)


def _find(masters: list[MasterKey], prefix: str) -> MasterKey:
    found = [master for master in masters if master.master_id.hex().startswith(prefix.lower())]
    if len(found) != 1:
        raise NotFoundError(
            f"{len(found) or 'no'} master keys have an id that starts with {prefix!r}",
            hint="hwkm master list shows all",
        )
    return found[0]


def _described(master: MasterKey, envelopes: int) -> dict[str, object]:
    return {
        "id": master.master_id.hex(),
        "label": master.label,
        "token": master.token,
        "scheme": master.scheme.label,
        "state": master.state.value,
        "created": time_text(master.created),
        "envelopes": envelopes,
    }
