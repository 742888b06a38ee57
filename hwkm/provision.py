"""Making master keys, so that a process killed at any point leaves one good key after a rerun.

Order: a pre-active record, the key in the token, its attributes read back, a canary, the active
record. What an interrupted run left is found by its pre-active record, removed, and made anew
under the same id.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hwkm.envelope import Scheme
from hwkm.errors import NotFoundError, PolicyError, TokenError
from hwkm.keystore.records import Event, MasterKey, Operation, Outcome, State
from hwkm.recipients import canary
from hwkm.recipients.token import recorded_master
from hwkm.token import master as objects
from hwkm.token import p11
from hwkm.token.probe import choose_scheme, probe

if TYPE_CHECKING:
    from hwkm.keystore.engine import Keystore
    from hwkm.manager import Caller
    from hwkm.token.session import TokenSession

MASTER_ID_BYTES = 16


class Provisioner:
    """Makes master keys in one token and records them."""

    def __init__(self, keystore: Keystore, token: TokenSession, caller: Caller, now: int) -> None:
        self._keystore = keystore
        self._token = token
        self._caller = caller
        self._now = now

    def create(self, scheme: Scheme | None = None, *, replace_active: bool = False) -> MasterKey:
        """Make a master key under ``scheme``, or the best one that works on the token.

        :raises PolicyError: if the token has an active one and ``replace_active`` is not set.
        :raises TokenError, PinError, KeystoreError: if one of them does not work; running it
            again makes up for what is missing.
        """
        info = self._token.info
        self._refuse_second(replace_active=replace_active)
        chosen = scheme or choose_scheme(probe(self._token))
        record = self._begin(chosen, info.serial)
        objects.generate(self._token, chosen, record.master_id, record.label)
        return self._finish(record)

    def adopt(self, scheme: Scheme, master_id: bytes, *, replace_active: bool = False) -> MasterKey:
        """Take a key that the vendor's tool made for a master key; it must have a CKA_ID.

        :raises NotFoundError: if the token has no such key.
        :raises PolicyError, TokenError, PinError, KeystoreError: as :meth:`create`.
        """
        self._refuse_second(replace_active=replace_active)
        if any(known.master_id == master_id for known in self._masters()):
            raise PolicyError(f"{master_id.hex()} is on record as a master key already")
        found = objects.look_at(self._token, scheme, master_id)
        record = self._record(scheme, self._token.info.serial, master_id, found.label)
        # Nothing is recorded before all is well: create() removes the key of an unfinished record.
        return self._finish(record, on_record=False)

    def _refuse_second(self, *, replace_active: bool) -> None:
        active = [known for known in self._masters() if known.state is State.ACTIVE]
        if active and not replace_active:
            raise PolicyError(
                f"token {self._token.settings.name!r} has the active master key "
                f"{active[0].master_id.hex()} already",
                hint="--replace gives it a new one for new volumes; the old still opens its own",
            )

    def _masters(self) -> list[MasterKey]:
        name = self._token.settings.name
        with self._keystore.reading() as transaction:
            return [known for known in transaction.masters() if known.token == name]

    def _begin(self, scheme: Scheme, serial: str) -> MasterKey:
        """Return the pre-active record of an interrupted run, or a new one."""
        unfinished = [known for known in self._masters() if known.state is State.PRE_ACTIVE]
        if unfinished:
            return self._begin_again(unfinished[0], scheme)
        master_id = os.urandom(MASTER_ID_BYTES)
        record = self._record(scheme, serial, master_id, f"hwkm-{master_id[:4].hex()}")
        with self._keystore.writing() as transaction:
            transaction.add_master(record)
        return record

    def _begin_again(self, record: MasterKey, scheme: Scheme) -> MasterKey:
        """Remove what was made for ``record``, and return it for ``scheme``."""
        objects.remove(self._token, record.scheme, record.master_id)
        record = replace(record, scheme=scheme)
        with self._keystore.writing() as transaction:
            transaction.update_master(record)
        return record

    def _record(self, scheme: Scheme, serial: str, master_id: bytes, label: str) -> MasterKey:
        return MasterKey(
            master_id=master_id,
            label=label,
            token=self._token.settings.name,
            serial=serial,
            scheme=scheme,
            state=State.PRE_ACTIVE,
            created=self._now,
        )

    def _finish(self, record: MasterKey, *, on_record: bool = True) -> MasterKey:
        """Check the key in the token, give it a canary, and make it the active one."""
        attributes = objects.look_at(self._token, record.scheme, record.master_id).attributes
        _refuse_dangerous(attributes)
        known = replace(record, attributes=attributes)
        if record.scheme is Scheme.OAEP:
            known = self._with_oaep(known)
        blob = canary.make(recorded_master(self._token, known))
        finished = replace(known, state=State.ACTIVE, canary=blob)
        with self._keystore.writing() as transaction:
            for other in transaction.masters():
                if other.token == record.token and other.state is State.ACTIVE:
                    transaction.update_master(replace(other, state=State.DEACTIVATED))
            write = transaction.update_master if on_record else transaction.add_master
            write(finished)
            detail = f"{record.master_id.hex()} ({record.scheme.label}) in {record.token}"
            transaction.add_event(
                Event(
                    at=self._now,
                    who=self._caller.who,
                    operation=Operation.MASTER_CREATE,
                    outcome=Outcome.OK,
                    detail=detail,
                )
            )
        return finished

    def _with_oaep(self, record: MasterKey) -> MasterKey:
        """Add the public key, and the hash that the token can use with it: SHA-256 or SHA-1."""
        from hwkm.recipients.token_oaep import OaepHash, encode_public, read_public

        public = encode_public(read_public(self._token, record.master_id))
        for kind in (OaepHash.SHA256, OaepHash.SHA1):
            known = replace(record, public_key=public, parameters={"oaep_hash": kind.name})
            try:
                canary.make(recorded_master(self._token, known))
            except TokenError as error:
                failure = error
            else:
                return known
        raise failure


def find_existing(token: TokenSession, scheme: Scheme, name: str) -> bytes:
    """Return the CKA_ID of the key called ``name``: its label, or its id in hex.

    :raises NotFoundError: if there is no such key, or several, or it has no id.
    """
    with token.use("looking for an existing key") as session:
        kind = objects.object_class(scheme)
        found = p11.find(session, kind, label=name)
        if not found and _is_hex(name):
            found = p11.find(session, kind, id=bytes.fromhex(name))
        ids = [key.id for key in found]
        del found
    if len(ids) != 1 or not ids[0]:
        raise NotFoundError(
            f"the token has {len(ids) or 'no'} key {name!r} of the right class with an id",
            hint="hwkm token lint lists the keys; an adopted key needs a CKA_ID",
        )
    return ids[0]


def _refuse_dangerous(attributes: dict[str, Any]) -> None:
    if attributes.get("SENSITIVE") is not True or attributes.get("EXTRACTABLE") is not False:
        raise TokenError(
            "the token made a key that can be read or taken out of it; it is not used",
            hint="Such a token is no place for a master key; see hwkm token lint",
        )


def _is_hex(text: str) -> bool:
    try:
        return bool(bytes.fromhex(text))
    except ValueError:
        return False
