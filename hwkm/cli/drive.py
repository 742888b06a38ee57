"""``hwkm drive``."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwkm.changer import Call, change
from hwkm.cli.context import JsonOption, caller, installation
from hwkm.cli.output import print_checks, print_fields, print_json, print_table, text
from hwkm.deliveries import Deliveries, open_drive
from hwkm.drivers.report import NotEncryptedError
from hwkm.policy import Delivery
from hwkm.scsi.nodes import list_tape_devices
from hwkm.scsi.pages.base import member
from hwkm.scsi.pages.kad import KadType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.drivers.report import LoadReport, ProveReport
    from hwkm.drivers.tape import TapeDriver
    from hwkm.envelope import Header
    from hwkm.keystore.records import Generation
    from hwkm.scsi.ability import EncryptionAbility
    from hwkm.scsi.inventory import Cartridge
    from hwkm.scsi.pages.capabilities import Algorithm
    from hwkm.scsi.pages.kad import Kad
    from hwkm.scsi.pages.status import EncryptionStatus

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

NO_LOAD: dict[str, Any] = {
    "volume": None,
    "generation": None,
    "key_id": None,
    "key_format": None,
    "drive": None,
    "cartridge": None,
    "encrypted": False,
    "checks": [],
}
"""What scripts read where no key went into the drive."""


_STATUS = (
    "encryption_mode",
    "decryption_mode",
    "algorithm_index",
    "key_instance_counter",
    "scope",
    "controlled_by",
    "volume_contains_encrypted",
)


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
def probe(context: typer.Context, device: DeviceArgument, as_json: JsonOption = False) -> None:
    """Ask a drive what it can do. Ends with status 1 if it can't encrypt.

    Example: hwkm drive probe /dev/nst0
    """
    with _opened(context, device) as (_, driver):
        identity, _ = driver.identify()
        ability = driver.ability()
        shown: dict[str, Any] = {
            "device": device,
            "vendor": identity.vendor,
            "product": identity.product,
            "revision": identity.revision,
            "serial": identity.serial or None,
            **_ability(driver, ability),
            "quirks": list(driver.session.quirks),
        }
    print_fields(shown, as_json=as_json)
    if not ability.can_encrypt:
        raise typer.Exit(1)


@app.command("status")
def status(context: typer.Context, device: DeviceArgument, as_json: JsonOption = False) -> None:
    """Show what a drive holds: modes, key names, and the cartridge. It never tells the key.

    Example: hwkm drive status /dev/nst0
    """
    with _opened(context, device) as (deliveries, driver):
        _, cartridge = driver.identify()
        held = deliveries.held(driver)
        changed = deliveries.changed_by_others(driver)
        can = cartridge is not None and driver.session.pages()
        block = driver.session.next_block() if can else None
        shown = {
            **_status(driver.session.status() if driver.session.pages() else None),
            "volume": held.volume if held else None,
            "generation": held.generation if held else None,
            "changed_by_others": changed,
            "next_block": None if block is None else _name(block.encryption),
            "cartridge": _cartridge(cartridge),
        }
    print_fields(shown, as_json=as_json)


@app.command("load")
def load(
    context: typer.Context,
    device: DeviceArgument,
    volume: Annotated[str, typer.Option(metavar="VOLUME", help="The volume in the drive.")],
    create: Annotated[
        bool, typer.Option("--create", help="Make a new generation of the volume first.")
    ] = False,
    accept_drive_key: AcceptOption = "",
    as_json: JsonOption = False,
) -> None:
    """Put a volume's key into the drive, and read back that it encrypts with it.

    Example: hwkm drive load /dev/nst0 --volume Vol-0001 --create
    """
    with _opened(context, device) as (deliveries, driver):
        if create:
            choice = deliveries.choose(driver, volume)
            handout = deliveries.issue(volume, choice)
            if choice.delivery is Delivery.SOFTWARE:
                _fell_back(handout.envelope.header, choice.reason, as_json=as_json)
        else:
            handout = deliveries.fetch(volume)
        key = handout.envelope.header
        try:
            report = deliveries.deliver(driver, handout, accept=accept_drive_key, new=create)
        except NotEncryptedError as error:
            _print(key, error.report, as_json=as_json)  # the error then says what to do
            raise
    _report(key, report, as_json=as_json)


@app.command("auto")
def auto(context: typer.Context, device: DeviceArgument, as_json: JsonOption = False) -> None:
    """Load the key that the tape itself asks for. Only one key is tried.

    Example: hwkm drive auto /dev/nst0
    """
    with _opened(context, device) as (deliveries, driver):
        try:
            found = deliveries.auto(driver)
        except NotEncryptedError as error:
            _print(_called(deliveries, error.report.key_id), error.report, as_json=as_json)
            raise
    if found is None:
        nothing = {"encrypted": False, "reason": "the tape asks for no key"}
        _print_no_load(nothing, as_json=as_json)
        return
    _report(*found, as_json=as_json)


@app.command("prove")
def prove(context: typer.Context, device: DeviceArgument, as_json: JsonOption = False) -> None:
    """Look at a block on the tape, whether it is encrypted with the key in the drive.

    Example: hwkm drive prove /dev/nst0
    """
    with _opened(context, device) as (deliveries, driver):
        generation, report = deliveries.prove(driver)
    _report(generation, report, as_json=as_json)


@app.command("clear")
def clear(context: typer.Context, device: DeviceArgument, as_json: JsonOption = False) -> None:
    """Take whatever key it holds out of the drive, and read back that it is out.

    Example: hwkm drive clear /dev/nst0
    """
    with _opened(context, device) as (deliveries, driver):
        report = deliveries.clear(driver)
    print_checks(report.checks, {"cleared": report.cleared}, as_json=as_json)
    if not report.cleared:
        raise typer.Exit(1)


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
) -> None:
    """Wrap Bacula's Changer Command: a load brings the key in, an unload takes it out.

    Example: Changer Command="hwkm drive changer -- /etc/bacula/scripts/mtx-changer %c %o %S %a %d"
    """
    call = Call.parse(command, device)
    if call.operation is None:
        raise typer.Exit(call.run())
    raise typer.Exit(change(call, Deliveries.of(installation(context), caller())))


@contextmanager
def _opened(context: typer.Context, device: str) -> Iterator[tuple[Deliveries, TapeDriver]]:
    site = installation(context)
    with open_drive(device, site.config.runtime_dir) as driver:
        yield Deliveries.of(site, caller()), driver


def _called(deliveries: Deliveries, name: bytes) -> Generation | None:
    """Return the generation whose key is called ``name`` on its tape."""
    with deliveries.installation.keystore().open().reading() as transaction:
        return transaction.find_by_key_name(name)


def _fell_back(key: Header, reason: str, *, as_json: bool) -> None:
    shown = {
        "volume": key.volume,
        "generation": key.generation,
        "key_id": key.key_id.hex(),
        "delivery": "software",
        "encrypted": False,
        "reason": reason,
    }
    _print_no_load(shown, as_json=as_json)
    raise typer.Exit(1)


def _print_no_load(shown: dict[str, Any], *, as_json: bool) -> None:
    """Print why no key went into the drive; scripts get every key that a load has."""
    print_fields({**NO_LOAD, **shown} if as_json else shown, as_json=as_json)


def _report(key: Header | Generation, report: LoadReport | ProveReport, *, as_json: bool) -> None:
    _print(key, report, as_json=as_json)
    if not report.encrypted:
        raise typer.Exit(1)


def _print(
    key: Header | Generation | None, report: LoadReport | ProveReport, *, as_json: bool
) -> None:
    summary = {
        "volume": key.volume if key else None,
        "generation": key.generation if key else None,
        "key_id": (key or report).key_id.hex(),
        "key_format": report.key_format or None,
        "drive": report.drive.serial or None,
        "cartridge": report.cartridge.serial or None,
        "encrypted": report.encrypted,
    }
    print_checks(report.checks, summary, as_json=as_json)


def _ability(driver: TapeDriver, ability: EncryptionAbility) -> dict[str, Any]:
    capabilities = driver.session.capabilities() if driver.session.pages() else None
    management = ability.management
    return {
        "can_encrypt": ability.can_encrypt,
        "reason": ability.reason,
        "algorithms": [_algorithm(one) for one in capabilities.algorithms] if capabilities else [],
        "key_formats": [_name(one) for one in ability.formats],
        "scopes": [
            name
            for name in ("public", "local", "all_i_t_nexus")
            if management is not None and getattr(management, name)
        ],
        "lock": management is not None and management.lock,
        "ckod": management is not None and management.ckod,
        "controlled_by": _name(ability.controlled_by),
    }


def _algorithm(one: Algorithm) -> dict[str, Any]:
    return {
        "index": one.index,
        "code": f"{one.code:08x}",
        "name": one.name,
        "key_bytes": one.key_bytes,
        "max_ukad": one.max_ukad,
        "max_akad": one.max_akad,
        "encrypt": _name(one.encrypt),
        "decrypt": _name(one.decrypt),
        "raw_decrypt": _name(one.rdmc),
    }


def _status(found: EncryptionStatus | None) -> dict[str, Any]:
    """Return the fields of page 0020h; without values for a drive that has no such page."""
    if found is None:
        return {**dict.fromkeys(_STATUS), "kads": []}
    return {
        "encryption_mode": _name(found.encryption_mode),
        "decryption_mode": _name(found.decryption_mode),
        "algorithm_index": found.algorithm_index,
        "key_instance_counter": found.key_instance_counter,
        "scope": _name(found.key_scope),
        "controlled_by": _name(found.controlled_by),
        "volume_contains_encrypted": found.volume_contains_encrypted,
        "kads": [_kad(kad) for kad in found.kads],
    }


def _kad(kad: Kad) -> dict[str, Any]:
    return {
        "type": _name(member(KadType, kad.type)),
        "value": kad.value.hex(),
        "authenticated": _name(kad.authenticated),
    }


def _cartridge(found: Cartridge | None) -> dict[str, str | None] | None:
    if found is None:
        return None
    return {
        "serial": found.serial or None,
        "barcode": found.barcode or None,
        "manufacturer": found.manufacturer or None,
    }


def _name(value: object) -> Any:
    """Return the standard's word for a code in lower case; a code without one stays a number."""
    name = getattr(value, "name", None)
    return name.lower() if isinstance(name, str) else value
