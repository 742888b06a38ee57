"""Whether a drive can encrypt the cartridge in it at a host's bidding; in doubt it can't."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.scsi.mode_pages import KeyManager
from hwkm.scsi.pages.base import PageIn
from hwkm.scsi.pages.capabilities import ConfigurationPrevented, PositionValidity
from hwkm.scsi.pages.status import ControlledBy

if TYPE_CHECKING:
    from hwkm.scsi.pages.capabilities import Algorithm, Capabilities
    from hwkm.scsi.pages.directory import KeyFormat
    from hwkm.scsi.pages.management import ManagementCapabilities

NEEDED_PAGES = frozenset({PageIn.CAPABILITIES, PageIn.STATUS})
"""Without these nothing can be chosen, and nothing read back."""

_OTHERS = {
    ControlledBy.DEVICE: "the drive itself",
    ControlledBy.LIBRARY: "the library",
    ControlledBy.MANAGEMENT: "the drive's management interface",
}
_MANAGERS = {
    KeyManager.LIBRARY: "the library",
    KeyManager.SYSTEM: "the operating system's driver",
    KeyManager.CONTROLLER: "a controller",
    KeyManager.INTERNAL: "the drive itself",
}


@dataclass(frozen=True, slots=True)
class EncryptionAbility:
    """What a drive can do for the cartridge in it, and why not if it can't.

    ``can_decrypt`` is also true where it can read encrypted blocks, and write none where the tape
    stands. ``by_others`` is true where a library or the drive itself sets the keys. ``algorithm``
    is the one to be used, None if there is none. ``formats`` are the key formats it takes;
    ``management`` is None where it does not say; ``controlled_by`` is who sets its keys.
    """

    can_encrypt: bool
    reason: str
    can_decrypt: bool = False
    by_others: bool = False
    algorithm: Algorithm | None = None
    formats: tuple[KeyFormat | int, ...] = ()
    management: ManagementCapabilities | None = None
    controlled_by: ControlledBy | int = ControlledBy.NOT_REPORTED


def why_not(capabilities: Capabilities, mounted: bool) -> str:
    """Return what keeps the drive from any encryption, by page 0010h; "" if nothing does."""
    algorithm = capabilities.gcm()
    if algorithm is None:
        names = ", ".join(one.name for one in capabilities.algorithms) or "nothing"
        return f"it does not offer AES-256-GCM for this cartridge (but {names})"
    if not algorithm.in_hardware:
        return "it does not encrypt and decrypt AES-256-GCM itself"
    if not mounted:
        return "no cartridge is loaded"
    if not algorithm.valid_for_volume:
        return "the cartridge can't be encrypted (AVFMV is 0; LTO needs generation 4)"
    return ""


def why_not_here(capabilities: Capabilities) -> str:
    """Return what keeps it from writing encrypted blocks where the tape stands; "" if nothing."""
    algorithm = capabilities.gcm()
    if algorithm is not None and algorithm.position == PositionValidity.NOT_VALID:
        return "encrypted blocks can't be written where the tape stands (AVFCLP)"
    return ""


def managed_by(
    controlled_by: ControlledBy | int, manager: KeyManager, capabilities: Capabilities
) -> str:
    """Return who else manages the drive's keys, as a reason why a host can't; "" if nobody does."""
    if controlled_by not in (ControlledBy.NOT_REPORTED, ControlledBy.HOST):
        who = _OTHERS.get(ControlledBy(controlled_by)) if controlled_by in _OTHERS else None
        return f"its keys are set by {who or f'something unknown ({controlled_by})'}"
    if manager in _MANAGERS:
        return f"its encryption method gives the keys to {_MANAGERS[manager]}"
    if capabilities.configuration_prevented == ConfigurationPrevented.PREVENTED:
        return "its keys are not set by hosts (CFG_P of page 0010h)"
    return ""
