"""The key manager: what happens when a volume is labelled, read or checked.

The only place that joins policy, tokens and keystore. The token's lock is always taken before the
keystore's, so that two processes can't wait for each other.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from hwkm import envelope as envelopes
from hwkm.envelope import Envelope, Header
from hwkm.errors import EnvelopeError, HwkmError, KeystoreError, ParseError, PolicyError
from hwkm.issuing import Sealer, about_escrow, active_escrow, active_master, record_of
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
    from collections.abc import Callable, Mapping, Sequence

    from hwkm.config import Config
    from hwkm.keys import Cipher, VolumeKey
    from hwkm.keystore.records import MasterKey, Proof
    from hwkm.keystore.source import KeystoreSource
    from hwkm.keystore.store import Stored, Transaction
    from hwkm.recipients import Identity, Opened
    from hwkm.tokens import Tokens

    _Find = Callable[[Transaction, str], tuple[Generation, tuple[str, ...]]]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
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


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key that is asked for; ``label`` is the envelope in the volume's label, if there is one."""

    volume: str
    label: bytes | None
    caller: Caller


@dataclass(frozen=True, slots=True)
class _Found:
    """The envelopes of a key that is wanted, the master keys' records, and what was guessed."""

    wanted: Wanted
    on_label: Envelope | None
    stored: Envelope | None
    masters: Mapping[bytes, MasterKey]
    notes: tuple[str, ...] = ()

    @property
    def candidates(self) -> list[Envelope]:
        """The envelopes to be opened, the label's first."""
        distinct = (self.on_label, None if self.stored == self.on_label else self.stored)
        return [envelope for envelope in distinct if envelope is not None]


@dataclass(frozen=True, slots=True)
class _Ready:
    """A key that was opened, out of the envelope ``served``; it is given once that is recorded."""

    found: _Found
    opened: Opened
    served: Envelope
    notes: tuple[str, ...]

    @property
    def handout(self) -> Handout:
        """The key as it is given."""
        as_it_was = self.served is self.found.on_label
        label = self.served if as_it_was else envelopes.fit(self.served, self.opened.key)
        return Handout(self.opened.key, label, self.notes)


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
        return _one(self._serve([Wanted(volume, label, caller)], Operation.READ, choose))

    def read_all(self, wanted: Sequence[Wanted]) -> list[Handout | HwkmError]:
        """Hand out several keys as :meth:`read` does one, each or the error that keeps it.

        Much of what one takes is needed only once for all.

        :raises KeystoreError: if it does not work; then no key is given, and one that is damaged
            may have kept all the others, so that each is to be asked for by itself.
        """
        return self._serve(wanted, Operation.READ, choose)

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
        return _one(self._serve([Wanted(volume, label, caller)], Operation.DRIVE_KEY, find))

    def delivery(self, volume: str, label: bytes | None) -> Delivery:
        """Return who encrypted what is on the medium, as :meth:`read` would find; without a token.

        :raises NotFoundError, PolicyError, ParseError, EnvelopeError, KeystoreError: as
            :meth:`read`.
        """
        if label:
            return Delivery.of(self._parse_label(volume, label).header.cipher)
        with self._keystore.open().reading() as transaction:
            return Delivery.of(choose(transaction, volume)[0].cipher)

    def uses_drives(self) -> bool:
        """Return whether a drive may hold a key of ours: by the policy, or because one ever did.

        :raises KeystoreError: if the keystore is there and can't be read.
        """
        if self._config.policy.uses_drives:
            return True
        if self._keystore.is_missing():
            return False
        with self._keystore.open().reading() as transaction:
            return transaction.has_proofs()

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
            escrow = active_escrow(transaction, self._config.escrow_key)
            sealed, notes = self._sealer.seal(header, key, masters, escrow)
            # 5. Write generation, envelope and event; leaving the block commits them.
            record = record_of(header, State.ACTIVE)
            transaction.add_generation(volume_id, record, sealed.encode())
            write(transaction, header, (*notes, *about_escrow(escrow)))
            label = envelopes.fit(sealed, key)
        # 6. Only now the key may leave.
        return Handout(key, label, notes)

    def _header(self, volume: str, generation: int, cipher: Cipher) -> Header:
        return Header(self._random(KEY_ID_BYTES), volume, generation, cipher, self.now())

    # keys that there are

    def _serve(
        self, wanted: Sequence[Wanted], operation: Operation, find: _Find
    ) -> list[Handout | HwkmError]:
        """Hand out keys that labels name; without a label, that of the record ``find`` finds."""
        labels = [_attempt(self._on_label, one) for one in wanted]
        refused = [label for label in labels if isinstance(label, HwkmError)]
        if len(refused) == len(wanted):
            return list(refused)
        found = self._on_record(wanted, labels, find)
        ready = [
            one if isinstance(one, HwkmError) else _attempt(self._open, one, operation)
            for one in found
        ]
        return self._record(ready, operation)

    def _on_label(self, wanted: Wanted) -> Envelope | None:
        return self._parse_label(wanted.volume, wanted.label) if wanted.label else None

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
        self,
        wanted: Sequence[Wanted],
        labels: Sequence[Envelope | HwkmError | None],
        find: _Find,
    ) -> list[_Found | HwkmError]:
        """Return what the keystore has of each of ``wanted``.

        On a bare machine there is no keystore yet; the label's envelope is enough.
        """
        known = [label for label in labels if isinstance(label, Envelope)]
        if len(known) == len(wanted) and self._keystore.is_missing():
            new = ("there is no keystore: a new one is made",)
            return [_Found(*pair, None, {}, new) for pair in zip(wanted, known, strict=True)]
        with self._keystore.open().reading() as transaction:
            masters = by_id(transaction.masters())
            stored = transaction.stored([label.header.key_id for label in known])
            return [
                label
                if isinstance(label, HwkmError)
                else _attempt(self._found, transaction, one, label, masters, stored, find)
                for one, label in zip(wanted, labels, strict=True)
            ]

    def _found(
        self,
        transaction: Transaction,
        wanted: Wanted,
        on_label: Envelope | None,
        masters: Mapping[bytes, MasterKey],
        stored: Mapping[bytes, Stored],
        find: _Find,
    ) -> _Found:
        notes: tuple[str, ...] = ()
        if on_label is None:
            record, notes = find(transaction, wanted.volume)
            blob = transaction.envelope(record.key_id)
            return _Found(wanted, None, parse_stored(blob, record), masters, notes)
        on_record = stored.get(on_label.header.key_id)
        if on_record is None:
            return _Found(wanted, on_label, None, masters)
        refuse_destroyed(on_record.record)
        same = (wanted.label or b"", on_label)
        try:
            envelope = parse_stored(on_record.blob, on_record.record, same)
        except KeystoreError as error:
            return _Found(wanted, on_label, None, masters, (str(error),))
        return _Found(wanted, on_label, envelope, masters)

    def _open(self, found: _Found, operation: Operation) -> _Ready:
        candidates = found.candidates
        refuse_delivery(candidates[0], _DELIVERIES[operation])
        identities: list[Identity] = list(self._tokens.identities(found.masters))
        opened, served, problems = open_any(candidates, identities)
        refuse_disagreement(found.on_label, served)
        return _Ready(found, opened, served, (*found.notes, *problems))

    def _record(
        self, ready: Sequence[_Ready | HwkmError], operation: Operation
    ) -> list[Handout | HwkmError]:
        """Write who is given which key, and only then give them.

        A READ does not wait for the disk: its key is on the medium, and only a power cut could undo
        its entry.
        """
        opened = [one for one in ready if isinstance(one, _Ready)]
        if not opened:
            return [one for one in ready if isinstance(one, HwkmError)]
        keystore = self._keystore.open_or_create(self.now(), opened[0].found.wanted.caller.who)
        with keystore.writing(durable=operation is not Operation.READ) as transaction:
            states = transaction.hold([one.served.header.key_id for one in opened])
            judged = [
                one if isinstance(one, HwkmError) else _attempt(_judge, one, states)
                for one in ready
            ]
            given = [one for one in judged if isinstance(one, _Ready) and _is_known(one, states)]
            if given:
                transaction.hand_out_all([self._handout_event(one, operation) for one in given])
        return [self._give(one, states, operation) for one in judged]

    def _give(
        self, one: _Ready | HwkmError, states: Mapping[bytes, str], operation: Operation
    ) -> Handout | HwkmError:
        if isinstance(one, HwkmError):
            return one
        if _is_known(one, states):
            return one.handout
        return _attempt(self._give_stranger, one, operation)

    def _give_stranger(self, ready: _Ready, operation: Operation) -> Handout:
        """Hand out a key that the keystore does not know, and import it, if nobody has yet."""
        header, caller = ready.served.header, ready.found.wanted.caller
        notes = ready.notes
        with self._keystore.open().writing() as transaction:
            transaction.lock_volume(header.volume)  # of several readers, one may import
            if transaction.generation(header.key_id) is None:
                self._import(transaction, ready.served, caller)
                notes += about_import(ready.opened)
            self._write_handout(transaction, operation, header, caller, notes)
        return replace(ready, notes=notes).handout

    def _handout_event(self, ready: _Ready, operation: Operation) -> Event:
        caller = ready.found.wanted.caller
        return self._event(operation, ready.served.header, caller, "; ".join(ready.notes))

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


def _attempt(
    work: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
) -> _Result | HwkmError:
    """Return what ``work`` returns, or the error that it raises: it is one key's alone."""
    try:
        return work(*arguments, **named)
    except HwkmError as error:
        return error


def _one(results: Sequence[Handout | HwkmError]) -> Handout:
    (result,) = results
    if isinstance(result, HwkmError):
        raise result
    return result


def _is_known(ready: _Ready, states: Mapping[bytes, str]) -> bool:
    return ready.served.header.key_id in states


def _judge(ready: _Ready, states: Mapping[bytes, str]) -> _Ready:
    """Return ``ready``, unless its key was destroyed since it was looked up."""
    header = ready.served.header
    if states.get(header.key_id) == State.DESTROYED.value:
        refuse_destroyed(record_of(header, State.DESTROYED))
    return ready
