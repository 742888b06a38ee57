"""``hwkm drive``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwkm import config as configuration
from hwkm import drive_verbs
from hwkm.agent import client, verbs
from hwkm.changer import Call, change
from hwkm.cli.context import JsonOption, caller, installation, settings
from hwkm.cli.output import print_checks, print_fields, print_json, print_table, text
from hwkm.deliveries import Deliveries
from hwkm.drive_verbs import Outcome, Request, Verb
from hwkm.errors import ConfigError
from hwkm.scsi.devices import EMULATOR
from hwkm.scsi.nodes import list_tape_devices

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(help="Tape drives that encrypt.", no_args_is_help=True, rich_markup_mode=None)

DeviceArgument = Annotated[
    str,
    typer.Argument(
        metavar="DEV",
        help="/dev/sgN, /dev/nstN, /dev/tape/by-id/… or emulator:FILE.",
        show_default=False,
    ),
]
AcceptOption = Annotated[
    str,
    typer.Option(
        metavar="SERIAL",
        help="Trust the changed wrapping key of the drive with this serial number.",
    ),
]
SocketOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="The agent's socket, if not the configuration's.",
        readable=False,  # that is for the agent to say
    ),
]


@app.command("list")
def list_drives(as_json: JsonOption = False) -> None:
    """List the tape drives and changers of this machine.

    Example: hwkm drive list
    """
    found = [
        {
            "device": str(node.sg),
            "tape": None if node.tape is None else str(node.tape),
            "vendor": node.vendor,
            "product": node.product,
            "kind": "changer" if node.changer else "drive",
        }
        for node in list_tape_devices()
    ]
    if as_json:
        print_json(found)
        return
    titles = ("DEVICE", "TAPE", "VENDOR", "PRODUCT", "KIND")
    print_table(titles, [[text(value) for value in row.values()] for row in found])


@app.command("probe")
def probe(
    context: typer.Context,
    device: DeviceArgument,
    socket: SocketOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a drive what it can do. Ends with status 1 if it can't encrypt.

    Example: hwkm drive probe /dev/nst0
    """
    _do(context, socket, Request(Verb.PROBE, device), as_json=as_json)


@app.command("status")
def status(
    context: typer.Context,
    device: DeviceArgument,
    socket: SocketOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a drive holds: modes, key names, and the cartridge. It never tells the key.

    Example: hwkm drive status /dev/nst0
    """
    _do(context, socket, Request(Verb.STATUS, device), as_json=as_json)


@app.command("load")
def load(
    context: typer.Context,
    device: DeviceArgument,
    volume: Annotated[str, typer.Option(metavar="VOLUME", help="The volume in the drive.")],
    create: Annotated[
        bool, typer.Option("--create", help="Make a new generation of the volume first.")
    ] = False,
    barcode: Annotated[
        str, typer.Option(metavar="TEXT", help="The cartridge's; another one is refused.")
    ] = "",
    accept_drive_key: AcceptOption = "",
    socket: SocketOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a volume's key into the drive, and read back that it encrypts with it.

    Example: hwkm drive load /dev/nst0 --volume Vol-0001 --create
    """
    request = Request(Verb.LOAD, device, volume, create, accept_drive_key, barcode)
    _do(context, socket, request, as_json=as_json)


@app.command("auto")
def auto(
    context: typer.Context,
    device: DeviceArgument,
    socket: SocketOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load the key that the tape itself asks for. Only one key is tried.

    Example: hwkm drive auto /dev/nst0
    """
    _do(context, socket, Request(Verb.AUTO, device), as_json=as_json)


@app.command("prove")
def prove(
    context: typer.Context,
    device: DeviceArgument,
    socket: SocketOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look at a block on the tape, whether it is encrypted with the key in the drive.

    Example: hwkm drive prove /dev/nst0
    """
    _do(context, socket, Request(Verb.PROVE, device), as_json=as_json)


@app.command("clear")
def clear(
    context: typer.Context,
    device: DeviceArgument,
    socket: SocketOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take whatever key it holds out of the drive, and read back that it is out.

    Example: hwkm drive clear /dev/nst0
    """
    _do(context, socket, Request(Verb.CLEAR, device), as_json=as_json)


@app.command("changer")
def changer(
    context: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- CMD ARGS…", help="The changer's command.", show_default=False),
    ],
    device: Annotated[
        str, typer.Option(metavar="DEV", help="The drive, if it is not CMD's fourth argument.")
    ] = "",
    socket: SocketOption = None,
) -> None:
    """Wrap Bacula's Changer Command: a load brings the key in, an unload takes it out.

    Example: Changer Command="hwkm drive changer -- /etc/bacula/scripts/mtx-changer %c %o %S %a %d"
    """
    call = Call.parse(command, device)
    if call.operation is None:
        raise typer.Exit(call.run())
    _way(context, socket)  # before a cartridge moves: what can't be done at all shall fail here
    raise typer.Exit(change(call, _Keys(context, socket)))


@dataclass(frozen=True, slots=True)
class _Keys:
    """Keys for a changer's drives, from whoever is there when they are needed."""

    context: typer.Context
    socket: Path | None

    def loaded(self, device: str) -> None:
        self._do(Request(Verb.LOADED, device))

    def unloading(self, device: str) -> None:
        self._do(Request(Verb.UNLOADING, device))

    def _do(self, request: Request) -> None:
        outcome = _way(self.context, self.socket)(request)
        if outcome.error is not None:
            raise outcome.error


def _do(context: typer.Context, socket: Path | None, request: Request, *, as_json: bool) -> None:
    """Do what is asked for, and show what came of it."""
    outcome = _way(context, socket)(request)
    if outcome.checks is not None:
        print_checks(outcome.checks, outcome.shown, as_json=as_json)
    elif outcome.shown:
        shown = {**outcome.rest, **outcome.shown} if as_json else outcome.shown
        print_fields(shown, as_json=as_json)
    if outcome.error is not None:
        raise outcome.error  # it says what to do
    if not outcome.ok:
        raise typer.Exit(1)


def _way(context: typer.Context, socket: Path | None) -> Callable[[Request], Outcome]:
    """Return how to work with a drive: through the agent, or where nobody listens in this process.

    :raises ConfigError: if there is neither an agent nor a configuration.
    """
    path = socket or _configured_socket(context)
    try:
        client.find(path)
    except client.NoAgentError as absent:
        return partial(_by_itself, _deliveries(context, absent))
    return partial(_through_agent, path)


def _configured_socket(context: typer.Context) -> Path:
    """Return where the agent listens, by the configuration if this user may read it."""
    path = settings(context).config
    try:
        return configuration.load(path).agent.socket
    except ConfigError as error:
        unread = isinstance(error.__cause__, OSError)
        if unread and (_is_closed(error) or path == configuration.DEFAULT_PATH):
            return client.DEFAULT_SOCKET
        raise


def _is_closed(error: ConfigError) -> bool:
    return isinstance(error.__cause__, PermissionError)


def _deliveries(context: typer.Context, absent: client.NoAgentError) -> Deliveries:
    try:
        return Deliveries.of(installation(context), caller())
    except ConfigError as error:
        if not _is_closed(error):
            raise
        raise ConfigError(
            f"{absent}; and without one {error}", hint=f"{absent.hint}. {error.hint}"
        ) from error


def _by_itself(deliveries: Deliveries, request: Request) -> Outcome:
    return drive_verbs.run(request, deliveries)


def _through_agent(path: Path, request: Request) -> Outcome:
    sent = verbs.fields(replace(request, device=_absolute(request.device)))
    answer = client.ask_for_drive(path, sent, partial(_say_what_is_waited_for, request.device))
    outcome = verbs.outcome_of(answer)
    if "device" not in outcome.shown:
        return outcome
    return replace(outcome, shown=outcome.shown | {"device": request.device})  # as it was called


def _absolute(device: str) -> str:
    """Return ``device`` as it is called in whatever directory; links stay as they are."""
    if device.startswith(EMULATOR):
        return EMULATOR + str(Path(device.removeprefix(EMULATOR)).absolute())
    return str(Path(device).absolute())


def _say_what_is_waited_for(device: str) -> None:
    """Tell a person why nothing happens; scripts and logs are spared."""
    if sys.stderr.isatty():
        minutes = round(client.VERB_SECONDS / 60)
        typer.echo(f"Waiting for the drive {device}; {minutes} minutes at most.", err=True)
