"""``hwkm volume``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwkm.cli.context import JsonOption, installation
from hwkm.cli.output import print_json, print_table, report, text, time_text
from hwkm.errors import NotFoundError
from hwkm.manager import by_id
from hwkm.reading import parse_stored
from hwkm.verify import check_volumes

if TYPE_CHECKING:
    from hwkm.keystore.records import Generation

app = typer.Typer(help="Volumes and generations.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_volumes(context: typer.Context, as_json: JsonOption = False) -> None:
    """List all volumes, with the newest generation of each.

    Example: hwkm volume list
    """
    with installation(context).keystore().open().reading() as transaction:
        newest = {record.volume: record for record in transaction.all_generations()}
    shown = [{"volume": name, **_generation(record)} for name, record in newest.items()]
    if as_json:
        print_json(shown)
        return
    titles = ("VOLUME", "GENERATION", "CIPHER", "STATE", "CREATED", "LAST USED")
    keys = ("volume", "generation", "cipher", "state", "created", "last_used")
    print_table(titles, [[text(row[key]) for key in keys] for row in shown])


@app.command("show")
def show(
    context: typer.Context,
    volume: Annotated[str, typer.Argument(metavar="VOLUME")],
    as_json: JsonOption = False,
) -> None:
    """Show every generation of a volume, and who can open it.

    Example: hwkm volume show Vol-0001
    """
    with installation(context).keystore().open().reading() as transaction:
        records = transaction.generations(volume)
        blobs = [transaction.envelope(record.key_id) for record in records]
    if not records:
        raise NotFoundError(f"there is no volume {volume!r}", hint="hwkm volume list shows all")
    shown = [
        {**_generation(record), "recipients": _recipients(blob, record), "proof": None}
        for record, blob in zip(records, blobs, strict=True)
    ]
    if as_json:
        print_json({"volume": volume, "generations": shown})
        return
    titles = ("GENERATION", "KEY ID", "CIPHER", "STATE", "DELIVERY", "CREATED", "LAST USED")
    keys = ("generation", "key_id", "cipher", "state", "delivery", "created", "last_used")
    print_table(titles, [[text(row[key]) for key in keys] for row in shown])
    for row in shown:
        for recipient in row["recipients"]:
            typer.echo(
                f"generation {row['generation']} opens with {recipient['id']} "
                f"({recipient['kind']}, {recipient['scheme']})"
            )


@app.command("check")
def check(
    context: typer.Context,
    volumes: Annotated[
        list[str] | None, typer.Argument(metavar="VOLUME", help="All, if none is named.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Open every envelope with every recipient at hand. Says which don't open.

    Example: hwkm volume check Vol-0001 Vol-0002
    """
    site = installation(context)
    keystore = site.keystore().open()
    with keystore.reading() as transaction:
        records = by_id(transaction.masters())
    with site.tokens() as tokens:
        findings = check_volumes(keystore, tokens.identities(records), volumes or [])
        report(findings, as_json=as_json)


def _generation(record: Generation) -> dict[str, Any]:
    return {
        "generation": record.generation,
        "key_id": record.key_id.hex(),
        "cipher": record.cipher.name,
        "state": record.state.value,
        "delivery": record.delivery.value,
        "created": time_text(record.created),
        "last_used": time_text(record.last_used),
    }


def _recipients(blob: bytes | None, record: Generation) -> list[dict[str, str]]:
    return [
        {"id": stanza.recipient_id.hex(), "kind": "token", "scheme": stanza.scheme.label}
        for stanza in parse_stored(blob, record).stanzas
    ]
