"""What a drive under test can do, asked of the drive itself, and why it can't do the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.scsi.commands import read_attribute
from hwkm.scsi.optional import if_known
from hwkm.scsi.pages.directory import KeyFormat
from tests.drive.station import KEY_ID, VOLUME, usable

if TYPE_CHECKING:
    from hwkm.scsi.ability import EncryptionAbility
    from hwkm.scsi.inventory import Cartridge, DriveIdentity
    from hwkm.scsi.pages.capabilities import Algorithm
    from tests.drive.station import Station

MHVTL_MAKER = b"linuxVTL"
"""MEDIUM MANUFACTURER of every cartridge of mhvtl's."""

_ALL = """
    cartridge writable barcode chip takes_keys encrypts unable wrapped lock ckod a_kad u_kad
    both_kads local_scope mixed_tape refuses_cleanly second_host reload st_node scope_shown
"""
NAMES = frozenset(_ALL.split())
"""What ``@pytest.mark.needs`` may ask for in these tests."""

_MHVTL = "mhvtl takes it and does nothing"


def is_like_mhvtl(station: Station) -> bool:
    """Return whether the cartridge in the drive is one of mhvtl's, or of its stand-in's."""
    transport = station.session.transport
    if not station.session.is_ready():
        return station.sort == "stand-in"
    chip = if_known(transport, read_attribute())
    return chip is not None and MHVTL_MAKER in chip


def lacking(station: Station) -> dict[str, str]:
    """Return what the drive can't do, and why."""
    drive, cartridge = station.driver.identify()
    ability, algorithm = station.driver.ability(), usable(station.session)
    mhvtl = is_like_mhvtl(station)
    found = {
        **_of_the_cartridge(station, cartridge),
        **_of_the_keys(ability, algorithm),
        **_of_the_kads(algorithm, mhvtl=mhvtl),
        **_of_management(ability, mhvtl=mhvtl),
        **_of_the_kind(drive, mhvtl=mhvtl),
        **_of_the_place(station),
    }
    assert set(found) <= NAMES
    return found


def _of_the_cartridge(station: Station, cartridge: Cartridge | None) -> dict[str, str]:
    if cartridge is None:
        why = "no cartridge is loaded"
        return dict.fromkeys(("cartridge", "writable", "barcode", "chip"), why)
    found = {}
    if cartridge.write_protected:
        found["writable"] = "the cartridge is write-protected, or of an older generation"
    if not cartridge.barcode:
        found["barcode"] = "the drive does not know the cartridge's barcode"
    if if_known(station.session.transport, read_attribute()) is None:
        found["chip"] = "the drive shows nothing of the cartridge's chip"
    return found


def _of_the_keys(ability: EncryptionAbility, algorithm: Algorithm | None) -> dict[str, str]:
    found = {"unable": "it encrypts"} if ability.can_encrypt else {"encrypts": ability.reason}
    if algorithm is None:
        found["takes_keys"] = ability.reason
    if KeyFormat.WRAPPED not in ability.formats:
        found["wrapped"] = "it takes no wrapped keys"
    return found


def _of_the_kads(algorithm: Algorithm | None, *, mhvtl: bool) -> dict[str, str]:
    akad, ukad = (algorithm.max_akad, algorithm.max_ukad) if algorithm else (0, 0)
    found = {}
    if akad < len(KEY_ID):
        found["a_kad"] = f"an A-KAD has {akad} bytes"
    if ukad < len(VOLUME):
        found["u_kad"] = f"a U-KAD has {ukad} bytes"
    if found:
        found["both_kads"] = "; ".join(found.values())
    elif mhvtl:
        found["both_kads"] = "mhvtl looks at the first KAD only"
    return found


def _of_management(ability: EncryptionAbility, *, mhvtl: bool) -> dict[str, str]:
    management = ability.management
    can = {
        "lock": management is not None and management.lock,
        "ckod": management is not None and management.ckod,
        "local_scope": management is not None and management.local,
    }
    return {
        name: _MHVTL if known else "its page 0012h does not offer it"
        for name, known in can.items()
        if mhvtl or not known
    }


def _of_the_kind(drive: DriveIdentity, *, mhvtl: bool) -> dict[str, str]:
    found = {}
    if drive.product.startswith("03592"):
        found["mixed_tape"] = "a 3592 encrypts a tape from its beginning, or not at all"
    if mhvtl:
        found["refuses_cleanly"] = "a page that mhvtl refuses changes its state"
        found["scope_shown"] = "mhvtl shows one scope whatever was set"
    return found


def _of_the_place(station: Station) -> dict[str, str]:
    found = {}
    if station.other_host is None:
        found["second_host"] = "there is one host only"
    if station.reload is None:
        found["reload"] = "nothing may take the cartridge out (--may-unload) or put it back in"
    if station.tape is None:
        found["st_node"] = "there is no /dev/nstN"
    return found
