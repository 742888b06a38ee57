"""What ``hwkm drive`` does with a drive, apart from how it is asked for and shown.

It is the same in the command's own process and in the agent's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import TYPE_CHECKING, Any

from hwkm.deliveries import open_drive
from hwkm.drivers.report import NotEncryptedError
from hwkm.policy import Delivery
from hwkm.scsi.pages.base import member
from hwkm.scsi.pages.kad import KadType

if TYPE_CHECKING:
    from hwkm.checks import Check
    from hwkm.deliveries import Deliveries
    from hwkm.drivers.report import LoadReport, ProveReport
    from hwkm.drivers.tape import TapeDriver
    from hwkm.envelope import Header
    from hwkm.errors import HwkmError
    from hwkm.keystore.records import Generation
    from hwkm.scsi.ability import EncryptionAbility
    from hwkm.scsi.inventory import Cartridge
    from hwkm.scsi.pages.capabilities import Algorithm
    from hwkm.scsi.pages.kad import Kad
    from hwkm.scsi.pages.status import EncryptionStatus


@unique
class Verb(StrEnum):
    """What can be done with a drive; the last two are what a changer's wrapper needs."""

    PROBE = "probe"
    STATUS = "status"
    LOAD = "load"
    AUTO = "auto"
    PROVE = "prove"
    CLEAR = "clear"
    LOADED = "loaded"
    UNLOADING = "unloading"


CHANGERS = frozenset({Verb.LOADED, Verb.UNLOADING})


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be done, and with which drive; the other fields are those of a load."""

    verb: Verb
    device: str
    volume: str = ""
    create: bool = False
    accept: str = ""
    barcode: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it.

    ``shown`` is what people and scripts read, and ``rest`` what scripts read where ``shown`` lacks
    it. ``checks`` is None for a verb that has none. Where there is an ``error`` it is to be raised
    when the rest was shown; without one, ``ok`` tells the status to end with.
    """

    shown: dict[str, Any] = field(default_factory=dict)
    checks: tuple[Check, ...] | None = None
    ok: bool = True
    rest: dict[str, Any] = field(default_factory=dict)
    error: HwkmError | None = None


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


def run(request: Request, deliveries: Deliveries, deadline: float = math.inf) -> Outcome:
    """Open the drive, and do what is asked for. To be called before a PKCS#11 module is loaded.

    :param deadline: when (of :func:`time.monotonic`) a drive that is not done is given up.
    :raises HwkmError: if it can't be done, and there is nothing more to show than that.
    """
    runtime_dir = deliveries.installation.config.runtime_dir
    with open_drive(request.device, runtime_dir, deadline=deadline) as driver:
        match request.verb:
            case Verb.PROBE:
                return probe(request.device, deliveries, driver)
            case Verb.LOAD:
                return load(deliveries, driver, request)
        return _SIMPLE[request.verb](deliveries, driver)


def probe(device: str, deliveries: Deliveries, driver: TapeDriver) -> Outcome:
    """Ask a drive what it can do; ok if that is to encrypt."""
    identity, _ = driver.identify()
    ability = driver.ability()
    shown = {
        "device": device,
        "vendor": identity.vendor,
        "product": identity.product,
        "revision": identity.revision,
        "serial": identity.serial or None,
        **_ability(driver, ability),
        "quirks": list(driver.session.quirks),
    }
    return Outcome(shown, ok=ability.can_encrypt, error=deliveries.alarm(driver))


def status(deliveries: Deliveries, driver: TapeDriver) -> Outcome:
    """Tell what a drive holds: modes, key names, and the cartridge."""
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
    return Outcome(shown, error=deliveries.alarm(driver))


def load(deliveries: Deliveries, driver: TapeDriver, request: Request) -> Outcome:
    """Put a volume's key into the drive, and read back that it encrypts with it.

    :raises HwkmError: if there is no key, or it does not get as far as reading back.
    """
    if request.create:
        choice = deliveries.choose(driver, request.volume)
        handout = deliveries.issue(request.volume, choice)
        if choice.delivery is Delivery.SOFTWARE:
            return _fell_back(handout.envelope.header, choice.reason)
    else:
        handout = deliveries.fetch(request.volume)
    key, new = handout.envelope.header, request.create
    try:
        report = deliveries.deliver(
            driver, handout, accept=request.accept, barcode=request.barcode, new=new
        )
    except NotEncryptedError as error:
        return _reported(key, error.report, error)
    return _reported(key, report)


def auto(deliveries: Deliveries, driver: TapeDriver) -> Outcome:
    """Load the key that the tape itself asks for.

    :raises HwkmError: if there is none, or it does not get as far as reading back.
    """
    try:
        found = deliveries.auto(driver)
    except NotEncryptedError as error:
        return _reported(_called(deliveries, error.report.key_id), error.report, error)
    if found is None:
        return Outcome({"encrypted": False, "reason": "the tape asks for no key"}, rest=NO_LOAD)
    return _reported(*found)


def prove(deliveries: Deliveries, driver: TapeDriver) -> Outcome:
    """Look at a block on the tape, whether it is encrypted with the key in the drive.

    :raises HwkmError: if there is no such key, or the tape can't be looked at.
    """
    return _reported(*deliveries.prove(driver))


def clear(deliveries: Deliveries, driver: TapeDriver) -> Outcome:
    """Take whatever key it holds out of the drive, and read back that it is out."""
    report = deliveries.clear(driver)
    return Outcome({"cleared": report.cleared}, report.checks, report.cleared)


def loaded(deliveries: Deliveries, driver: TapeDriver) -> Outcome:
    """Bring in the key that a cartridge asks for, which a changer has just loaded.

    :raises HwkmError: if that can't be done; then the cartridge has to go back.
    """
    deliveries.loaded(driver)
    return Outcome()


def unloading(deliveries: Deliveries, driver: TapeDriver) -> Outcome:
    """Take the key out, before a changer takes the cartridge.

    :raises HwkmError: if that can't be done; then the cartridge has to stay.
    """
    deliveries.unloading(driver)
    return Outcome()


_SIMPLE = {
    Verb.STATUS: status,
    Verb.AUTO: auto,
    Verb.PROVE: prove,
    Verb.CLEAR: clear,
    Verb.LOADED: loaded,
    Verb.UNLOADING: unloading,
}


# below


def _called(deliveries: Deliveries, name: bytes) -> Generation | None:
    """Return the generation whose key is called ``name`` on its tape."""
    with deliveries.keystore.open().reading() as transaction:
        return transaction.find_by_key_name(name)


def _fell_back(key: Header, reason: str) -> Outcome:
    shown = {
        "volume": key.volume,
        "generation": key.generation,
        "key_id": key.key_id.hex(),
        "delivery": "software",
        "encrypted": False,
        "reason": reason,
    }
    return Outcome(shown, ok=False, rest=NO_LOAD)


def _reported(
    key: Header | Generation | None,
    report: LoadReport | ProveReport,
    error: HwkmError | None = None,
) -> Outcome:
    shown = {
        "volume": key.volume if key else None,
        "generation": key.generation if key else None,
        "key_id": (key or report).key_id.hex(),
        "key_format": report.key_format or None,
        "drive": report.drive.serial or None,
        "cartridge": report.cartridge.serial or None,
        "encrypted": report.encrypted,
    }
    return Outcome(shown, report.checks, report.encrypted, error=error)


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
