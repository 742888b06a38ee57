"""What is known of volumes that a tape drive encrypts: which are proved to be encrypted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.checks import Check, Status
from hwkm.keystore.records import ProofKind, State
from hwkm.policy import Delivery

if TYPE_CHECKING:
    from hwkm.keystore.records import Generation, Proof
    from hwkm.keystore.store import Transaction

_WORDS = {
    Status.OK: "the tape was seen to be encrypted with its key",
    Status.WARN: "a drive encrypts it, and the tape was never looked at",
    Status.FAIL: "the tape was seen not to be encrypted with its key",
}
_ADVICE = {
    Status.OK: "",
    Status.WARN: "With the tape in a drive and its key loaded, run hwkm drive prove",
    Status.FAIL: "Take the tape to be readable by anybody, see what wrote it, and label it anew",
}
_NAMED = 5
"""How many volumes one finding names."""


def best_proofs(transaction: Transaction) -> dict[bytes, Proof]:
    """Return the proof to show for each key: the last look at its tape, else at its drive."""
    loads = transaction.newest_proofs(ProofKind.LOAD)
    return loads | transaction.newest_proofs(ProofKind.PROVE)


def check_proof(record: Generation, proof: Proof | None) -> list[Check]:
    """Judge the best proof of a generation; return nothing if it needs none.

    Software needs none. Nor does an older generation: its tape was written over.
    """
    status = _judge(record, proof)
    if status is None:
        return []
    name = f"volume {record.volume}, generation {record.generation}"
    place = ""
    if proof is not None and proof.kind is ProofKind.PROVE:
        place = f" (drive {proof.drive_serial}, cartridge {proof.cartridge_serial or 'unknown'})"
    return [Check(name, status, _WORDS[status] + place, _ADVICE[status])]


def check_all(transaction: Transaction) -> list[Check]:
    """Judge all volumes that a drive encrypts: one finding for each way that it came out."""
    proofs = best_proofs(transaction)
    volumes: dict[Status, list[str]] = {}
    for record in transaction.all_generations():
        if status := _judge(record, proofs.get(record.key_id)):
            volumes.setdefault(status, []).append(record.volume)
    return [
        Check("volumes on tape", status, f"{_list(names)}: {_WORDS[status]}", _ADVICE[status])
        for status, names in volumes.items()
    ]


def _judge(record: Generation, proof: Proof | None) -> Status | None:
    if record.delivery is not Delivery.DRIVE or record.state is not State.ACTIVE:
        return None
    if proof is None or proof.kind is not ProofKind.PROVE:
        return Status.WARN
    return Status.OK if proof.is_good else Status.FAIL


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
