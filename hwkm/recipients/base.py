"""What the wrapping schemes have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hwkm.envelope import Scheme
    from hwkm.keys import SecretBytes
    from hwkm.token.session import TokenSession


class MasterCipher(Protocol):
    """One master key, used under its scheme."""

    @property
    def token(self) -> TokenSession:
        """The token that holds it."""

    @property
    def scheme(self) -> Scheme:
        """The scheme, as written into stanzas."""

    @property
    def master_id(self) -> bytes:
        """The master key's id, 1 to 80 bytes."""

    def wrap(self, context: bytes, secret: SecretBytes) -> bytes:
        """Return ``secret`` (16 to 64 bytes) wrapped and bound to ``context``.

        :raises TokenError, PinError: if the token does not do it.
        """

    def unwrap(self, context: bytes, blob: bytes) -> SecretBytes:
        """Return what :meth:`wrap` was given, if ``context`` is the same.

        :raises NoMasterKeyError: if the token does not hold the master key.
        :raises StanzaError: if ``blob`` does not open.
        :raises TokenError, PinError: if the token fails, which some modules also do for a blob
            that does not open.
        """
