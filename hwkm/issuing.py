"""Wrapping a new volume key for its recipients, and opening it again before it is relied on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm import envelope as envelopes
from hwkm.envelope import MAX_STANZAS, Envelope
from hwkm.errors import EnvelopeError, PinError, PolicyError, TokenError
from hwkm.keys import MINIMUM_ENTROPY_BYTES
from hwkm.keystore.records import Generation, State
from hwkm.policy import Delivery
from hwkm.recipients.token import TokenIdentity, TokenRecipient, recorded_master
from hwkm.token.p11 import TokenOperationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwkm.envelope import Header, Stanza
    from hwkm.keys import VolumeKey
    from hwkm.keystore.records import EscrowKey, MasterKey
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
        self,
        header: Header,
        key: VolumeKey,
        masters: Sequence[MasterKey],
        escrow: EscrowKey | None = None,
    ) -> tuple[Envelope, tuple[str, ...]]:
        """Return the envelope of ``key``, and notes on recipients that could not open it again.

        The copy for ``escrow`` stands last. It is not opened again: its private half is elsewhere.

        :raises TokenError, PinError: if a token is needed and does not work.
        :raises PolicyError: if there are too many recipients.
        :raises EnvelopeError: if the bytes to be stored don't open to ``key``.
        """
        stanzas = [self._recipient(master).wrap(header, key) for master in masters]
        if escrow is not None:
            stanzas.append(_wrap_for_escrow(escrow, header, key))
        if len(stanzas) > MAX_STANZAS:
            raise PolicyError(f"an envelope has at most {MAX_STANZAS} copies of its key")
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
        for stanza, master in zip(parsed.stanzas, masters, strict=False):
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


def _wrap_for_escrow(escrow: EscrowKey, header: Header, key: VolumeKey) -> Stanza:
    from hwkm.recipients.escrow import EscrowRecipient  # READ, a hot path, needs none of it

    return EscrowRecipient(escrow.public_key).wrap(header, key)


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


def active_escrow(transaction: Transaction, wanted: bytes | None) -> EscrowKey | None:
    """Return the escrow key that new volume keys are wrapped to, if there is one.

    ``wanted`` is the id that the configuration names. Then it is that one and no other: who can
    write to the keystore can put their own there.

    :raises PolicyError: if it is not there, or no longer to be used.
    """
    active = [key for key in transaction.escrow_keys() if key.state is State.ACTIVE]
    if wanted is None:
        return active[-1] if active else None
    for key in active:
        if key.recipient_id == wanted:
            return key
    raise PolicyError(
        f"the configuration wants volume keys wrapped for escrow key {wanted.hex()}, and the "
        "keystore has no such active key",
        hint="hwkm escrow list shows what there is; after hwkm escrow new, change escrow_key",
    )


def about_escrow(escrow: EscrowKey | None) -> tuple[str, ...]:
    """Return what the event of a new key says of its copy for an escrow key."""
    if escrow is None:
        return ()
    name = escrow.recipient_id.hex()
    return (f"also wrapped for escrow key {name}, which can't be tried here",)
