"""What a drive says after it was given a key, compared with what it was told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.checks import Check, fail, ok, warn
from hwkm.scsi.pages.base import member
from hwkm.scsi.pages.kad import Kad, KadType, find_kad
from hwkm.scsi.pages.status import ControlledBy, DecryptionMode, EncryptionMode, Scope

if TYPE_CHECKING:
    from enum import IntEnum

    from hwkm.scsi.pages.set_encryption import SetDataEncryption
    from hwkm.scsi.pages.status import EncryptionStatus

_FILLERS = b" \0"
_IGNORED = "The drive took the key and does something else: do not write with it; see its firmware"
_OTHER = "Another host or a library sets keys too: let one alone do it"
_NOT_KEPT = "Without it the tape can't ask for its key; see the drive's firmware"

KAD_CHECKS = {KadType.A_KAD: "A-KAD", KadType.U_KAD: "U-KAD"}


def compare(
    sent: SetDataEncryption, before: EncryptionStatus, after: EncryptionStatus
) -> tuple[Check, ...]:
    """Compare the page that was sent with the status before and after it."""
    return (
        _equal("encryption mode", EncryptionMode, sent.encryption_mode, after.encryption_mode),
        _equal("decryption mode", DecryptionMode, sent.decryption_mode, after.decryption_mode),
        _algorithm(sent.algorithm_index, after.algorithm_index),
        *_kads(sent.kads, after.kads),
        _counter(before.key_instance_counter, after.key_instance_counter),
        _scope(sent.scope, before, after),
        _control(after),
    )


def holding(status: EncryptionStatus, key_id: bytes) -> tuple[Check, ...]:
    """Judge whether a drive encrypts with the key called ``key_id``."""
    if status.is_clear:
        advice = "Load the key again (hwkm drive load): a reset or another host took it out"
        return (fail("key in force", "the drive holds no key", advice),)
    encrypts = _equal(
        "encryption mode", EncryptionMode, EncryptionMode.ENCRYPT, status.encryption_mode
    )
    decrypts = status.decryption_mode in (DecryptionMode.DECRYPT, DecryptionMode.MIXED)
    mode = _word(DecryptionMode, status.decryption_mode)
    reads = (
        ok("decryption mode", mode)
        if decrypts
        else fail("decryption mode", f"{mode}: encrypted blocks can't be read", _IGNORED)
    )
    return encrypts, reads, key_name(status.kads, key_id), _control(status)


def key_name(kads: tuple[Kad, ...], key_id: bytes) -> Check:
    """Judge whether KADs name the key called ``key_id``."""
    found = names(kads)
    if any(same_name(key_id, one) for one in found):
        return ok("key id", show(key_id))
    others = ", ".join(map(show, found)) or "no name at all"
    return fail("key id", f"{others} instead of {show(key_id)}", _OTHER)


def counter_unmoved(since: int, status: EncryptionStatus) -> Check:
    """Judge whether nobody has set parameters since the counter was ``since``."""
    now = status.key_instance_counter
    if now == since:
        return ok("key instance counter", f"still {now}")
    seen = f"{since} became {now}: somebody has set the drive's parameters since"
    return fail("key instance counter", seen, _OTHER)


def keeps_only_the_first(sent: SetDataEncryption, after: EncryptionStatus) -> bool:
    """Return whether of the KADs that were sent the drive shows the first and no other."""
    if len(sent.kads) < 2 or len(after.kads) != 1:
        return False
    first, shown = sent.kads[0], after.kads[0]
    return shown.type == first.type and same_name(first.value, shown.value)


def shows_one_scope(before: EncryptionStatus, after: EncryptionStatus) -> bool:
    """Return whether a drive shows the same scopes before and after parameters were set.

    They must be such that parameters hold for this host: PUBLIC ones would be those of others.
    """
    was, now = (before.nexus_scope, before.key_scope), (after.nexus_scope, after.key_scope)
    return was == now and Scope.PUBLIC not in now


def names(kads: tuple[Kad, ...]) -> tuple[bytes, ...]:
    """Return what KADs call a key, the A-KAD first: it can't be changed on the tape."""
    values = (find_kad(kads, kind) for kind in (KadType.A_KAD, KadType.U_KAD))
    return tuple(value for value in values if value and value.strip(b"\0"))


def same_name(name: bytes, shown: bytes) -> bool:
    """Return whether a drive shows a name, perhaps filled up to the length that it wants."""
    return name == shown or (
        len(shown) > len(name) and shown.startswith(name) and not shown[len(name) :].strip(_FILLERS)
    )


def show(name: bytes) -> str:
    """Return a key's name for people: text as text, the rest in hexadecimal."""
    text = name.rstrip(_FILLERS)
    if text and text.isascii() and text.decode("ascii").isprintable():
        return repr(text.decode("ascii"))
    return name.hex()


def _equal(name: str, kind: type[IntEnum], wanted: int, found: int) -> Check:
    if found == wanted:
        return ok(name, _word(kind, found))
    return fail(name, f"{_word(kind, found)} instead of {_word(kind, wanted)}", _IGNORED)


def _word(kind: type[IntEnum], value: int) -> str:
    return getattr(member(kind, value), "name", f"unknown value {value}")


def _algorithm(wanted: int, found: int) -> Check:
    if found == wanted:
        return ok("algorithm", f"index {found:02X}h")
    return fail("algorithm", f"index {found:02X}h instead of {wanted:02X}h", _IGNORED)


def _kads(sent: tuple[Kad, ...], found: tuple[Kad, ...]) -> tuple[Check, ...]:
    checks = [
        _kad(name, find_kad(sent, kind), find_kad(found, kind)) for kind, name in KAD_CHECKS.items()
    ]
    return tuple(check for check in checks if check is not None)


def _kad(name: str, sent: bytes | None, found: bytes | None) -> Check | None:
    # Some drives fill what was not sent with zeros.
    empty = not (found or b"").strip(b"\0")
    if sent is None:
        return None if empty else fail(name, f"{show(found or b'')}, and none was sent", _OTHER)
    if found is None:
        return fail(name, f"missing instead of {show(sent)}", _NOT_KEPT)
    if same_name(sent, found):
        return ok(name, show(sent))
    return fail(name, f"{show(found)} instead of {show(sent)}", _OTHER)


def _counter(before: int, after: int) -> Check:
    name, step = "key instance counter", (after - before) % (1 << 32)
    if step == 0:
        return fail(name, f"it stays at {after}: the drive did not set the key", _IGNORED)
    if step == 1:
        return ok(name, f"{before} became {after}")
    detail = f"{before} became {after} by one key: another may have been set in between"
    return warn(name, detail, "See that no other host or library sets keys in this drive")


def _scope(wanted: int, before: EncryptionStatus, after: EncryptionStatus) -> Check:
    now = (after.nexus_scope, after.key_scope)
    words = " and ".join(dict.fromkeys(_word(Scope, one) for one in now))
    if now == (wanted, wanted):
        return ok("scope", words)
    if shows_one_scope(before, after):
        detail = f"{words} before and after: the drive does not report what was set"
        return warn("scope", detail, "That is this drive's way (quirk scope-not-reported)")
    return fail("scope", f"{words} instead of {_word(Scope, wanted)}", _IGNORED)


def _control(status: EncryptionStatus) -> Check:
    control = status.controlled_by
    word = _word(ControlledBy, control)
    if control in (ControlledBy.NOT_REPORTED, ControlledBy.HOST):
        return ok("controlled by", word)
    return fail("controlled by", word, _OTHER)
