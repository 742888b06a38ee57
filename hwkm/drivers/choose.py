"""Who is to encrypt a volume: by policy and by capability, never by a guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.errors import PolicyError
from hwkm.policy import Delivery

if TYPE_CHECKING:
    from hwkm.scsi.ability import EncryptionAbility


@dataclass(frozen=True, slots=True)
class Choice:
    """A decision, and the reason that goes on record with it."""

    delivery: Delivery
    reason: str


def choose(
    wanted: Delivery | None,
    ability: EncryptionAbility | None,
    why_none: str = "no drive is named",
) -> Choice:
    """Return who encrypts.

    :param wanted: what the policy says; None where it lets the drive's ability decide.
    :param ability: the drive's; None if there is no drive, for the reason ``why_none``.
    :raises PolicyError: if the policy wants the drive, and the drive can't.
    """
    can = ability is not None and ability.can_encrypt
    found = why_none if ability is None else f"the drive: {ability.reason}"
    if wanted is Delivery.SOFTWARE:
        return Choice(Delivery.SOFTWARE, "the policy wants software encryption")
    if wanted is Delivery.DRIVE and not can:
        raise PolicyError(
            f"the policy wants the drive to encrypt, and it can't; {found}",
            hint='See hwkm drive probe; delivery = "auto" would fall back to software encryption',
        )
    if wanted is Delivery.DRIVE:
        return Choice(Delivery.DRIVE, f"the policy wants it; {found}")
    return Choice(Delivery.DRIVE if can else Delivery.SOFTWARE, found)
