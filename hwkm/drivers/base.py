"""What the ways to encrypt a volume have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hwkm.drivers.report import LoadReport
    from hwkm.keys import VolumeKey
    from hwkm.policy import Delivery
    from hwkm.scsi.ability import EncryptionAbility


class EncryptionDriver(Protocol):
    """A way to encrypt a volume."""

    @property
    def delivery(self) -> Delivery:
        """Who encrypts."""

    def ability(self) -> EncryptionAbility:
        """Return whether it can be done this way now, and if not, why."""

    def load(
        self,
        key: VolumeKey,
        key_id: bytes,
        volume: str,
        *,
        pinned: bytes | None = None,
        barcode: str = "",
    ) -> LoadReport | None:
        """Put ``key`` where it is used, if that is a device; None if its user gets it himself.

        :raises PolicyError: if the key is for another delivery.
        """
