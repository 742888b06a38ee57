"""The key manager: what happens when a volume is labelled, read or checked.

The only place that joins policy, tokens and keystore. The token's lock is always taken before the
keystore's, so that two processes can't wait for each other.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm import envelope as envelopes
from hwkm.envelope import Envelope, Header
from hwkm.errors import (
    EnvelopeError,
    KeystoreError,
    ParseError,
    PinError,
    PolicyError,
    TokenError,
)
from hwkm.keys import KEY_ID_BYTES, MINIMUM_ENTROPY_BYTES, derive_volume_key
from hwkm.keystore.records import Event, Generation, Operation, Outcome, State
from hwkm.reading import (
    about_import,
    choose,
    open_any,
    parse_stored,
    refuse_destroyed,
    refuse_disagreement,
)
from hwkm.recipients.token import TokenIdentity, TokenRecipient, recorded_master

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hwkm.config import Config
    from hwkm.keys import Cipher, VolumeKey
    from hwkm.keystore.records import MasterKey
    from hwkm.keystore.source import KeystoreSource
    from hwkm.keystore.store import Transaction
    from hwkm.recipients import Identity
    from hwkm.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the operating system's user, and Bacula's job id if there is one."""

    who: str
    job: str | None = None


@dataclass(frozen=True, slots=True)
class Handout:
    """A volume key on its way out, with the envelope that goes into the volume's label."""

    key: VolumeKey
    envelope: Envelope
    notes: tuple[str, ...] = ()

    @property
    def cipher(self) -> Cipher:
        """What the key is to be used with."""
        return self.envelope.header.cipher

    @property
    def master_id(self) -> bytes:
        """Id of the master key that the envelope names first."""
        return self.envelope.stanzas[0].recipient_id


class KeyManager:
    """The use cases around volume keys."""

    def __init__(
        self,
        config: Config,
        tokens: Tokens,
        keystore: KeystoreSource,
        *,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Join the parts; nothing is opened yet."""
        self._config = config
        self._tokens = tokens
        self._keystore = keystore
        self._clock = clock
        self._random = random

    def now(self) -> int:
        """Return the time in whole seconds since 1970-01-01 UTC."""
        return int(self._clock())

    def label(self, volume: str, caller: Caller, cipher: Cipher | None = None) -> Handout:
        """Make a new generation of ``volume`` and hand out its key.

        ``cipher`` takes the place of the policy's.

        No key leaves before its envelope, as it was stored, was opened again and compared, and
        the event was written. On any error there is no new generation.

        :raises PolicyError: if the policy has nothing for this volume, or no master key to use.
        :raises TokenError, PinError, KeystoreError: if one of them does not work.
        :raises EnvelopeError: if the new envelope does not open again.
        """
        envelopes.check_volume_name(volume)
        rule = self._config.policy.rule_for(volume)
        # 1. Random bytes from the token; this takes its lock, before the keystore's.
        token_random = self._token_random(rule.recipients)
        with self._keystore.open().writing() as transaction:
            # 2. A new key, for the generation after the newest on record.
            masters = [_active_master(transaction, name) for name in rule.recipients]
            volume_id = transaction.lock_volume(volume)
            key = derive_volume_key(
                cipher or rule.cipher, self._random(MINIMUM_ENTROPY_BYTES), token_random
            )
            header = Header(
                key_id=self._random(KEY_ID_BYTES),
                volume=volume,
                generation=transaction.next_generation(volume_id),
                cipher=key.cipher,
                created=self.now(),
            )
            # 3. Wrap it for every recipient.
            stanzas = [self._recipient(master).wrap(header, key) for master in masters]
            sealed = envelopes.seal(header, stanzas, key)
            blob = sealed.encode()
            # 4. Open each copy again, out of the bytes to be stored, and compare.
            notes = self._verify(blob, key, masters)
            # 5. Write generation, envelope and event; leaving the block commits them.
            transaction.add_generation(volume_id, _record(header, State.ACTIVE), blob)
            self._write_handout(transaction, Operation.LABEL, header, caller, notes)
            label = envelopes.fit(sealed, key)
        # 6. Only now the key may leave.
        return Handout(key, label, notes)

    def read(self, volume: str, label: bytes | None, caller: Caller) -> Handout:
        """Hand out the key of ``volume`` that is on the medium.

        ``label`` is the envelope in the volume's label, if there is one. It names the key id; it,
        or the keystore's envelope of the same key id, serves, whichever opens.

        :raises ParseError: if ``label`` is not an envelope.
        :raises EnvelopeError: if it is another volume's, or nothing opens, or two envelopes of
            one key id hold different keys.
        :raises NotFoundError: if there is no label's envelope and the keystore has none either.
        :raises PolicyError: if the key was destroyed.
        :raises TokenError, PinError, KeystoreError: if one of them does not work.
        """
        on_label = self._parse_label(volume, label) if label else None
        stored, records, notes = self._on_record(volume, on_label)
        identities: list[Identity] = list(self._tokens.identities(records))
        candidates = [found for found in (on_label, stored) if found is not None]
        if on_label == stored:
            candidates = candidates[:1]
        opened, served, problems = open_any(candidates, identities)
        refuse_disagreement(on_label, served)
        notes += problems
        with self._keystore.open_or_create(self.now(), caller.who).writing() as transaction:
            transaction.lock_volume(volume)  # of several readers, one may import
            if transaction.generation(served.header.key_id) is None:
                self._import(transaction, served, caller)
                notes += about_import(opened)
            self._write_handout(transaction, Operation.READ, served.header, caller, notes)
        given = served if served is on_label else envelopes.fit(served, opened.key)
        return Handout(opened.key, given, notes)

    def record_failure(
        self, operation: Operation, volume: str | None, caller: Caller, error: Exception
    ) -> None:
        """Write an event about a key that was not given.

        :raises KeystoreError: if that can't be written.
        """
        outcome = Outcome.REFUSED if isinstance(error, PolicyError) else Outcome.FAILED
        with self._keystore.open().writing() as transaction:
            transaction.add_event(
                Event(
                    self.now(), caller.who, operation, outcome, volume, None, caller.job, str(error)
                )
            )

    # label

    def _token_random(self, names: Sequence[str]) -> bytes:
        """Return random bytes from the first of these tokens that works."""
        failures: list[TokenError | PinError] = []
        for name in names:
            try:
                with self._tokens.session(name).use("getting random bytes") as session:
                    return session.generate_random(8 * MINIMUM_ENTROPY_BYTES)
            except (TokenError, PinError) as error:
                failures.append(error)
        raise failures[0]

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
            identity = TokenIdentity(self._tokens.session(master.token), by_id([master]))
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

    # read

    def _parse_label(self, volume: str, label: bytes) -> Envelope:
        try:
            parsed = Envelope.parse(label)
        except ParseError as error:
            raise ParseError(
                f"the label of volume {volume!r} holds no envelope of hwkm's: {error}",
                hint="If another key manager labelled it, only that one has its key",
            ) from error
        if parsed.header.volume != volume:
            raise EnvelopeError(
                f"the label's envelope belongs to volume {parsed.header.volume!r}, not {volume!r}",
                hint="The label was copied from another volume; its data can't be trusted",
            )
        return parsed

    def _on_record(
        self, volume: str, on_label: Envelope | None
    ) -> tuple[Envelope | None, dict[bytes, MasterKey], tuple[str, ...]]:
        """Return the keystore's envelope, the master keys' records, and notes on what was guessed.

        On a bare machine there is no keystore yet; the label's envelope is enough.
        """
        if on_label is not None and self._keystore.is_missing():
            return None, {}, ("there is no keystore: a new one is made",)
        with self._keystore.open().reading() as transaction:
            records = by_id(transaction.masters())
            notes: tuple[str, ...] = ()
            record: Generation | None
            if on_label is None:
                record, notes = choose(transaction, volume)
            else:
                record = transaction.generation(on_label.header.key_id)
                refuse_destroyed(record)
            blob = None if record is None else transaction.envelope(record.key_id)
        try:
            stored = None if record is None else parse_stored(blob, record)
        except KeystoreError as error:
            if on_label is None:
                raise
            return None, records, (*notes, str(error))
        return stored, records, notes

    def _import(self, transaction: Transaction, served: Envelope, caller: Caller) -> None:
        header = served.header
        newer = [
            record
            for record in transaction.generations(header.volume)
            if record.generation > header.generation
        ]
        record = _record(header, State.DEACTIVATED if newer else State.ACTIVE)
        volume_id = transaction.lock_volume(header.volume)
        transaction.add_generation(volume_id, record, served.encode())
        transaction.add_event(self._event(Operation.IMPORT, header, caller, "from the label"))

    # both

    def _write_handout(
        self,
        transaction: Transaction,
        operation: Operation,
        header: Header,
        caller: Caller,
        notes: tuple[str, ...],
    ) -> None:
        event_id = transaction.add_event(self._event(operation, header, caller, "; ".join(notes)))
        transaction.hand_out(header.key_id, event_id)

    def _event(self, operation: Operation, header: Header, caller: Caller, detail: str) -> Event:
        return Event(
            at=self.now(),
            who=caller.who,
            operation=operation,
            outcome=Outcome.OK,
            volume=header.volume,
            key_id=header.key_id,
            job=caller.job,
            detail=detail,
        )


def _record(header: Header, state: State) -> Generation:
    """Return what the keystore records of the volume key that ``header`` describes."""
    return Generation(
        key_id=header.key_id,
        volume=header.volume,
        generation=header.generation,
        cipher=header.cipher,
        state=state,
        created=header.created,
    )


def _active_master(transaction: Transaction, token: str) -> MasterKey:
    for master in transaction.masters():
        if master.token == token and master.state is State.ACTIVE:
            return master
    raise PolicyError(
        f"token {token!r} has no active master key, and the policy wants volume keys wrapped to it",
        hint=f"Run hwkm master create --token {token}; hwkm check says more",
    )


def by_id(masters: Sequence[MasterKey]) -> dict[bytes, MasterKey]:
    """Return the records of master keys by their ids."""
    return {master.master_id: master for master in masters}
