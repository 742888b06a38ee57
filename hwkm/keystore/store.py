"""What can be asked of the keystore, and written to it, within one transaction."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from hwkm.checks import Status
from hwkm.envelope import MAX_GENERATION, Envelope
from hwkm.errors import KeystoreError, PolicyError
from hwkm.keys import KEY_ID_BYTES
from hwkm.keystore import schema
from hwkm.keystore.hot import Hot
from hwkm.keystore.records import (
    EscrowKey,
    Event,
    Generation,
    MasterKey,
    Operation,
    Outcome,
    Proof,
    State,
)
from hwkm.keystore.rows import (
    escrow_key_values,
    event_values,
    generation_values,
    master_values,
    proof_values,
    read_escrow_key,
    read_event,
    read_generation,
    read_master,
    read_proof,
    refusing_damage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Select

    from hwkm.keystore.records import ProofKind

_MASTER = schema.master_key.c
_GENERATION = schema.generation.c
_ENVELOPE = schema.envelope.c
_ESCROW_KEY = schema.escrow_key.c
_EVENT = schema.event.c
_PROOF = schema.proof.c
_DRIVE = schema.drive.c


def _generations() -> Select[Any]:
    joined = schema.generation.join(schema.volume).outerjoin(
        schema.event, _GENERATION.handed_out == _EVENT.event_id
    )
    columns = (schema.generation, schema.volume.c.name, _EVENT.at.label("last_used"))
    return (
        select(*columns)
        .select_from(joined)
        .order_by(schema.volume.c.name, _GENERATION.generation, _GENERATION.created)
    )


# Statements that each handing out of a key needs.
_MASTERS = Hot(select(schema.master_key).order_by(_MASTER.created, _MASTER.master_id))
_ESCROW_KEYS = Hot(
    select(schema.escrow_key).order_by(_ESCROW_KEY.created, _ESCROW_KEY.recipient_id)
)
_VOLUME = (
    select(schema.volume.c.volume_id)
    .where(schema.volume.c.name == bindparam("volume"))
    .with_for_update()
)
_KEY_IDS = _GENERATION.key_id.in_(bindparam("key_ids", expanding=True))
_NEWEST = (
    select(_ENVELOPE.blob)
    .where(_ENVELOPE.key_id == _GENERATION.key_id)
    .order_by(_ENVELOPE.revision.desc())
    .limit(1)
    .scalar_subquery()
    .label("blob")
)
_STORED = Hot(_generations().add_columns(_NEWEST).where(_KEY_IDS).order_by(None), several="key_ids")
# As everybody does it: first the volume, then what belongs to it, and several in one order.
_HOLD = Hot(
    select(_GENERATION.key_id, _GENERATION.state)
    .join_from(schema.generation, schema.volume)
    .where(_KEY_IDS)
    .order_by(_GENERATION.volume_id, _GENERATION.key_id)
    .with_for_update(of=[schema.volume, schema.generation]),
    several="key_ids",
)
_ADD_EVENTS = Hot(
    insert(schema.event).returning(_EVENT.event_id, sort_by_parameter_order=True),
    columns=[column.name for column in _EVENT if column is not _EVENT.event_id],
)
_GIVEN_BY = bindparam("given_by", type_=schema.Count)
_HAND_OUT = Hot(
    update(schema.generation)
    .where(
        _GENERATION.key_id == bindparam("given_key"),
        _GENERATION.handed_out.is_(None) | (_GENERATION.handed_out < _GIVEN_BY),
    )
    .values(handed_out=_GIVEN_BY)
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A generation with the newest revision of its envelope, if it has one."""

    record: Generation
    blob: bytes | None


class Transaction:
    """One transaction on the keystore; made by :class:`hwkm.keystore.engine.Keystore`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    # master keys

    def add_master(self, master: MasterKey) -> None:
        """Add the record of a master key."""
        self.connection.execute(insert(schema.master_key), master_values(master))

    def update_master(self, master: MasterKey) -> None:
        """Write what has become known of a master key: state, attributes, canary, public key."""
        values = master_values(master)
        where = _MASTER.master_id == values.pop("master_id")
        self.connection.execute(update(schema.master_key).where(where), values)

    def masters(self) -> list[MasterKey]:
        """Return all master keys, the oldest first."""
        return [read_master(row) for row in _MASTERS.rows(self.connection)]

    # escrow keys

    def add_escrow_key(self, key: EscrowKey) -> None:
        """Add an escrow key; if it is active, those that were are deactivated."""
        if key.state is State.ACTIVE:
            active = update(schema.escrow_key).where(_ESCROW_KEY.state == State.ACTIVE.value)
            self.connection.execute(active, {"state": State.DEACTIVATED.value})
        self.connection.execute(insert(schema.escrow_key), escrow_key_values(key))

    def escrow_keys(self) -> list[EscrowKey]:
        """Return all escrow keys, the oldest first."""
        return [read_escrow_key(row) for row in _ESCROW_KEYS.rows(self.connection)]

    # volumes and generations

    def lock_volume(self, name: str) -> int:
        """Return the id of a volume, made if need be, and keep other writers from it."""
        found = self._find_volume(name)
        if found is None:
            # Another writer may make it at the same time; then this one waits for that.
            with suppress(IntegrityError), self.connection.begin_nested():
                self.connection.execute(insert(schema.volume), {"name": name})
            found = self._find_volume(name)
        if found is None:
            raise KeystoreError(f"the keystore could not take the volume {name!r}")
        return found

    def _find_volume(self, name: str) -> int | None:
        found: int | None = self.connection.execute(_VOLUME, {"volume": name}).scalar()
        return found

    def next_generation(self, volume_id: int) -> int:
        """Return the number that a volume's next generation gets.

        :raises KeystoreError: if there is none left.
        """
        query = select(func.max(_GENERATION.generation)).where(_GENERATION.volume_id == volume_id)
        number = int(self.connection.execute(query).scalar() or 0) + 1
        if number > MAX_GENERATION:
            raise KeystoreError(
                "the volume has no generation numbers left: one of its labels was forged",
                hint="Look into its events for an import, and give the medium another name",
            )
        return number

    def add_generation(self, volume_id: int, record: Generation, blob: bytes) -> None:
        """Add a generation with its envelope; the volume's active ones become deactivated."""
        of_volume = _GENERATION.volume_id == volume_id
        is_active = _GENERATION.state == State.ACTIVE.value
        if record.state is State.ACTIVE:
            deactivate = update(schema.generation).where(of_volume, is_active)
            self.connection.execute(deactivate, {"state": State.DEACTIVATED.value})
        values = generation_values(record) | {"volume_id": volume_id}
        self.connection.execute(insert(schema.generation), values)
        first = {"key_id": record.key_id, "revision": 1, "created": record.created, "blob": blob}
        self.connection.execute(insert(schema.envelope), first)

    def generation(self, key_id: bytes) -> Generation | None:
        """Return the generation whose volume key has this id."""
        query = _generations().where(_GENERATION.key_id == key_id)
        return next(self._read_generations(query), None)

    def stored(self, key_ids: Sequence[bytes]) -> dict[bytes, Stored]:
        """Return what there is of several keys: the generation and its newest envelope."""
        if not key_ids:
            return {}
        rows = _STORED.rows(self.connection, {"key_ids": key_ids})
        return {row.key_id: Stored(read_generation(row), row.blob) for row in rows}

    def hold(self, key_ids: Sequence[bytes]) -> dict[bytes, str]:
        """Return the states of several keys, and keep other writers from them and their volumes."""
        rows = _HOLD.rows(self.connection, {"key_ids": key_ids})
        return {row.key_id: row.state for row in rows}

    def generations(self, volume: str) -> list[Generation]:
        """Return a volume's generations, the oldest first."""
        query = _generations().where(schema.volume.c.name == volume)
        return list(self._read_generations(query))

    def all_generations(self) -> Iterator[Generation]:
        """Yield every generation of every volume, sorted by name and age."""
        return self._read_generations(_generations())

    def last_handed_out(self, volume: str) -> Generation | None:
        """Return the generation of a volume whose key was given last, by LABEL or READ.

        The order is that of the events, not of the clock, which can go backwards.
        """
        query = _generations().where(
            schema.volume.c.name == volume, _GENERATION.handed_out.is_not(None)
        )
        newest = query.order_by(None).order_by(_GENERATION.handed_out.desc()).limit(1)
        return next(self._read_generations(newest), None)

    def hand_out(self, key_id: bytes, event_id: int) -> None:
        """Remember that ``event_id`` is the last that gave this key, unless a later one did."""
        _HAND_OUT.many(self.connection, [{"given_key": key_id, "given_by": event_id}])

    def hand_out_all(self, events: Sequence[Event]) -> None:
        """Add the events that give several keys, held by now, and remember them."""
        values = [event_values(event) for event in events]
        numbers = _ADD_EVENTS.many_numbers(self.connection, values)
        given = [
            {"given_key": event.key_id, "given_by": number}
            for event, number in zip(events, numbers, strict=True)
        ]
        _HAND_OUT.many(self.connection, given)

    def envelope(self, key_id: bytes) -> bytes | None:
        """Return the newest revision of a key's envelope."""
        query = select(_ENVELOPE.blob).where(_ENVELOPE.key_id == key_id)
        newest = query.order_by(_ENVELOPE.revision.desc()).limit(1)
        found: bytes | None = self.connection.execute(newest).scalar()
        return found

    def add_envelope(self, key_id: bytes, blob: bytes, created: int) -> None:
        """Add a newer revision of a key's envelope; the older ones stay."""
        query = select(func.max(_ENVELOPE.revision)).where(_ENVELOPE.key_id == key_id)
        revision = int(self.connection.execute(query).scalar() or 0) + 1
        values = {"key_id": key_id, "revision": revision, "created": created, "blob": blob}
        self.connection.execute(insert(schema.envelope), values)

    def newest_envelopes(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every key's id with the newest revision of its envelope."""
        newest = (
            select(_ENVELOPE.key_id, func.max(_ENVELOPE.revision).label("revision"))
            .group_by(_ENVELOPE.key_id)
            .subquery()
        )
        same = (_ENVELOPE.key_id == newest.c.key_id) & (_ENVELOPE.revision == newest.c.revision)
        query = select(_ENVELOPE.key_id, _ENVELOPE.blob).join_from(schema.envelope, newest, same)
        for row in self.connection.execute(query):
            yield row.key_id, row.blob

    def envelopes_by_recipient(self) -> Counter[bytes]:
        """Return how many envelopes, in their newest revision, each recipient id can open.

        :raises KeystoreError: if one can't be read; then there is no telling.
        """
        found: Counter[bytes] = Counter()
        for key_id, blob in self.newest_envelopes():
            with refusing_damage(f"the envelope of key {key_id.hex()}"):
                found.update(stanza.recipient_id for stanza in Envelope.parse(blob).stanzas)
        return found

    # events

    def add_event(self, event: Event) -> int:
        """Add an event and return its number; numbers only ever grow."""
        return _ADD_EVENTS.many_numbers(self.connection, [event_values(event)])[0]

    def events(self, volume: str | None = None) -> list[Event]:
        """Return the events, of one volume or all, in the order they happened."""
        query = select(schema.event).order_by(_EVENT.event_id)
        if volume is not None:
            query = query.where(_EVENT.volume == volume)
        return [read_event(row) for row in self.connection.execute(query)]

    def last_event(
        self, operation: Operation, detail: str | None = None, *, ending: str = ""
    ) -> tuple[int, int] | None:
        """Return number and time of the last event of this kind that went well; None if never.

        If ``detail`` is given, it is the event's; if ``ending`` is, that is how its detail ends.
        """
        query = select(_EVENT.event_id, _EVENT.at).where(
            _EVENT.operation == operation.value, _EVENT.outcome == Outcome.OK.value
        )
        if detail is not None:
            query = query.where(_EVENT.detail == detail)
        if ending:
            query = query.where(_EVENT.detail.endswith(ending, autoescape=True))
        row = self.connection.execute(query.order_by(_EVENT.event_id.desc()).limit(1)).first()
        return None if row is None else (row.event_id, row.at)

    # drives

    def add_proof(self, proof: Proof, who: str) -> None:
        """Add what a drive said of a key, and the event of it.

        :raises KeystoreError: if there is no such key.
        """
        record = self.generation(proof.key_id)
        if record is None:
            raise KeystoreError(f"no key {proof.key_id.hex()} is on record")
        self.connection.execute(insert(schema.proof), proof_values(proof))
        self.add_event(
            Event(
                at=proof.at,
                who=who,
                operation=proof.kind.operation,
                outcome=Outcome.OK if proof.is_good else Outcome.FAILED,
                volume=record.volume,
                key_id=proof.key_id,
                job=proof.job,
                detail=_about(proof),
            )
        )

    def proofs(self, key_id: bytes) -> list[Proof]:
        """Return what drives said of a key, in the order it happened."""
        query = select(schema.proof).where(_PROOF.key_id == key_id).order_by(_PROOF.proof_id)
        return [read_proof(row) for row in self.connection.execute(query)]

    def has_proofs(self) -> bool:
        """Return whether any drive ever said anything of a key."""
        return self.connection.execute(select(_PROOF.proof_id).limit(1)).first() is not None

    def last_proof_in(self, drive_serial: str) -> Proof | None:
        """Return what a drive said last, of whatever key."""
        same = _PROOF.drive_serial == drive_serial
        query = select(schema.proof).where(same).order_by(_PROOF.proof_id.desc()).limit(1)
        row = self.connection.execute(query).first()
        return None if row is None else read_proof(row)

    def last_proof(self, key_id: bytes, kind: ProofKind) -> Proof | None:
        """Return the last proof of this kind for a key."""
        same = (_PROOF.key_id == key_id) & (_PROOF.kind == kind.value)
        query = select(schema.proof).where(same).order_by(_PROOF.proof_id.desc()).limit(1)
        row = self.connection.execute(query).first()
        return None if row is None else read_proof(row)

    def newest_proofs(self, kind: ProofKind) -> dict[bytes, Proof]:
        """Return the last proof of this kind for every key that has one, by key id."""
        newest = (
            select(func.max(_PROOF.proof_id))
            .where(_PROOF.kind == kind.value)
            .group_by(_PROOF.key_id)
        )
        query = select(schema.proof).where(_PROOF.proof_id.in_(newest))
        return {row.key_id: read_proof(row) for row in self.connection.execute(query)}

    def pinned_wrapping_key(self, serial: str) -> bytes | None:
        """Return the SHA-256 fingerprint of the wrapping key that is trusted in a drive."""
        query = select(_DRIVE.fingerprint).where(_DRIVE.serial == serial)
        found: bytes | None = self.connection.execute(query).scalar()
        return found

    def pin_wrapping_key(self, serial: str, fingerprint: bytes, now: int, who: str) -> None:
        """Trust this wrapping key in a drive from now on, in place of any other; with an event."""
        values = {"fingerprint": fingerprint, "pinned": now, "accepted_by": who}
        known = self.pinned_wrapping_key(serial)
        if known is None:
            self.connection.execute(insert(schema.drive), {"serial": serial, **values})
        else:
            self.connection.execute(update(schema.drive).where(_DRIVE.serial == serial), values)
        before = "" if known is None else f", in place of {known.hex()}"
        detail = f"drive {serial}: wrapping key {fingerprint.hex()}{before}"
        self.add_event(Event(now, who, Operation.DRIVE_PIN, Outcome.OK, detail=detail))

    def add_key_name(self, key_id: bytes, name: bytes) -> None:
        """Add the name that another program wrote beside the blocks of a key."""
        self.connection.execute(insert(schema.key_name), {"key_id": key_id, "name": name})

    def key_name(self, key_id: bytes) -> bytes | None:
        """Return the name that another program gave a key."""
        query = select(schema.key_name.c.name).where(schema.key_name.c.key_id == key_id)
        found: bytes | None = self.connection.execute(query).scalar()
        return found

    def find_by_key_name(self, name: bytes) -> Generation | None:
        """Return the newest generation whose key is called ``name`` on its tape.

        That is its key id, or what another program called it; blanks and NULs at its end don't
        count, because some drives want names filled up to their full length.

        :raises PolicyError: if keys of several volumes are called so: only one of them is right.
        """
        # A key id may itself end in such bytes, so the name is cut and not stripped.
        filled = not name[KEY_ID_BYTES:].strip(b" \0")
        if filled and (own := self.generation(name[:KEY_ID_BYTES])) is not None:
            return own
        for spelling in (name, name.rstrip(b" \0")):
            joined = _generations().join(schema.key_name)
            same = joined.where(schema.key_name.c.name == spelling)
            if spelling and (found := list(self._read_generations(same))):
                _refuse_several(found)
                return found[-1]
        return None

    # the keystore itself

    def set_installation(self, installation: str, created: int) -> None:
        """Write, once, which installation this keystore belongs to."""
        values = {"installation_id": installation, "created": created}
        self.connection.execute(insert(schema.installation), values)

    def _read_generations(self, query: Select[Any]) -> Iterator[Generation]:
        return (read_generation(row) for row in self.connection.execute(query))


def _about(proof: Proof) -> str:
    """Return what an event says of a proof: where, and what was not as it should be."""
    place = f"drive {proof.drive_serial}, cartridge {proof.cartridge_serial or 'unknown'}"
    failed = [f"{c.name}: {c.detail}" for c in proof.checks if c.status is Status.FAIL]
    return "; ".join([place, *failed])


def _refuse_several(found: list[Generation]) -> None:
    names = sorted({record.volume for record in found})
    if len(names) > 1:
        raise PolicyError(
            f"keys of several volumes are called the same: {', '.join(names)}",
            hint="Load the key by the name of the volume that is in the drive",
        )
