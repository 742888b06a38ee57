"""What can be asked about volume keys, wherever the token is."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hwkm.policy import Delivery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.installation import Installation
    from hwkm.keys import Cipher
    from hwkm.keystore.records import Operation
    from hwkm.manager import Caller, Handout, KeyManager


class KeyService(Protocol):
    """The use cases of :class:`hwkm.manager.KeyManager` that mounts and drives need."""

    def label(
        self,
        volume: str,
        caller: Caller,
        cipher: Cipher | None = None,
        delivery: Delivery = Delivery.SOFTWARE,
        reason: str = "",
    ) -> Handout:
        """See :meth:`hwkm.manager.KeyManager.label`."""

    def read(self, volume: str, label: bytes | None, caller: Caller) -> Handout:
        """See :meth:`hwkm.manager.KeyManager.read`."""

    def drive_key(
        self,
        volume: str,
        caller: Caller,
        *,
        key_id: bytes | None = None,
        label: bytes | None = None,
    ) -> Handout:
        """See :meth:`hwkm.manager.KeyManager.drive_key`."""

    def delivery(self, volume: str, label: bytes | None) -> Delivery:
        """See :meth:`hwkm.manager.KeyManager.delivery`."""

    def uses_drives(self) -> bool:
        """See :meth:`hwkm.manager.KeyManager.uses_drives`."""

    def record_failure(
        self, operation: Operation, volume: str | None, caller: Caller, error: Exception
    ) -> None:
        """See :meth:`hwkm.manager.KeyManager.record_failure`."""


@dataclass(frozen=True, slots=True)
class OwnTokens:
    """Keys out of this process's own tokens, which are open only while a key is asked for.

    So no token is held while a drive works, and it can still fork in between.
    """

    installation: Installation

    def label(
        self,
        volume: str,
        caller: Caller,
        cipher: Cipher | None = None,
        delivery: Delivery = Delivery.SOFTWARE,
        reason: str = "",
    ) -> Handout:
        """See :meth:`hwkm.manager.KeyManager.label`."""
        with self._manager() as manager:
            return manager.label(volume, caller, cipher, delivery, reason)

    def read(self, volume: str, label: bytes | None, caller: Caller) -> Handout:
        """See :meth:`hwkm.manager.KeyManager.read`."""
        with self._manager() as manager:
            return manager.read(volume, label, caller)

    def drive_key(
        self,
        volume: str,
        caller: Caller,
        *,
        key_id: bytes | None = None,
        label: bytes | None = None,
    ) -> Handout:
        """See :meth:`hwkm.manager.KeyManager.drive_key`."""
        with self._manager() as manager:
            return manager.drive_key(volume, caller, key_id=key_id, label=label)

    def delivery(self, volume: str, label: bytes | None) -> Delivery:
        """See :meth:`hwkm.manager.KeyManager.delivery`; no token is opened."""
        with self._manager() as manager:
            return manager.delivery(volume, label)

    def uses_drives(self) -> bool:
        """See :meth:`hwkm.manager.KeyManager.uses_drives`; no token is opened."""
        with self._manager() as manager:
            return manager.uses_drives()

    def record_failure(
        self, operation: Operation, volume: str | None, caller: Caller, error: Exception
    ) -> None:
        """See :meth:`hwkm.manager.KeyManager.record_failure`; no token is opened."""
        with self._manager() as manager:
            manager.record_failure(operation, volume, caller, error)

    @contextmanager
    def _manager(self) -> Iterator[KeyManager]:
        with self.installation.tokens() as tokens:
            yield self.installation.manager(tokens)
