"""One installation: its configuration, and the parts made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.keystore.source import KeystoreSource
from hwkm.manager import KeyManager
from hwkm.token.session import DEFAULT_LOCK_SECONDS, Access
from hwkm.tokens import Tokens

if TYPE_CHECKING:
    from hwkm.config import Config
    from hwkm.token.pin import PinReader


@dataclass(frozen=True, slots=True)
class Installation:
    """What a configuration stands for. Nothing is opened until it is used.

    The rest is for :class:`~hwkm.token.session.Access`.
    """

    config: Config
    pins: PinReader
    lock_seconds: float = DEFAULT_LOCK_SECONDS
    reload_seconds: float = 0

    @property
    def access(self) -> Access:
        """How token sessions are opened."""
        return Access(self.config.runtime_dir, self.pins, self.lock_seconds, self.reload_seconds)

    def tokens(self, *, writable: bool = False) -> Tokens:
        """Return the tokens; ``writable`` where keys are to be made or PINs changed."""
        return Tokens(self.config, self.access, writable=writable)

    def keystore(self, *, keep: bool = False) -> KeystoreSource:
        """Return where the keystore is; ``keep`` where one process uses it for a long time."""
        return KeystoreSource(self.config.keystore, self.config.installation, keep)

    def manager(self, tokens: Tokens, keystore: KeystoreSource | None = None) -> KeyManager:
        """Return the key manager, working with ``tokens``."""
        return KeyManager(self.config, tokens, keystore or self.keystore())
