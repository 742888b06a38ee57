"""Figures about a whole keystore, for those who watch it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from hwkm.envelope import Envelope
from hwkm.keystore import dialects, schema
from hwkm.keystore.records import Operation, State
from hwkm.keystore.rows import refusing_damage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.keystore.store import Transaction

UNKNOWN = "unknown"
"""Stands for the token and the label of a recipient that the keystore has no master key of."""

_ENVELOPE = schema.envelope.c
_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Figures:
    """``envelopes`` counts those that each master key can open, by its token and its label.

    ``last_backup`` is its time, in seconds since 1970; None if there was none.
    """

    size: int
    volumes: int
    keys: int
    envelopes: dict[tuple[str, str], int]
    volumes_with_one_recipient: int
    last_backup: int | None = None


def count(transaction: Transaction) -> Figures:
    """Read every envelope, and return the figures.

    :raises KeystoreError: if one can't be read; then there is no telling.
    """
    names = {one.master_id: (one.token, one.label) for one in transaction.masters()}
    keys = 0
    envelopes: Counter[tuple[str, str]] = Counter()
    alone: set[int] = set()
    for volume_id, state, recipients in _newest(transaction):
        keys += 1
        envelopes.update(names.get(recipient, (UNKNOWN, UNKNOWN)) for recipient in recipients)
        if state == State.ACTIVE.value and len(recipients) < 2:
            alone.add(volume_id)
    connection = transaction.connection
    backup = transaction.last_event(Operation.KEYSTORE_BACKUP)
    return Figures(
        size=dialects.named(connection.dialect.name).size(connection),
        volumes=connection.execute(select(func.count()).select_from(schema.volume)).scalar_one(),
        keys=keys,
        envelopes=dict(envelopes),
        volumes_with_one_recipient=len(alone),
        last_backup=None if backup is None else backup[1],
    )


def _newest(transaction: Transaction) -> Iterator[tuple[int, str, set[bytes]]]:
    """Yield volume, state and recipients of every key, by the newest revision of its envelope."""
    newest = (
        select(_ENVELOPE.key_id, func.max(_ENVELOPE.revision).label("revision"))
        .group_by(_ENVELOPE.key_id)
        .subquery()
    )
    same = (_ENVELOPE.key_id == newest.c.key_id) & (_ENVELOPE.revision == newest.c.revision)
    query = (
        select(schema.generation.c.volume_id, schema.generation.c.state, _ENVELOPE.blob)
        .join_from(schema.envelope, newest, same)
        .join(schema.generation, schema.generation.c.key_id == _ENVELOPE.key_id)
    )
    options = {"yield_per": _AT_ONCE}
    with transaction.connection.execute(query, execution_options=options) as rows:
        for row in rows:
            with refusing_damage("an envelope"):
                stanzas = Envelope.parse(row.blob).stanzas
            yield row.volume_id, row.state, {stanza.recipient_id for stanza in stanzas}
