"""Encryption by the Storage Daemon: nothing is to be done to a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.errors import PolicyError
from hwkm.policy import Delivery
from hwkm.scsi.ability import EncryptionAbility

if TYPE_CHECKING:
    from hwkm.keys import VolumeKey


class SoftwareDriver:
    """The Storage Daemon encrypts; it gets the key in the reply to its Encryption Command."""

    delivery = Delivery.SOFTWARE

    def ability(self) -> EncryptionAbility:
        """Return that it can: any drive and any medium will do."""
        return EncryptionAbility(True, "the Storage Daemon encrypts for any drive")

    def load(
        self,
        key: VolumeKey,
        key_id: bytes,  # noqa: ARG002  # the interface of all drivers
        volume: str,
        *,
        pinned: bytes | None = None,  # noqa: ARG002
        barcode: str = "",  # noqa: ARG002
    ) -> None:
        """Check that the key is one for software.

        :raises PolicyError: if it is a key for a tape drive: one key is never used both ways.
        """
        check_delivery(key, volume, self.delivery)


def check_delivery(key: VolumeKey, volume: str, delivery: Delivery) -> None:
    """Check that a key is used the way it was made for.

    :raises PolicyError: if it is not.
    """
    if Delivery.of(key.cipher) is not delivery:
        raise PolicyError(
            f"the key of volume {volume!r} is one for {key.cipher.name}, "
            f"which is not for delivery {str(delivery)!r}",
            hint="A volume keeps its delivery for the life of its generation: label it anew",
        )
