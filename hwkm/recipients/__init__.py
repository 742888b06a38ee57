"""Recipients wrap a volume key, identities unwrap it; one envelope holds a copy for each.

"Not mine, try the next" (:class:`NotMineError`) is apart from "mine, but broken"
(:class:`~hwkm.envelope.StanzaError`), as in age.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hwkm.envelope import NoRecipientError, StanzaError
from hwkm.errors import EnvelopeError, PinError, TokenError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hwkm.envelope import Envelope, Header, Stanza
    from hwkm.keys import VolumeKey


class NotMineError(EnvelopeError):
    """A stanza is for somebody else."""


class Recipient(Protocol):
    """Whatever a volume key can be wrapped to."""

    def wrap(self, header: Header, key: VolumeKey) -> Stanza:
        """Return ``key`` wrapped and bound to ``header``.

        :raises TokenError, PinError: if the token does not do it.
        """


class Identity(Protocol):
    """Whoever can unwrap some stanzas."""

    def unwrap(self, header: Header, stanza: Stanza) -> VolumeKey:
        """Return the key in ``stanza``, if it is bound to exactly this ``header``.

        :raises NotMineError: if the stanza is for somebody else.
        :raises StanzaError: if it is for this identity and does not open.
        :raises TokenError, PinError: if that can't be told, because the token does not work.
        """


@dataclass(frozen=True, slots=True)
class Opened:
    """A volume key, the stanza it came from, and what went wrong with stanzas before that one."""

    key: VolumeKey
    stanza: Stanza
    problems: tuple[str, ...]


def open_envelope(envelope: Envelope, identities: Iterable[Identity]) -> Opened:
    """Open ``envelope`` with the first identity that can, and check its MAC.

    A stanza that is broken, or whose token is in trouble, does not stop the others.

    :raises NoRecipientError: if no stanza is for any of ``identities``.
    :raises StanzaError, TokenError, PinError: what kept the first of ours from opening, if none
        of ours did.
    :raises MacError: if a stanza opened but the envelope as a whole was changed.
    """
    problems: list[StanzaError | TokenError | PinError] = []
    kept = list(identities)
    for stanza in envelope.stanzas:
        for identity in kept:
            try:
                key = identity.unwrap(envelope.header, stanza)
            except NotMineError:
                continue
            except (StanzaError, TokenError, PinError) as error:
                problems.append(error)
                continue
            envelope.verify(key)
            return Opened(key, stanza, tuple(str(problem) for problem in problems))
    if problems:
        raise problems[0]
    raise _no_recipient(envelope)


def _no_recipient(envelope: Envelope) -> NoRecipientError:
    ids = ", ".join(
        f"{stanza.recipient_id.hex()} ({stanza.scheme.label})" for stanza in envelope.stanzas
    )
    return NoRecipientError(
        f"no token at hand holds a master key of volume {envelope.header.volume!r}; it needs {ids}",
        hint="Connect the token with that master key and name it in the configuration",
    )
