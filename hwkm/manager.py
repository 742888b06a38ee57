"""The key manager: what happens when a volume is labelled, read or checked.

The only place that joins policy, tokens and keystore. The token's lock is always taken before the
keystore's, so that two processes can't wait for each other.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from hwkm import envelope as envelopes
from hwkm.envelope import Envelope, Header
from hwkm.errors import EnvelopeError, KeystoreError, ParseError, PolicyError
from hwkm.issuing import Sealer, active_master, record_of
from hwkm.keys import KEY_ID_BYTES, MINIMUM_ENTROPY_BYTES, derive_volume_key
from hwkm.keystore.records import Event, Generation, Operation, Outcome, State
from hwkm.policy import Delivery
from hwkm.reading import (
    about_import,
    choose,
    choose_for_drive,
    open_any,
    parse_stored,
    refuse_delivery,
    refuse_destroyed,
    refuse_disagreement,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hwkm.config import Config
    from hwkm.keys import Cipher, VolumeKey
    from hwkm.keystore.records import MasterKey, Proof
    from hwkm.keystore.source import KeystoreSource
    from hwkm.keystore.store import Transaction
    from hwkm.recipients import Identity
    from hwkm.tokens import Tokens

    _Find = Callable[[Transaction, str], tuple[Generation, tuple[str, ...]]]

_DELIVERIES = {Operation.READ: Delivery.SOFTWARE, Operation.DRIVE_KEY: Delivery.DRIVE}
"""Who uses a key that is handed out by an operation."""


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
        self._sealer = Sealer(tokens)
        self._clock = clock
        self._random = random

    def now(self) -> int:
        """Return the time in whole seconds since 1970-01-01 UTC."""
        return int(self._clock())

    def label(
        self,
        volume: str,
        caller: Caller,
        cipher: Cipher | None = None,
        delivery: Delivery = Delivery.SOFTWARE,
        reason: str = "",
    ) -> Handout:
        """Make a new generation of ``volume`` and hand out its key.

        ``cipher`` takes the place of the policy's. With ``Delivery.DRIVE`` it is a key for a tape
        drive, AES-256-GCM. ``reason`` is why it is delivered so, for the event.

        No key leaves before its envelope, as it was stored, was opened again and compared, and
        the event was written. On any error there is no new generation.

        :raises PolicyError: if the policy has nothing for this volume, wants it delivered in
            another way, or has no master key to use.
        :raises TokenError, PinError, KeystoreError: if one of them does not work.
        :raises EnvelopeError: if the new envelope does not open again.
        """
        envelopes.check_volume_name(volume)
        rule = self._config.policy.rule_for(volume)
        wanted = rule.cipher_for(volume, delivery, cipher)

        def make(token_random: bytes) -> VolumeKey:
            return derive_volume_key(wanted, self._random(MINIMUM_ENTROPY_BYTES), token_random)

        def write(transaction: Transaction, header: Header, notes: tuple[str, ...]) -> None:
            said = (reason, *notes) if reason else notes
            self._write_handout(transaction, Operation.LABEL, header, caller, said)

        return self._issue(volume, rule.recipients, make, write)

    def import_key(self, volume: str, key: VolumeKey, key_name: bytes, caller: Caller) -> Handout:
        """Make a new generation of ``volume`` out of a tape's key that another program made.

        ``key`` is for AES-256-GCM; ``key_name`` is what that program writes beside the tape's
        blocks, empty if nothing. It is not handed out by this: loading it into a drive does that.

        :raises PolicyError: if the policy has nothing for this volume, or no master key to use.
        :raises TokenError, PinError, KeystoreError, EnvelopeError: as :meth:`label`.
        """
        envelopes.check_volume_name(volume)
        rule = self._config.policy.rule_for(volume)

        def write(transaction: Transaction, header: Header, notes: tuple[str, ...]) -> None:
            if key_name:
                transaction.add_key_name(header.key_id, key_name)
            detail = "; ".join(("another program's key", *notes))
            transaction.add_event(self._event(Operation.IMPORT, header, caller, detail))

        return self._issue(volume, rule.recipients, lambda _random: key, write)

    def read(self, volume: str, label: bytes | None, caller: Caller) -> Handout:
        """Hand out the key of ``volume`` that is on the medium, for the Storage Daemon to use.

        ``label`` is the envelope in the volume's label, if there is one. It names the key id; it,
        or the keystore's envelope of the same key id, serves, whichever opens.

        :raises ParseError: if ``label`` is not an envelope.
        :raises EnvelopeError: if it is another volume's, or nothing opens, or two envelopes of
            one key id hold different keys.
        :raises NotFoundError: if there is no label's envelope and the keystore has none either.
        :raises PolicyError: if the key was destroyed, or it is a tape drive's.
        :raises TokenError, PinError, KeystoreError: if one of them does not work.
        """
        return self._serve(volume, label, caller, Operation.READ, choose)

    def drive_key(
        self,
        volume: str,
        caller: Caller,
        *,
        key_id: bytes | None = None,
        label: bytes | None = None,
    ) -> Handout:
        """Hand out a key of ``volume`` for a tape drive: the newest, or that of ``key_id``.

        If ``label``, the envelope in the volume's label, is given, it names the key id, as for
        :meth:`read`; on a bare machine it is enough.

        :raises NotFoundError: if the volume has no such key.
        :raises PolicyError: if the key was destroyed, or it is one for software encryption.
        :raises ParseError, EnvelopeError, TokenError, PinError, KeystoreError: as :meth:`read`.
        """
        find = partial(choose_for_drive, key_id=key_id)
        return self._serve(volume, label, caller, Operation.DRIVE_KEY, find)

    def delivery(self, volume: str, label: bytes | None) -> Delivery:
        """Return who encrypted what is on the medium, as :meth:`read` would find; without a token.

        :raises NotFoundError, PolicyError, ParseError, EnvelopeError, KeystoreError: as
            :meth:`read`.
        """
        if label:
            return Delivery.of(self._parse_label(volume, label).header.cipher)
        with self._keystore.open().reading() as transaction:
            return Delivery.of(choose(transaction, volume)[0].cipher)

    def record_proof(self, proof: Proof, caller: Caller) -> None:
        """Keep what a drive said of a key, and write the event of it.

        :raises KeystoreError: if that can't be written.
        """
        with self._keystore.open().writing() as transaction:
            transaction.add_proof(proof, caller.who)

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

    # new keys

    def _issue(
        self,
        volume: str,
        recipients: Sequence[str],
        make: Callable[[bytes], VolumeKey],
        write: Callable[[Transaction, Header, tuple[str, ...]], None],
    ) -> Handout:
        """Make a generation of the key that ``make`` returns; ``write`` writes what goes with it.

        ``make`` is given the token's random bytes.
        """
        # 1. Random bytes from the token; this takes its lock, before the keystore's.
        token_random = self._sealer.token_random(recipients)
        with self._keystore.open().writing() as transaction:
            # 2. The key, for the generation after the newest on record.
            masters = [active_master(transaction, name) for name in recipients]
            volume_id = transaction.lock_volume(volume)
            key = make(token_random)
            header = self._header(volume, transaction.next_generation(volume_id), key.cipher)
            # 3. Wrap it for every recipient, and
            # 4. open each copy again, out of the bytes to be stored, and compare.
            sealed, notes = self._sealer.seal(header, key, masters)
            # 5. Write generation, envelope and event; leaving the block commits them.
            record = record_of(header, State.ACTIVE)
            transaction.add_generation(volume_id, record, sealed.encode())
            write(transaction, header, notes)
            label = envelopes.fit(sealed, key)
        # 6. Only now the key may leave.
        return Handout(key, label, notes)

    def _header(self, volume: str, generation: int, cipher: Cipher) -> Header:
        return Header(self._random(KEY_ID_BYTES), volume, generation, cipher, self.now())

    # keys that there are

    def _serve(
        self,
        volume: str,
        label: bytes | None,
        caller: Caller,
        operation: Operation,
        find: _Find,
    ) -> Handout:
        """Hand out the key that ``label`` names; without one, that of the record ``find`` finds."""
        on_label = self._parse_label(volume, label) if label else None
        stored, records, notes = self._on_record(volume, on_label, find)
        candidates = [found for found in (on_label, stored) if found is not None]
        refuse_delivery(candidates[0], _DELIVERIES[operation])
        if on_label == stored:
            candidates = candidates[:1]
        identities: list[Identity] = list(self._tokens.identities(records))
        opened, served, problems = open_any(candidates, identities)
        refuse_disagreement(on_label, served)
        notes += problems
        with self._keystore.open_or_create(self.now(), caller.who).writing() as transaction:
            transaction.lock_volume(volume)  # of several readers, one may import
            if transaction.generation(served.header.key_id) is None:
                self._import(transaction, served, caller)
                notes += about_import(opened)
            self._write_handout(transaction, operation, served.header, caller, notes)
        given = served if served is on_label else envelopes.fit(served, opened.key)
        return Handout(opened.key, given, notes)

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
        self, volume: str, on_label: Envelope | None, find: _Find
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
                record, notes = find(transaction, volume)
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
        record = record_of(header, State.DEACTIVATED if newer else State.ACTIVE)
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


def by_id(masters: Sequence[MasterKey]) -> dict[bytes, MasterKey]:
    """Return the records of master keys by their ids."""
    return {master.master_id: master for master in masters}
