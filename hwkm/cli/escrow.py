"""``hwkm escrow``: a key that opens everything when no token is left."""

from __future__ import annotations

import getpass
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwkm import config as configuration
from hwkm import escrow, recovery
from hwkm.checks import all_ok
from hwkm.cli.context import JsonOption, caller, installation, now, settings
from hwkm.cli.output import print_checks, print_json, print_table, text, time_text
from hwkm.errors import ConfigError, EnvelopeError, HwkmError, ParseError
from hwkm.escrow_page import page
from hwkm.keys import SecretBytes
from hwkm.keystore.engine import Keystore
from hwkm.recipients.escrow import generate
from hwkm.supervise import protect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.checks import Check
    from hwkm.config import Config
    from hwkm.escrow import Share
    from hwkm.keystore.records import EscrowKey
    from hwkm.recipients.escrow import EscrowIdentity
    from hwkm.recovery import Found

MAX_TEXT_BYTES = 65536

app = typer.Typer(
    help="A key that opens everything when no token is left.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
PassphraseOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where the passphrase is; without it, you are asked."),
]


@app.command("new")
def new(
    context: typer.Context,
    pages: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A new folder for a page to print of each share."),
    ] = None,
    words: Annotated[bool, typer.Option("--words", help="Show the shares' words here.")] = False,
    file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A new file for the whole key, under a passphrase."),
    ] = None,
    passphrase_file: PassphraseOption = None,
    shares: Annotated[
        str, typer.Option(metavar="K/N", help="How many shares are enough, of how many.")
    ] = "2/3",
    replace: Annotated[
        bool, typer.Option("--replace", help="For new volumes, take the escrow key's place.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make an escrow key: the public half for the keystore, the private half for you alone.

    Say how you want the private half: as pages to print, as words, in a file, or several of these.
    hwkm keeps none of it. From then on each new volume key is wrapped for the escrow key, too.

    Example: hwkm escrow new --pages /media/stick/shares
    """
    if pages is None and file is None and not words:
        raise ConfigError(
            "it must be said where the private half goes", hint="Give --pages, --words or --file"
        )
    if words and as_json:
        raise ConfigError("--words are no JSON", hint="Leave out --json, or take --pages")
    protect()
    config = configuration.load(settings(context).config)
    key = generate()
    parts = escrow.split(key, *_numbers(shares))
    if file is not None:
        _write_file(file, key, _new_passphrase(passphrase_file))
    if pages is not None:
        _write_pages(pages, parts, key, config)
    if words:
        _show_words(parts)
    try:
        made = _register(context, key, replace=replace)
    except HwkmError:
        typer.echo("The private half is of no use now: destroy what was just written.", err=True)
        raise
    if as_json:
        print_json({**_described(made, 0), "shares": len(parts), "needed": parts[0].threshold})
        return
    typer.echo(f"Escrow key {made.recipient_id.hex()}: new volume keys are wrapped for it, too.")
    typer.echo(f'Put escrow_key = "{made.recipient_id.hex()}" into the configuration.')
    typer.echo("Labels have no room for such a copy: keep backups of the keystore, too.")
    typer.echo("Try the private half now, on another machine: hwkm escrow open")


@app.command("list")
def list_keys(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the escrow keys on record, with how many envelopes have a copy for each.

    Example: hwkm escrow list
    """
    with installation(context).keystore().open().reading() as transaction:
        known = transaction.escrow_keys()
        counts = transaction.envelopes_by_recipient()
    shown = [_described(one, counts[one.recipient_id]) for one in known]
    if as_json:
        print_json(shown)
        return
    titles = ("ID", "STATE", "CREATED", "MADE BY", "ENVELOPES")
    keys = ("id", "state", "created", "made_by", "envelopes")
    print_table(titles, [[text(row[key]) for key in keys] for row in shown])


@app.command("open")
def open_all(
    context: typer.Context,
    envelopes: Annotated[
        list[Path] | None,
        typer.Argument(metavar="ENVELOPE", help="Files of an envelope each; base64, too."),
    ] = None,
    share: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A file with shares; without any, you are asked."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file that has the whole key.")
    ] = None,
    passphrase_file: PassphraseOption = None,
    keystore: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A keystore's file, or a backup of one: a copy."),
    ] = None,
    volume: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Of a keystore, only this volume.")
    ] = None,
    rewrap: Annotated[
        bool,
        typer.Option("--rewrap", help="Wrap what opens for the policy's tokens, and keep that."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Rebuild the escrow key, and see what it opens. Needs no token and no configuration.

    No volume key is shown. With --rewrap it needs both: each key that opens is wrapped for the
    policy's master keys, and kept in the keystore. That keystore's own envelopes are opened if
    there is neither ENVELOPE nor --keystore.

    Example: hwkm escrow open --share one --share two --keystore backup.db
    """
    protect()
    key = _rebuild(share or [], file, passphrase_file)
    sources = [_read_envelope(path) for path in envelopes or []]
    if not rewrap:
        _report(key, recovery.try_all(key, _all(sources, keystore, volume or [])), as_json=as_json)
        return
    foreign = list(_all(sources, keystore, volume or []))  # before root's rights are given up
    site = installation(context)
    target = site.keystore().open()
    found = iter(foreign) if foreign else recovery.read_keystore(target, volume or [])
    with site.tokens() as tokens:
        rewrapper = recovery.Rewrapper(site.config, tokens, target, key, caller())
        _report(key, rewrapper.rewrap_all(found, now()), as_json=as_json)


def _report(key: EscrowIdentity, findings: Iterator[Check], *, as_json: bool) -> None:
    checks = list(findings)
    summary: dict[str, object] = {"escrow_key": key.recipient.recipient_id.hex()}
    if as_json:
        summary["ok"] = all_ok(checks)
    print_checks(checks, summary, as_json=as_json)
    if not all_ok(checks):
        raise typer.Exit(1)


def _all(sources: list[Found], keystore: Path | None, volumes: list[str]) -> Iterator[Found]:
    yield from sources
    if keystore is not None:
        url = f"sqlite:///{keystore.absolute()}"
        yield from recovery.read_keystore(Keystore.open(url), volumes)


def _register(context: typer.Context, key: EscrowIdentity, *, replace: bool) -> EscrowKey:
    who, at = caller().who, now()
    keystore = installation(context).keystore().open_or_create(at, who)
    return recovery.register(keystore, key.recipient, replace=replace, now=at, who=who)


# the private half, out


def _numbers(shares: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,2})/(\d{1,2})", shares, re.ASCII)
    if found is None:
        raise ConfigError(f"--shares {shares!r} is not understood", hint="Like 2/3: two of three")
    return int(found[1]), int(found[2])


def _write_file(path: Path, key: EscrowIdentity, passphrase: SecretBytes) -> None:
    _write_new(path, escrow.protect(key, passphrase))
    if escrow.unprotect(_read(path), passphrase).seed != key.seed:
        raise EnvelopeError(f"{path} does not give the escrow key back: throw it away")


def _write_pages(folder: Path, parts: list[Share], key: EscrowIdentity, config: Config) -> None:
    made = f"at {time_text(now())}"
    if config.installation:
        made += f" for installation {config.installation}"
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise ConfigError(
            f"the folder {folder} can't be made: {error.strerror}", hint="Name a new one"
        ) from error
    for part in parts:
        text = page(part, key.recipient.recipient_id, made)
        _write_new(folder / f"share-{part.number}-of-{part.count}.html", text.encode())


def _write_new(path: Path, data: bytes) -> None:
    """Write a new file that nobody else can read, and wait until it is on the disk."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise ConfigError(
            f"{path} can't be written: {error.strerror}", hint="Name a new file on a whole disk"
        ) from error
    if _read(path) != data:
        raise ConfigError(f"{path} does not hold what was written", hint="Take another disk")


def _show_words(parts: list[Share]) -> None:
    for part in parts:
        words = part.words.expose().decode("ascii")
        typer.echo(f"Share {part.number} of {part.count}:\n{words}")


# the private half, in


def _rebuild(shares: list[Path], file: Path | None, passphrase: Path | None) -> EscrowIdentity:
    if file is not None and shares:
        raise ConfigError("--file has the whole key", hint="Leave out --share, or --file")
    if file is not None:
        return escrow.unprotect(_read(file), _passphrase(passphrase))
    if shares:
        texts = [text for path in shares for text in escrow.shares_in(_text(path))]
        return escrow.join(texts)
    if not sys.stdin.isatty():
        return escrow.join(escrow.shares_in(_decoded(sys.stdin.buffer.read(MAX_TEXT_BYTES + 1))))
    return _ask_for_shares()


def _ask_for_shares() -> EscrowIdentity:
    """Ask until there are enough; a share that was mistyped is asked for again."""
    texts: list[str] = []
    while True:
        number = len(texts) + 1
        try:
            typed = input(f"Words of share {number}, in one line: ")
            escrow.check_share(number, typed)
        except EOFError:
            return escrow.join(texts)  # which says how many are needed
        except ParseError as error:
            typer.echo(error.diagnostics(), err=True)
            continue
        texts.append(typed)
        if escrow.is_enough(texts):
            return escrow.join(texts)


def _new_passphrase(path: Path | None) -> SecretBytes:
    first = _passphrase(path)
    if path is None and _passphrase(None, "Once more: ") != first:
        raise ConfigError("these are two passphrases", hint="Begin again")
    return first


def _passphrase(path: Path | None, prompt: str = "Passphrase of the escrow key: ") -> SecretBytes:
    if path is not None:
        return SecretBytes(_read(path).removesuffix(b"\n"))
    if not sys.stdin.isatty():
        raise ConfigError(
            "a passphrase is needed, and there is nobody to ask", hint="Give --passphrase-file"
        )
    return SecretBytes(getpass.getpass(prompt).encode("utf-8", "surrogateescape"))


def _read_envelope(path: Path) -> Found:
    return recovery.read_envelope(_read(path), str(path))


def _text(path: Path) -> str:
    return _decoded(_read(path))


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ParseError("what should be shares is no text") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"{path} can't be read: {error.strerror}", hint="Name a file that you may read"
        ) from error
    if len(data) > MAX_TEXT_BYTES:
        raise ParseError(f"{path} is too long to be what it should")
    return data


def _described(one: EscrowKey, envelopes: int) -> dict[str, object]:
    return {
        "id": one.recipient_id.hex(),
        "state": one.state.value,
        "created": time_text(one.created),
        "made_by": one.made_by,
        "envelopes": envelopes,
    }
