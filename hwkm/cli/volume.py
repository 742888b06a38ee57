"""``hwkm volume``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwkm.cli.context import JsonOption, caller, installation
from hwkm.cli.output import print_json, print_table, report, text, time_text
from hwkm.envelope import Scheme
from hwkm.errors import ConfigError, NotFoundError
from hwkm.key_files import MAX_FILE_BYTES, KeyFileKind, parse_key_file
from hwkm.keystore.records import ProofKind
from hwkm.manager import by_id
from hwkm.proofs import best_proofs
from hwkm.reading import parse_stored
from hwkm.supervise import protect
from hwkm.verify import check_volumes

if TYPE_CHECKING:
    from hwkm.key_files import ImportedKey
    from hwkm.keystore.records import Generation, Proof

app = typer.Typer(help="Volumes and generations.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_volumes(context: typer.Context, as_json: JsonOption = False) -> None:
    """List all volumes, with the newest generation of each.

    Example: hwkm volume list
    """
    with installation(context).keystore().open().reading() as transaction:
        newest = {record.volume: record for record in transaction.all_generations()}
        proofs = best_proofs(transaction)
    shown = [
        {"volume": name, **_generation(record), "proof": _proof(proofs.get(record.key_id))}
        for name, record in newest.items()
    ]
    if as_json:
        print_json(shown)
        return
    titles = ("VOLUME", "GENERATION", "CIPHER", "STATE", "DELIVERY", "CREATED", "LAST USED")
    keys = ("volume", "generation", "cipher", "state", "delivery", "created", "last_used")
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
        proofs = best_proofs(transaction)
    if not records:
        raise NotFoundError(f"there is no volume {volume!r}", hint="hwkm volume list shows all")
    shown = [
        {
            **_generation(record),
            "recipients": _recipients(blob, record),
            "proof": _proof(proofs.get(record.key_id)),
        }
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
    for row in shown:
        if row["proof"]:
            typer.echo(f"generation {row['generation']} {_proof_text(row['proof'])}")


@app.command("check")
def check(
    context: typer.Context,
    volumes: Annotated[
        list[str] | None, typer.Argument(metavar="VOLUME", help="All, if none is named.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Open every envelope with every recipient at hand. Says which don't open.

    It also says which tapes were never seen to be encrypted by their drive.

    Example: hwkm volume check Vol-0001 Vol-0002
    """
    site = installation(context)
    keystore = site.keystore().open()
    with keystore.reading() as transaction:
        records = by_id(transaction.masters())
    with site.tokens() as tokens:
        findings = check_volumes(keystore, tokens.identities(records), volumes or [])
        report(findings, as_json=as_json)


@app.command("import")
def import_key(
    context: typer.Context,
    volume: Annotated[str, typer.Argument(metavar="VOLUME")],
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The key file; - for standard input.")
    ],
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"{', '.join(KeyFileKind)}; without it, what the file looks like.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take up the key of a tape that stenc, LTFS, Bareos or another program encrypted.

    Example: hwkm volume import Old-0001 old-0001.key
    """
    protect()
    found = parse_key_file(_read(file), _kind(kind))  # before root's rights are given up
    site = installation(context)
    with site.tokens() as tokens:
        made = site.manager(tokens).import_key(volume, found.key, found.key_name, caller())
    header = made.envelope.header
    shown = {
        "volume": volume,
        "generation": header.generation,
        "key_id": header.key_id.hex(),
        "cipher": header.cipher.name,
        "format": found.kind.value,
        "key_name": found.key_name.hex(),
    }
    if as_json:
        print_json(shown)
        return
    typer.echo(f"Imported as generation {header.generation} of {volume}, key id {shown['key_id']}.")
    typer.echo(_about(found))


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    try:
        with Path(file).open("rb") as stream:
            return stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"the key file {file} can't be read: {error.strerror}",
            hint="Name a file that you may read, or - for standard input",
        ) from error


def _kind(name: str | None) -> KeyFileKind | None:
    try:
        return None if name is None else KeyFileKind(name)
    except ValueError:
        raise ConfigError(
            f"there is no key file format {name!r}", hint=f"Choose one of: {', '.join(KeyFileKind)}"
        ) from None


def _about(found: ImportedKey) -> str:
    if not found.key_name:
        return "Its tape does not name it: load it with hwkm drive load."
    name = found.key_name.decode("ascii", "replace")
    shown = repr(name) if name.isprintable() and name.isascii() else found.key_name.hex()
    return f"Its tape calls it {shown}: hwkm drive auto finds it by that."


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
        {
            "id": stanza.recipient_id.hex(),
            "kind": "escrow" if stanza.scheme is Scheme.ESCROW else "token",
            "scheme": stanza.scheme.label,
        }
        for stanza in parse_stored(blob, record).stanzas
    ]


def _proof(proof: Proof | None) -> dict[str, Any] | None:
    if proof is None:
        return None
    return {
        "at": time_text(proof.at),
        "kind": proof.kind.value,
        "encrypted": proof.encrypted,
        "drive_serial": proof.drive_serial,
        "cartridge_serial": proof.cartridge_serial,
        "job": proof.job,
    }


def _proof_text(proof: dict[str, Any]) -> str:
    looked_at = "on tape" if proof["kind"] == ProofKind.PROVE else "in the drive"
    found = "encrypted" if proof["encrypted"] else "NOT encrypted"
    place = f"drive {proof['drive_serial']}, cartridge {proof['cartridge_serial'] or 'unknown'}"
    job = f", job {proof['job']}" if proof["job"] else ""
    return f"{found} {looked_at} at {proof['at']} ({place}{job})"
