"""``hwkm token``."""

from __future__ import annotations

import getpass
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hwkm.cli.context import JsonOption, TokenOption, installation, pin_reader
from hwkm.cli.output import print_json, print_table, report, text
from hwkm.errors import ConfigError, PinError
from hwkm.keys import SecretBytes
from hwkm.supervise import protect
from hwkm.token import lock
from hwkm.token.change_pin import change_pin_file, generate_pin
from hwkm.token.initialize import TokenRequest, initialize_token
from hwkm.token.lint import lint
from hwkm.token.module import loaded
from hwkm.token.pin_source import PinSource
from hwkm.token.probe import choose_scheme, probe

app = typer.Typer(help="PKCS#11 tokens.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_tokens(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the tokens behind every configured module. Nobody is logged in.

    Example: hwkm token list --json
    """
    site = installation(context)
    shown = []
    places = {(s.module_path, *sorted(s.environment.items())): s for s in site.config.tokens}
    for settings in places.values():
        path, environment = settings.module_path, settings.environment
        with lock.held(site.config.runtime_dir, site.lock_seconds), loaded(path, environment) as m:
            shown += [
                {
                    "label": info.label,
                    "serial": info.serial,
                    "manufacturer": info.manufacturer,
                    "model": info.model,
                    "slot_id": info.slot_id,
                    "initialized": info.initialized,
                    "module": settings.module_path,
                }
                for info, _ in m.tokens()
            ]
    if as_json:
        print_json(shown)
        return
    for row in shown:
        row["label"] = row["label"] if row["initialized"] else "(not initialised)"
    titles = ("LABEL", "SERIAL", "MANUFACTURER", "MODEL", "SLOT", "MODULE")
    keys = ("label", "serial", "manufacturer", "model", "slot_id", "module")
    print_table(titles, [[text(row[key]) for key in keys] for row in shown])


@app.command("probe")
def probe_token(
    context: typer.Context, token: TokenOption = None, as_json: JsonOption = False
) -> None:
    """Find out what really works on a token, by trying it. Nothing stays on it.

    Example: hwkm token probe --token main
    """
    with installation(context).tokens(writable=True) as tokens:
        session = tokens.session(token)
        trials = probe(session)
        info = session.info
    works = any(trial.works for trial in trials[1:])
    scheme = choose_scheme(trials).label if works else None
    if as_json:
        shown = [
            {"name": t.name, "works": t.works, "detail": t.detail, "milliseconds": t.milliseconds}
            for t in trials
        ]
        print_json({"token": info.label, "serial": info.serial, "scheme": scheme, "trials": shown})
        return
    typer.echo(f"Token {info.label!r}, serial {info.serial}, {info.manufacturer} {info.model}")
    rows = [
        (trial.name, "works" if trial.works else "no", f"{trial.milliseconds:.1f}", trial.detail)
        for trial in trials
    ]
    print_table(("TRIED", "RESULT", "MS", "DETAIL"), rows)
    typer.echo(f"Scheme for a new master key: {scheme or 'none'}")


@app.command("lint")
def lint_token(
    context: typer.Context, token: TokenOption = None, as_json: JsonOption = False
) -> None:
    """Look for dangerous attributes and half-made keys on a token.

    Example: hwkm token lint --token main
    """
    with installation(context).tokens() as tokens:
        report(lint(tokens.session(token)), as_json=as_json)


@app.command("init")
def init_token(
    module: Annotated[Path, typer.Option(metavar="FILE", help="The PKCS#11 module.")],
    slot: Annotated[
        int, typer.Option(metavar="SLOT", help="The slot's id, as token list shows it.")
    ],
    label: Annotated[str, typer.Option(metavar="LABEL", help="The token's new label.")],
    pin_file: Annotated[
        Path, typer.Option(metavar="FILE", help="User PIN; made at random if not there.")
    ],
    so_pin_file: Annotated[
        Path, typer.Option(metavar="FILE", help="SO PIN; made at random if not there.")
    ],
    environment: Annotated[
        list[str] | None,
        typer.Option(
            "--environment",
            metavar="NAME=VALUE",
            help="Variable for the module; can be given several times.",
        ),
    ] = None,
) -> None:
    """Initialise the token in a slot through its vendor's tool. One that has keys is refused.

    \b
    Example:
      hwkm token init --module /usr/lib/softhsm/libsofthsm2.so --slot 0 \\
        --label backup --pin-file /etc/hwkm/pin --so-pin-file /etc/hwkm/so-pin
    """  # noqa: D301  # click's mark for lines to be kept is a real backspace
    protect()
    variables = dict(_variable(word) for word in environment or [])
    request = TokenRequest(str(module), variables, slot, label, pin_file, so_pin_file)
    typer.echo(f"Initialised. Its URI for the configuration:\n{initialize_token(request)}")


@app.command("change-pin")
def change_pin(
    context: typer.Context,
    token: TokenOption = None,
    new_pin: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Where the new PIN comes from: file:PATH, fd:N, prompt. Random without.",
        ),
    ] = None,
) -> None:
    """Change a token's user PIN, and the file it is read from.

    Example: hwkm token change-pin --token main
    """
    site = installation(context)
    settings = site.config.token(token)
    pin = generate_pin() if new_pin is None else _read_new_pin(PinSource.parse(new_pin))
    path = change_pin_file(settings, site.access, pin)
    typer.echo(f"Changed. {path} holds the new PIN; back it up.")


def _read_new_pin(source: PinSource) -> SecretBytes:
    reader = pin_reader()
    if reader.prompt is not None:
        reader = replace(reader, prompt=_ask_twice)
    pin = reader.read(source, "the new PIN")
    if pin is None:
        raise ConfigError("the new PIN can't come from a PIN pad")
    return pin


def _ask_twice(_prompt: str) -> str:
    first = getpass.getpass("New PIN: ")
    if getpass.getpass("The new PIN again: ") != first:
        raise PinError("the two PINs differ; nothing was changed")
    return first


def _variable(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise ConfigError(f"--environment {word!r} is not NAME=VALUE")
    return name, value
