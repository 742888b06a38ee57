"""Rows of the keystore's tables turned into records, and back."""

from __future__ import annotations

import json
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from hwkm.checks import Check, Status
from hwkm.envelope import Scheme
from hwkm.errors import KeystoreError, ParseError
from hwkm.keys import Cipher
from hwkm.keystore.records import (
    EscrowKey,
    Event,
    Generation,
    MasterKey,
    Operation,
    Outcome,
    Proof,
    ProofKind,
    State,
)
from hwkm.policy import Delivery

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Row

DAMAGED = "Restore it from its backup; or move it away, and labels alone open the volumes"
"""What to do about a damaged keystore."""


@contextmanager
def refusing_damage(what: str) -> Iterator[None]:
    """Turn what a damaged row makes its reader raise into a :class:`KeystoreError`."""
    try:
        yield
    except (ValueError, LookupError, TypeError, ParseError) as error:
        raise KeystoreError(f"{what} is damaged in the keystore: {error}", hint=DAMAGED) from error


@refusing_damage("a generation")
def read_generation(row: Row[Any]) -> Generation:
    """Return the generation in ``row``.

    :raises KeystoreError: if the row is damaged.
    """
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


def generation_values(record: Generation) -> dict[str, Any]:
    """Return the columns of ``record``, but for its volume's id."""
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


@lru_cache(maxsize=64)  # they hardly change, and are read for every key
@refusing_damage("the record of a master key")
def read_master(row: Row[Any]) -> MasterKey:
    """Return the master key in ``row``.

    :raises KeystoreError: if the row is damaged.
    """
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


def master_values(master: MasterKey) -> dict[str, Any]:
    """Return the columns of ``master``."""
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


@refusing_damage("the record of an escrow key")
def read_escrow_key(row: Row[Any]) -> EscrowKey:
    """Return the escrow key in ``row``.

    :raises KeystoreError: if the row is damaged.
    """
    if sha256(row.public_key).digest() != row.recipient_id:
        raise ValueError("its id is not that of its public half")
    return EscrowKey(
        recipient_id=row.recipient_id,
        public_key=row.public_key,
        state=State(row.state),
        created=row.created,
        made_by=row.made_by,
    )


def escrow_key_values(key: EscrowKey) -> dict[str, Any]:
    """Return the columns of ``key``."""
    return {
        "recipient_id": key.recipient_id,
        "public_key": key.public_key,
        "state": key.state.value,
        "created": key.created,
        "made_by": key.made_by,
    }


@refusing_damage("an event")
def read_event(row: Row[Any]) -> Event:
    """Return the event in ``row``.

    :raises KeystoreError: if the row is damaged.
    """
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


def event_values(event: Event) -> dict[str, Any]:
    """Return the columns of ``event``, but for its number."""
    return {
        "at": event.at,
        "who": event.who,
        "operation": event.operation.value,
        "outcome": event.outcome.value,
        "volume": event.volume,
        "key_id": event.key_id,
        "job": event.job,
        "detail": event.detail,
    }


@refusing_damage("a proof")
def read_proof(row: Row[Any]) -> Proof:
    """Return the proof in ``row``.

    :raises KeystoreError: if the row is damaged.
    """
    return Proof(
        key_id=row.key_id,
        at=row.at,
        kind=ProofKind(row.kind),
        encrypted=bool(row.encrypted),
        drive_serial=row.drive_serial,
        cartridge_serial=row.cartridge_serial,
        barcode=row.barcode,
        job=row.job,
        key_format=row.key_format,
        counter=row.counter,
        checks=tuple(_check(item) for item in json.loads(row.checks)),
    )


def proof_values(proof: Proof) -> dict[str, Any]:
    """Return the columns of ``proof``, but for its number."""
    shown = [
        {"name": c.name, "status": c.status, "detail": c.detail, "advice": c.advice}
        for c in proof.checks
    ]
    return {
        "key_id": proof.key_id,
        "at": proof.at,
        "kind": proof.kind.value,
        "encrypted": int(proof.encrypted),
        "drive_serial": proof.drive_serial,
        "cartridge_serial": proof.cartridge_serial,
        "barcode": proof.barcode,
        "job": proof.job,
        "key_format": proof.key_format,
        "counter": proof.counter,
        "checks": json.dumps(shown),
    }


def _check(item: dict[str, str]) -> Check:
    return Check(item["name"], Status(item["status"]), item["detail"], item["advice"])
