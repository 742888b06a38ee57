"""What an escrow key opens when the tokens are lost, and wrapping it for new ones.

No volume key leaves by this: it is opened, and wrapped for master keys in tokens at hand.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm import envelope as envelopes
from hwkm.checks import Check, fail, ok
from hwkm.envelope import MAX_STANZAS, Envelope
from hwkm.errors import HwkmError, ParseError, PolicyError
from hwkm.issuing import Sealer, active_escrow, active_master, record_of
from hwkm.keystore.records import EscrowKey, Event, Operation, Outcome, State
from hwkm.reading import parse_stored, refuse_destroyed
from hwkm.recipients import open_envelope

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hwkm.config import Config
    from hwkm.envelope import Stanza
    from hwkm.keys import VolumeKey
    from hwkm.keystore.engine import Keystore
    from hwkm.keystore.records import MasterKey
    from hwkm.keystore.store import Transaction
    from hwkm.manager import Caller
    from hwkm.recipients.escrow import EscrowIdentity, EscrowRecipient
    from hwkm.tokens import Tokens

MAX_ENVELOPE_FILE_BYTES = 32768
_FIRST_BYTE = b"\x85"
_DESTROYED = "was destroyed, and stays so"


@dataclass(frozen=True, slots=True)
class Found:
    """An envelope that is to be opened, or why there is none; the keystore's have a state."""

    name: str
    envelope: Envelope | None
    state: State | None = None
    trouble: str = ""


def read_envelope(data: bytes, place: str) -> Found:
    """Return the envelope in a file: as it is, or in base64 as a volume's label has it.

    :raises ParseError: if it holds none.
    """
    if data[:1] != _FIRST_BYTE:
        try:
            data = base64.b64decode(b"".join(data.split()), validate=True)
        except binascii.Error:
            raise ParseError(f"{place} is neither an envelope nor base64") from None
    try:
        envelope = Envelope.parse(data)
    except ParseError as error:
        raise ParseError(f"{place}: {error}") from error
    return Found(_name(envelope), envelope)


def read_keystore(keystore: Keystore, volumes: Sequence[str]) -> Iterator[Found]:
    """Yield the newest envelope of every key of ``volumes``, or of all if none is named.

    :raises KeystoreError: if the keystore can't be read.
    """
    with keystore.reading() as transaction:
        records = [r for r in transaction.all_generations() if not volumes or r.volume in volumes]
        known = {record.volume for record in records}
    for name in sorted(set(volumes) - known):
        yield Found(f"volume {name}", None, trouble="not in the keystore")
    for record in records:
        name = f"volume {record.volume}, generation {record.generation}"
        with keystore.reading() as transaction:
            blob = transaction.envelope(record.key_id)
        try:
            yield Found(name, parse_stored(blob, record), record.state)
        except HwkmError as error:
            yield Found(name, None, record.state, str(error))


def _name(envelope: Envelope) -> str:
    return f"volume {envelope.header.volume}, generation {envelope.header.generation}"


def try_all(key: EscrowIdentity, found: Iterator[Found]) -> Iterator[Check]:
    """Open every envelope, and say whether it does; nothing is done with what is in them."""
    for one in found:
        if one.state is State.DESTROYED:
            yield ok(one.name, _DESTROYED)
            continue
        try:
            _open(key, one)
        except HwkmError as error:
            yield _failed(one, error)
        else:
            yield ok(one.name, "opens with the escrow key")


def _open(key: EscrowIdentity, found: Found) -> tuple[Envelope, VolumeKey]:
    if found.envelope is None:
        raise ParseError(found.trouble)
    if not any(s.recipient_id == key.recipient.recipient_id for s in found.envelope.stanzas):
        raise PolicyError(
            "has no copy for this escrow key",
            hint="It was made before there was this key, or it is a label, which has no room",
        )
    return found.envelope, open_envelope(found.envelope, [key]).key


def _failed(found: Found, error: HwkmError) -> Check:
    return fail(found.name, str(error), error.hint)


class Rewrapper:
    """Wraps what an escrow key opens for the master keys that the policy names."""

    def __init__(
        self,
        config: Config,
        tokens: Tokens,
        keystore: Keystore,
        key: EscrowIdentity,
        caller: Caller,
    ) -> None:
        self._config = config
        self._keystore = keystore
        self._sealer = Sealer(tokens)
        self._key = key
        self._caller = caller

    def rewrap_all(self, found: Iterator[Found], now: int) -> Iterator[Check]:
        """Wrap each key that opens, one transaction each; say what became of it.

        Broken off, it is begun again: what is wrapped already stays as it is.
        """
        for one in found:
            try:
                yield ok(one.name, self._rewrap(one, now))
            except HwkmError as error:
                yield _failed(one, error)

    def _rewrap(self, found: Found, now: int) -> str:
        if found.state is State.DESTROYED:
            return _DESTROYED
        envelope, key = _open(self._key, found)
        recipients = self._config.policy.rule_for(envelope.header.volume).recipients
        self._sealer.token_random(recipients)  # the tokens' lock before the keystore's
        with self._keystore.writing() as transaction:
            transaction.lock_volume(envelope.header.volume)
            masters = [active_master(transaction, name) for name in recipients]
            stored = self._stored(transaction, envelope, key)
            missing = _missing(stored or envelope, masters)
            if stored is not None and not missing:
                return "is wrapped for these master keys already"
            escrow = active_escrow(transaction, self._config.escrow_key)
            sealed = self._seal(stored or envelope, key, masters, escrow)
            self._write(transaction, sealed, stored, found.state, now)
        names = ", ".join(master.master_id.hex() for master in masters)
        return f"opens with the escrow key; wrapped for {names}"

    def _stored(
        self, transaction: Transaction, envelope: Envelope, key: VolumeKey
    ) -> Envelope | None:
        """Return the envelope of the same key that the keystore has, if it has one.

        :raises MacError: if that holds another key: one of them was forged.
        """
        key_id = envelope.header.key_id
        known = transaction.stored([key_id]).get(key_id)
        if known is None:
            return None
        refuse_destroyed(known.record)
        stored = parse_stored(known.blob, known.record)
        stored.verify(key)
        return stored

    def _seal(
        self,
        before: Envelope,
        key: VolumeKey,
        masters: Sequence[MasterKey],
        escrow: EscrowKey | None,
    ) -> Envelope:
        """Return the new envelope: new copies first, and all that there were for others."""
        new, _notes = self._sealer.seal(before.header, key, masters, escrow)
        others = _others(before, new.stanzas)
        if len(new.stanzas) + len(others) > MAX_STANZAS:  # nothing that opens is left out for it
            raise PolicyError(f"an envelope has at most {MAX_STANZAS} copies of its key")
        sealed = envelopes.seal(before.header, [*new.stanzas, *others], key)
        Envelope.parse(sealed.encode()).verify(key)
        return sealed

    def _write(
        self,
        transaction: Transaction,
        sealed: Envelope,
        stored: Envelope | None,
        state: State | None,
        now: int,
    ) -> None:
        header = sealed.header
        if stored is not None:
            transaction.add_envelope(header.key_id, sealed.encode(), now)
        else:
            newer = any(
                record.generation > header.generation
                for record in transaction.generations(header.volume)
            )
            usual = State.DEACTIVATED if newer else State.ACTIVE
            volume_id = transaction.lock_volume(header.volume)
            record = record_of(header, state or usual)
            transaction.add_generation(volume_id, record, sealed.encode())
        escrow_id = self._key.recipient.recipient_id.hex()
        detail = f"opened with escrow key {escrow_id}, and wrapped for the policy's master keys"
        if stored is None:
            detail += "; imported: whoever has the public half can have made it"
        transaction.add_event(
            Event(
                at=now,
                who=self._caller.who,
                operation=Operation.ESCROW_OPEN,
                outcome=Outcome.OK,
                volume=header.volume,
                key_id=header.key_id,
                detail=detail,
            )
        )


def _missing(envelope: Envelope, masters: Sequence[MasterKey]) -> list[MasterKey]:
    there = {(stanza.scheme, stanza.recipient_id) for stanza in envelope.stanzas}
    return [master for master in masters if (master.scheme, master.master_id) not in there]


def _others(envelope: Envelope, new: Sequence[Stanza]) -> list[Stanza]:
    made = {(stanza.scheme, stanza.recipient_id) for stanza in new}
    return [s for s in envelope.stanzas if (s.scheme, s.recipient_id) not in made]


def register(
    keystore: Keystore, public: EscrowRecipient, *, replace: bool, now: int, who: str
) -> EscrowKey:
    """Let new volume keys be wrapped for ``public``, too.

    :raises PolicyError: if there is an escrow key already, and it is not to be replaced.
    :raises KeystoreError: if that can't be written.
    """
    record = EscrowKey(public.recipient_id, public.public, State.ACTIVE, now, who)
    with keystore.writing() as transaction:
        before = [one for one in transaction.escrow_keys() if one.state is State.ACTIVE]
        if before and not replace:
            raise PolicyError(
                f"there is the escrow key {before[0].recipient_id.hex()} already",
                hint="--replace gives new volumes the new one; the old still opens its own",
            )
        transaction.add_escrow_key(record)
        detail = f"escrow key {record.recipient_id.hex()}"
        if before:
            detail += f", in place of {before[0].recipient_id.hex()}"
        transaction.add_event(Event(now, who, Operation.ESCROW_NEW, Outcome.OK, detail=detail))
    return record
