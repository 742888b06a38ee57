"""What sets mhvtl's drives apart from each other, for ``@pytest.mark.needs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.scsi.inventory import identify_drive
from tests.drive.capabilities import lacking
from tests.mhvtl.models import Model, model_of

if TYPE_CHECKING:
    from tests.drive.station import Station

_ALL = """
    measured knows_keys knows_no_keys unfit_cartridge no_name_alone name_must_match
    plain_first_block
"""
TRAITS = frozenset(_ALL.split())


def model_behind(station: Station) -> Model | None:
    """Return what was measured of this kind of drive; None if nothing was."""
    drive = identify_drive(station.session.transport)
    return model_of(drive.vendor, drive.product)


def lacking_on_mhvtl(station: Station) -> dict[str, str]:
    """Return what the drive can't do, and what it is not."""
    found, model = lacking(station), model_behind(station)
    if model is None:
        return found | dict.fromkeys(TRAITS, "mhvtl was not measured as such a drive")
    has = {
        "measured": True,
        "knows_keys": model.encrypts,
        "knows_no_keys": not model.encrypts,
        "unfit_cartridge": model.encrypts and "takes_keys" in found and "cartridge" not in found,
        "no_name_alone": not model.kad_without_encryption,
        "name_must_match": model.kad_must_match,
        "plain_first_block": model.first_block_is_plain,
    }
    return found | {name: "it is another kind of drive" for name, is_so in has.items() if not is_so}
