"""Wrapping a new volume key for its recipients, and opening it again before it is relied on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm import envelope as envelopes
from hwkm.envelope import Envelope
from hwkm.errors import EnvelopeError, PinError, PolicyError, TokenError
from hwkm.keys import MINIMUM_ENTROPY_BYTES
from hwkm.keystore.records import Generation, State
from hwkm.policy import Delivery
from hwkm.recipients.token import TokenIdentity, TokenRecipient, recorded_master
from hwkm.token.p11 import TokenOperationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwkm.envelope import Header
    from hwkm.keys import VolumeKey
    from hwkm.keystore.records import MasterKey
    from hwkm.keystore.store import Transaction
    from hwkm.token.session import TokenSession
    from hwkm.tokens import Tokens


class Sealer:
    """Makes the envelopes of new volume keys."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def token_random(self, names: Sequence[str]) -> bytes:
        """Return random bytes from the first of these tokens that works.

        :raises TokenError, PinError: if none does.
        """
        failures: list[TokenError | PinError] = []
        for name in names:
            try:
                return _random(self._tokens.session(name))
            except (TokenError, PinError) as error:
                failures.append(error)
        raise failures[0]

    def seal(
        self, header: Header, key: VolumeKey, masters: Sequence[MasterKey]
    ) -> tuple[Envelope, tuple[str, ...]]:
        """Return the envelope of ``key``, and notes on recipients that could not open it again.

        :raises TokenError, PinError: if a token is needed and does not work.
        :raises EnvelopeError: if the bytes to be stored don't open to ``key``.
        """
        stanzas = [self._recipient(master).wrap(header, key) for master in masters]
        sealed = envelopes.seal(header, stanzas, key)
        return sealed, self._verify(sealed.encode(), key, masters)

    def _recipient(self, master: MasterKey) -> TokenRecipient:
        return TokenRecipient(recorded_master(self._tokens.session(master.token), master))

    def _verify(self, blob: bytes, key: VolumeKey, masters: Sequence[MasterKey]) -> tuple[str, ...]:
        """Open every stanza in ``blob`` that can be opened here; return notes on those that can't.

        An ``oaep`` stanza can be made while its token is away, and then not opened.
        """
        parsed = Envelope.parse(blob)
        parsed.verify(key)
        away: list[TokenError | PinError] = []
        for stanza, master in zip(parsed.stanzas, masters, strict=True):
            session = self._tokens.session(master.token)
            identity = TokenIdentity(session, {master.master_id: master})
            try:
                same = identity.unwrap(parsed.header, stanza) == key
            except (TokenError, PinError) as error:
                away.append(error)
                continue
            if not same:
                raise EnvelopeError("the new envelope opened to another key: nothing was stored")
        if len(away) == len(masters):
            raise away[0]
        return tuple(f"not opened again: {error}" for error in away)


def _random(token: TokenSession) -> bytes:
    try:
        return _ask_for_random(token)
    except TokenOperationError:
        # The session may have been lost; it is opened anew. Nothing has been made yet.
        return _ask_for_random(token)


def _ask_for_random(token: TokenSession) -> bytes:
    with token.use("getting random bytes") as session:
        return session.generate_random(8 * MINIMUM_ENTROPY_BYTES)


def record_of(header: Header, state: State) -> Generation:
    """Return what the keystore records of the volume key that ``header`` describes."""
    return Generation(
        key_id=header.key_id,
        volume=header.volume,
        generation=header.generation,
        cipher=header.cipher,
        state=state,
        created=header.created,
        delivery=Delivery.of(header.cipher),
    )


def active_master(transaction: Transaction, token: str) -> MasterKey:
    """Return the master key that new volume keys are wrapped to in a token.

    :raises PolicyError: if there is none.
    """
    for master in transaction.masters():
        if master.token == token and master.state is State.ACTIVE:
            return master
    raise PolicyError(
        f"token {token!r} has no active master key, and the policy wants volume keys wrapped to it",
        hint=f"Run hwkm master create --token {token}; hwkm check says more",
    )
