"""``hwkm emulator``: a tape drive in a file, to try everything out without a real one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from hwkm.cli.context import JsonOption
from hwkm.cli.output import print_json, print_table, text
from hwkm.scsi.emulator import (
    DEFAULT_PROFILE,
    KINDS,
    LIES,
    PROFILES,
    QUIRKS,
    Drive,
    EmulatorTransport,
)
from hwkm.scsi.emulator import (
    create as create_drive,
)
from hwkm.scsi.emulator.stream import read_file, to_the_beginning, write_file
from hwkm.scsi.transport import MAX_ALLOCATION

BLOCK_BYTES = 32768

app = typer.Typer(
    help="Play with a tape drive in a file.", no_args_is_help=True, rich_markup_mode=None
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The drive's file.")]
RewindOption = Annotated[bool, typer.Option("--rewind", help="Rewind the tape first.")]


@app.callback()
def _group() -> None:
    """Play with a tape drive in a file. Other commands call it emulator:FILE."""


@app.command("create")
def create(
    file: FileArgument,
    profile: Annotated[
        str, typer.Option(metavar="PROFILE", help=f"One of {', '.join(PROFILES)}.")
    ] = DEFAULT_PROFILE,
    cartridge: Annotated[
        str | None, typer.Option(metavar="BARCODE", help="Insert a new cartridge at once.")
    ] = None,
    serial: Annotated[
        str, typer.Option(metavar="SERIAL", help="Serial number; else the profile's.")
    ] = "",
    quirk: Annotated[
        list[str], typer.Option(metavar="QUIRK", help=f"Any of {', '.join(sorted(QUIRKS))}.")
    ] = [],  # noqa: B006  # typer makes a list of its own
) -> None:
    """Make a drive in a new file. Whatever key it is given is kept in that file, in clear.

    Example: hwkm emulator create drive.db --profile hpe-lto-9 --cartridge HWK001L9
    """
    drive = create_drive(file, profile, serial=serial, cartridge=cartridge, quirks=quirk)
    typer.echo(f"{drive.name}: a {profile} drive")


@app.command("insert")
def insert(
    file: FileArgument,
    barcode: Annotated[str, typer.Argument(metavar="BARCODE", help="The cartridge's label.")],
    kind: Annotated[
        str, typer.Option(metavar="KIND", help=f"Of a new cartridge: one of {', '.join(KINDS)}.")
    ] = "",
    worm: Annotated[
        bool, typer.Option("--worm", help="Let a new cartridge be a WORM one.")
    ] = False,
    write_protected: Annotated[
        bool, typer.Option("--write-protected", help="Set the cartridge's tab.")
    ] = False,
) -> None:
    """Insert a cartridge, a new one if the barcode is; one that was inside goes out.

    Example: hwkm emulator insert drive.db HWK002L9
    """
    Drive(file).insert(barcode, kind=kind, worm=worm, write_protected=write_protected)


@app.command("eject")
def eject(file: FileArgument) -> None:
    """Take the cartridge out.

    Example: hwkm emulator eject drive.db
    """
    Drive(file).eject()


@app.command("lie")
def lie(
    file: FileArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(LIES)}.")],
    off: Annotated[bool, typer.Option("--off", help="Let the drive be honest again.")] = False,
) -> None:
    """Let the drive lie, to see who notices.

    Example: hwkm emulator lie drive.db mode-ignored
    """
    Drive(file).tell_lie(name, not off)
    typer.echo(f"{name}: {'off' if off else LIES[name]}")


@app.command("reset")
def reset(
    file: FileArgument,
    power: Annotated[bool, typer.Option("--power", help="Turn it off and on instead.")] = False,
) -> None:
    """Reset the drive, which forgets its keys.

    Example: hwkm emulator reset drive.db
    """
    drive = Drive(file)
    if power:
        drive.power_cycle()
    else:
        drive.reset()


@app.command("show")
def show(file: FileArgument, as_json: JsonOption = False) -> None:
    """Show what the drive is, holds and remembers; never a key.

    Example: hwkm emulator show drive.db
    """
    drive = Drive(file)
    state = drive.state()
    if as_json:
        print_json(state)
        return
    for name, value in _described(state).items():
        typer.echo(f"{name}: {text(value)}")
    rows = [(one.barcode, one.kind, one.serial, str(one.objects)) for one in drive.cartridges()]
    print_table(("CARTRIDGE", "KIND", "SERIAL", "OBJECTS"), rows)


@app.command("write")
def write(
    file: FileArgument,
    block_size: Annotated[
        int, typer.Option(min=1, max=MAX_ALLOCATION, metavar="BYTES", help="Length of a block.")
    ] = BLOCK_BYTES,
    rewind: RewindOption = False,
) -> None:
    """Write standard input to the tape in blocks, and a filemark after it.

    Example: tar c documents | hwkm emulator write drive.db
    """
    transport = EmulatorTransport(file)
    if rewind:
        to_the_beginning(transport)
    count = write_file(transport, sys.stdin.buffer, block_size)
    typer.echo(f"{count} blocks written", err=True)


@app.command("read")
def read(file: FileArgument, rewind: RewindOption = False) -> None:
    """Read the tape to standard output, up to the next filemark.

    Example: hwkm emulator read drive.db --rewind | tar t
    """
    transport = EmulatorTransport(file)
    if rewind:
        to_the_beginning(transport)
    for block in read_file(transport):
        sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()


def _described(state: dict[str, Any]) -> dict[str, Any]:
    shared = state["shared"] or {"encryption_mode": 0, "decryption_mode": 0, "key": False}
    return {
        "profile": state["profile"],
        "serial": state["serial"],
        "quirks": ", ".join(state["quirks"]),
        "lies": ", ".join(state["lies"]),
        "cartridge": state["inside"],
        "position": state["position"],
        "holds a key": "yes" if shared["key"] else "no",
        "encryption mode": shared["encryption_mode"],
        "decryption mode": shared["decryption_mode"],
        "key instance counter": state["counter"],
    }
