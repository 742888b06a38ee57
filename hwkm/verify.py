"""Opening every envelope in the keystore with everything at hand, before a disaster asks for it.

And telling which tapes were never seen to be encrypted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hwkm.checks import Check, Status, fail, ok, warn
from hwkm.envelope import Scheme
from hwkm.errors import EnvelopeError, HwkmError, KeystoreError, PinError, TokenError
from hwkm.proofs import best_proofs, check_proof
from hwkm.reading import parse_stored
from hwkm.recipients import NotMineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hwkm.envelope import Envelope, Stanza
    from hwkm.keystore.engine import Keystore
    from hwkm.keystore.records import Generation
    from hwkm.recipients import Identity

    Records = Iterable[Generation]

_ADVICE = "Compare with the keystore's backup and the volume's label"
_MISSING = "If there should be, restore the keystore's backup; hwkm volume list shows what is there"


def check_volumes(
    keystore: Keystore, identities: Sequence[Identity], volumes: Sequence[str]
) -> list[Check]:
    """Open every envelope of ``volumes`` (all, if it is empty) with every identity that can.

    Volumes that a drive encrypts are also checked for a proof that it did.

    :raises KeystoreError: if the keystore can't be read.
    """
    with keystore.reading() as transaction:
        wanted = set(volumes)
        records = [r for r in transaction.all_generations() if not wanted or r.volume in wanted]
        blobs = {record.key_id: transaction.envelope(record.key_id) for record in records}
        proofs = best_proofs(transaction)
    missing = wanted - {record.volume for record in records}
    findings = [fail(f"volume {name}", "not in the keystore", _MISSING) for name in sorted(missing)]
    if not records and not wanted:
        findings = [warn("volumes", "the keystore knows none: nothing was checked", _MISSING)]
    for record in records:
        findings += _check_envelope(record, blobs[record.key_id], identities)
        findings += check_proof(record, proofs.get(record.key_id))
    return findings


@dataclass(frozen=True, slots=True)
class Opened:
    """How many keys opened and how many did not, and every copy that did not."""

    opened: int
    unopened: int
    failures: list[Check]


def open_all(
    keystore: Keystore, identities: Sequence[Identity], watched: Callable[[Records], Records]
) -> Opened:
    """Open every envelope there is with every identity that can.

    ``watched`` is given what is to be opened, and is told, by what it gives back, how far it is.

    :raises KeystoreError: if the keystore can't be read.
    """
    with keystore.reading() as transaction:
        records = list(transaction.all_generations())
    opened, failures = 0, list[Check]()
    for record in watched(records):
        with keystore.reading() as transaction:
            blob = transaction.envelope(record.key_id)
        found = _check_envelope(record, blob, identities)
        opened += any(one.status is Status.OK for one in found)
        failures += [one for one in found if one.status is Status.FAIL]
    return Opened(opened, len(records) - opened, failures)


def _check_envelope(
    record: Generation, blob: bytes | None, identities: Sequence[Identity]
) -> list[Check]:
    name = f"volume {record.volume}, generation {record.generation}"
    try:
        envelope = parse_stored(blob, record)
    except KeystoreError as error:
        return [fail(name, str(error), _ADVICE)]
    kept_elsewhere = [s for s in envelope.stanzas if s.scheme is Scheme.ESCROW]
    findings = [
        _check_stanza(name, envelope, stanza, identities)
        for stanza in envelope.stanzas
        if stanza not in kept_elsewhere
    ]
    if not any(finding.status == "ok" for finding in findings):
        findings.append(fail(name, "no recipient at hand opens it", "Connect one of its tokens"))
    # No finding of its own: one that is ok says that the key was opened.
    for stanza in kept_elsewhere:
        about = f"a copy for escrow key {stanza.recipient_id.hex()} can't be opened here"
        findings[-1] = replace(findings[-1], detail=f"{findings[-1].detail}; {about}")
    return findings


def _check_stanza(
    name: str, envelope: Envelope, stanza: Stanza, identities: Sequence[Identity]
) -> Check:
    recipient = f"{stanza.recipient_id.hex()} ({stanza.scheme.label})"
    failure: HwkmError | None = None
    for identity in identities:
        try:
            envelope.verify(identity.unwrap(envelope.header, stanza))
        except NotMineError:
            continue
        except (EnvelopeError, TokenError, PinError) as error:
            failure = error
            continue
        return ok(name, f"opens with {recipient}")
    if isinstance(failure, EnvelopeError):
        return fail(name, f"does not open with {recipient}: {failure}", _ADVICE)
    if failure is not None:
        return fail(name, f"{recipient} could not be asked: {failure}", failure.hint)
    return warn(name, f"{recipient} is not at hand", "Connect its token to check this copy too")
