"""The rules of READ: which envelope serves a volume, and when none may. Pure, but for the keystore.

A wrong key is worse than none: Bacula would go on writing with it, and nobody could read that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.envelope import Envelope, Header, Scheme
from hwkm.errors import (
    EnvelopeError,
    KeystoreError,
    NotFoundError,
    ParseError,
    PinError,
    PolicyError,
    TokenError,
)
from hwkm.keystore.records import Generation, State
from hwkm.policy import Delivery
from hwkm.recipients import Identity, Opened, open_envelope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwkm.keystore.store import Transaction


def choose(transaction: Transaction, volume: str) -> tuple[Generation, tuple[str, ...]]:
    """Return the generation to take when the label holds no envelope, and whether it is a guess.

    :raises NotFoundError: if the keystore does not know the volume.
    :raises PolicyError: if the key was destroyed.
    """
    known = transaction.generations(volume)
    if not known:
        raise NotFoundError(
            f"volume {volume!r} has no envelope in its label, and the keystore does not know it",
            hint="Restore the keystore's backup, or check that the right volume is mounted",
        )
    last = transaction.last_handed_out(volume)
    chosen = last or known[-1]
    refuse_destroyed(chosen)
    if len(known) == 1:
        return chosen, ()
    why = "it is the newest" if last is None else "it was handed out last"
    guess = (
        f"the label holds no envelope: generation {chosen.generation} of {len(known)} is a guess "
        f"to be checked, {why}"
    )
    return chosen, (guess,)


def choose_for_drive(
    transaction: Transaction, volume: str, *, key_id: bytes | None = None
) -> tuple[Generation, tuple[str, ...]]:
    """Return the generation to load into a drive: the newest, or that of ``key_id``.

    :raises NotFoundError: if the volume has none, or none of that id.
    :raises PolicyError: if the key was destroyed.
    """
    known = transaction.generations(volume)
    found = [record for record in known if key_id in (None, record.key_id)]
    if not found:
        what = "no key" if key_id is None else f"no key {key_id.hex()}"
        raise NotFoundError(
            f"the keystore has {what} of volume {volume!r}",
            hint="hwkm volume list shows all volumes, hwkm volume show the keys of one",
        )
    refuse_destroyed(found[-1])
    return found[-1], ()


def parse_stored(
    blob: bytes | None, record: Generation, same: tuple[bytes, Envelope] | None = None
) -> Envelope:
    """Return the envelope of ``record`` out of the keystore's bytes.

    ``same`` are bytes that were read already, with what was in them.

    :raises KeystoreError: if it is missing or damaged, or another key's.
    """
    what = f"the keystore's envelope of key {record.key_id.hex()}"
    hint = "Restore the keystore's backup; the envelope in the volume's label opens it too"
    if blob is None:
        raise KeystoreError(f"{what} is missing", hint=hint)
    try:
        parsed = same[1] if same and same[0] == blob else Envelope.parse(blob)
    except ParseError as error:
        raise KeystoreError(f"{what} is damaged: {error}", hint=hint) from error
    header = parsed.header
    on_record = (record.key_id, record.volume, record.generation, record.cipher)
    if (header.key_id, header.volume, header.generation, header.cipher) != on_record:
        raise KeystoreError(f"{what} belongs to another volume key", hint=hint)
    return parsed


def about_import(opened: Opened) -> tuple[str, ...]:
    """Return what the event says of a key that came from a label alone."""
    notes = ("the keystore did not know this key: imported from the label",)
    if opened.stanza.scheme is not Scheme.OAEP:
        return notes
    return (*notes, "whoever has the RSA public key can have made this label: see who wrote it")


def refuse_destroyed(record: Generation | None) -> None:
    """Refuse a key that was destroyed.

    :raises PolicyError: if it was.
    """
    if record is not None and record.state is State.DESTROYED:
        raise PolicyError(
            f"the key of volume {record.volume!r}, generation {record.generation}, was destroyed",
            hint="What is on the medium is gone; label the volume anew",
        )


def refuse_delivery(envelope: Envelope, wanted: Delivery) -> None:
    """Refuse a drive's key to the Storage Daemon, and the Storage Daemon's to a drive.

    :raises PolicyError: if ``envelope`` holds a key that is not delivered as ``wanted``.
    """
    header = envelope.header
    if Delivery.of(header.cipher) is wanted:
        return
    what = f"volume {header.volume!r}, generation {header.generation}, is encrypted by"
    if wanted is Delivery.DRIVE:
        raise PolicyError(
            f"{what} software: no drive gets its key",
            hint="Read it through the Storage Daemon; or label it anew for the drive",
        )
    raise PolicyError(
        f"{what} the tape drive: the Storage Daemon does not get its key",
        hint="Load the key into the drive with hwkm drive load, or let the Encryption Command "
        "do it: hwkm getkey --device %a",
    )


def refuse_disagreement(on_label: Envelope | None, served: Envelope) -> None:
    """Refuse the keystore's envelope for a label whose key id it has for something else.

    Such a label was changed: its own envelope did not open, and the keystore's opened to a key that
    is not the one on the medium.

    :raises EnvelopeError: if so.
    """
    if on_label is None or on_label.header == served.header:
        return
    raise EnvelopeError(
        f"the label says that key {served.header.key_id.hex()} is {_of(on_label.header)}, "
        f"the keystore that it is {_of(served.header)}",
        hint="The label was changed, or somebody else wrote it. No key is given",
    )


def _of(header: Header) -> str:
    made = f"made at {header.created}"
    return (
        f"of volume {header.volume!r}, generation {header.generation}, {header.cipher.name}, {made}"
    )


def open_any(
    candidates: Sequence[Envelope], identities: Sequence[Identity]
) -> tuple[Opened, Envelope, tuple[str, ...]]:
    """Open every candidate; return the first that opened, and what kept others from it.

    :raises EnvelopeError: if two hold different keys. Otherwise, if none opens, what kept the
        first from it.
    """
    opened: list[tuple[Opened, Envelope]] = []
    failures: list[EnvelopeError | TokenError | PinError] = []
    for candidate in candidates:
        try:
            opened.append((open_envelope(candidate, identities), candidate))
        except (EnvelopeError, TokenError, PinError) as error:
            failures.append(error)
    if not opened:
        raise failures[0]
    (first, served), *others = opened
    for other, envelope in others:
        if other.key != first.key or envelope.header != served.header:
            raise EnvelopeError(
                f"label and keystore hold different keys under the key id "
                f"{served.header.key_id.hex()}",
                hint="One of them was forged. No key is given; compare both with their backups",
            )
    return first, served, (*first.problems, *(str(failure) for failure in failures))
