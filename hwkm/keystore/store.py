"""What can be asked of the keystore, and written to it, within one transaction."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError

from hwkm.envelope import MAX_GENERATION, Envelope, Scheme
from hwkm.errors import KeystoreError, ParseError
from hwkm.keys import Cipher
from hwkm.keystore import schema
from hwkm.keystore.records import Event, Generation, MasterKey, Operation, Outcome, State
from hwkm.policy import Delivery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Row, Select

DAMAGED = "Restore it from its backup; or move it away, and labels alone open the volumes"
"""What to do about a damaged keystore."""

_MASTER = schema.master_key.c
_GENERATION = schema.generation.c
_ENVELOPE = schema.envelope.c
_EVENT = schema.event.c


class Transaction:
    """One transaction on the keystore; made by :class:`hwkm.keystore.engine.Keystore`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    # master keys

    def add_master(self, master: MasterKey) -> None:
        """Add the record of a master key."""
        self.connection.execute(insert(schema.master_key), _master_values(master))

    def update_master(self, master: MasterKey) -> None:
        """Write what has become known of a master key: state, attributes, canary, public key."""
        values = _master_values(master)
        where = _MASTER.master_id == values.pop("master_id")
        self.connection.execute(update(schema.master_key).where(where), values)

    def masters(self) -> list[MasterKey]:
        """Return all master keys, the oldest first."""
        query = select(schema.master_key).order_by(_MASTER.created, _MASTER.master_id)
        return [_master(row) for row in self.connection.execute(query)]

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
        query = select(schema.volume.c.volume_id).where(schema.volume.c.name == name)
        found: int | None = self.connection.execute(query.with_for_update()).scalar()
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
        values = _generation_values(record) | {"volume_id": volume_id}
        self.connection.execute(insert(schema.generation), values)
        first = {"key_id": record.key_id, "revision": 1, "created": record.created, "blob": blob}
        self.connection.execute(insert(schema.envelope), first)

    def generation(self, key_id: bytes) -> Generation | None:
        """Return the generation whose volume key has this id."""
        query = _generations().where(_GENERATION.key_id == key_id)
        return next(self._read_generations(query), None)

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
        is_newer = _GENERATION.handed_out.is_(None) | (_GENERATION.handed_out < event_id)
        give = update(schema.generation).where(_GENERATION.key_id == key_id, is_newer)
        self.connection.execute(give, {"handed_out": event_id})

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
            with _refusing_damage(f"the envelope of key {key_id.hex()}"):
                found.update(stanza.recipient_id for stanza in Envelope.parse(blob).stanzas)
        return found

    # events

    def add_event(self, event: Event) -> int:
        """Add an event and return its number; numbers only ever grow."""
        values = {
            "at": event.at,
            "who": event.who,
            "operation": event.operation.value,
            "outcome": event.outcome.value,
            "volume": event.volume,
            "key_id": event.key_id,
            "job": event.job,
            "detail": event.detail,
        }
        added = insert(schema.event).returning(_EVENT.event_id)
        return int(self.connection.execute(added, values).scalar_one())

    def events(self, volume: str | None = None) -> list[Event]:
        """Return the events, of one volume or all, in the order they happened."""
        query = select(schema.event).order_by(_EVENT.event_id)
        if volume is not None:
            query = query.where(_EVENT.volume == volume)
        return [_event(row) for row in self.connection.execute(query)]

    def set_installation(self, installation: str, created: int) -> None:
        """Write, once, which installation this keystore belongs to."""
        values = {"installation_id": installation, "created": created}
        self.connection.execute(insert(schema.installation), values)

    def _read_generations(self, query: Select[Any]) -> Iterator[Generation]:
        return (_generation(row) for row in self.connection.execute(query))


@contextmanager
def _refusing_damage(what: str) -> Iterator[None]:
    """Turn what a damaged row makes its reader raise into a :class:`KeystoreError`."""
    try:
        yield
    except (ValueError, LookupError, TypeError, ParseError) as error:
        raise KeystoreError(f"{what} is damaged in the keystore: {error}", hint=DAMAGED) from error


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


@_refusing_damage("a generation")
def _generation(row: Row[Any]) -> Generation:
    return Generation(
        key_id=row.key_id,
        volume=row.name,
        generation=row.generation,
        cipher=Cipher[row.cipher],
        state=State(row.state),
        created=row.created,
        delivery=Delivery(row.delivery),
        last_used=row.last_used,
    )


def _generation_values(record: Generation) -> dict[str, Any]:
    return {
        "key_id": record.key_id,
        "generation": record.generation,
        "cipher": record.cipher.name,
        "state": record.state.value,
        "created": record.created,
        "delivery": record.delivery.value,
    }


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError("a column that must hold a JSON object holds something else")
    return value


@_refusing_damage("the record of a master key")
def _master(row: Row[Any]) -> MasterKey:
    return MasterKey(
        master_id=row.master_id,
        label=row.label,
        token=row.token,
        serial=row.serial,
        scheme=Scheme.from_label(row.scheme),
        state=State(row.state),
        created=row.created,
        attributes=_json_object(row.attributes),
        parameters=_json_object(row.parameters),
        canary=row.canary,
        public_key=row.public_key,
    )


def _master_values(master: MasterKey) -> dict[str, Any]:
    return {
        "master_id": master.master_id,
        "label": master.label,
        "token": master.token,
        "serial": master.serial,
        "scheme": master.scheme.label,
        "state": master.state.value,
        "created": master.created,
        "attributes": json.dumps(master.attributes, sort_keys=True),
        "parameters": json.dumps(master.parameters, sort_keys=True),
        "canary": master.canary,
        "public_key": master.public_key,
    }


@_refusing_damage("an event")
def _event(row: Row[Any]) -> Event:
    return Event(
        at=row.at,
        who=row.who,
        operation=Operation(row.operation),
        outcome=Outcome(row.outcome),
        volume=row.volume,
        key_id=row.key_id,
        job=row.job,
        detail=row.detail,
    )
