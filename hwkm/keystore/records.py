"""What the keystore holds, as frozen dataclasses. Times are seconds since 1970-01-01 UTC."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import TYPE_CHECKING, Any

from hwkm.checks import all_ok
from hwkm.policy import Delivery

if TYPE_CHECKING:
    from hwkm.checks import Check
    from hwkm.envelope import Scheme
    from hwkm.keys import Cipher


@unique
class State(StrEnum):
    """States of keys (SP 800-57 part 1 rev. 5, section 7)."""

    PRE_ACTIVE = "pre-active"
    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    COMPROMISED = "compromised"
    DESTROYED = "destroyed"


@unique
class Operation(StrEnum):
    """What an event is about."""

    LABEL = "label"
    READ = "read"
    IMPORT = "import"
    DRIVE_KEY = "drive-key"
    DRIVE_LOAD = "drive-load"
    DRIVE_HOLD = "drive-hold"
    DRIVE_PROVE = "drive-prove"
    DRIVE_CLEAR = "drive-clear"
    DRIVE_PIN = "drive-pin"
    MASTER_CREATE = "master-create"
    ESCROW_NEW = "escrow-new"
    ESCROW_OPEN = "escrow-open"
    KEYSTORE_CREATE = "keystore-create"
    KEYSTORE_BACKUP = "keystore-backup"
    KEYSTORE_RESTORE = "keystore-restore"
    KEPT = "kept"


@unique
class Outcome(StrEnum):
    """How it ended: the key was given, refused on purpose, or could not be given."""

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class MasterKey:
    """A master key on record.

    ``token`` is the token's name in the configuration and ``serial`` its serial number. A
    pre-active master key has no ``canary`` yet. ``public_key`` is a DER SubjectPublicKeyInfo.
    ``parameters`` are the scheme's; ``oaep`` has ``oaep_hash``, SHA1 or SHA256.
    """

    master_id: bytes
    label: str
    token: str
    serial: str
    scheme: Scheme
    state: State
    created: int
    attributes: dict[str, Any] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)
    canary: bytes | None = None
    public_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class EscrowKey:
    """The public half of an escrow key: X-Wing's 1,216 bytes, and their SHA-256.

    Volume keys are wrapped for the one that is active; a replaced one is deactivated.
    """

    recipient_id: bytes
    public_key: bytes
    state: State
    created: int
    made_by: str


@dataclass(frozen=True, slots=True)
class Generation:
    """One volume key: which volume and generation it belongs to, and when it was last given."""

    key_id: bytes
    volume: str
    generation: int
    cipher: Cipher
    state: State
    created: int
    delivery: Delivery = Delivery.SOFTWARE
    last_used: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Who did what with which volume's key, how it ended, and for which of Bacula's jobs."""

    at: int
    who: str
    operation: Operation
    outcome: Outcome
    volume: str | None = None
    key_id: bytes | None = None
    job: str | None = None
    detail: str = ""


@unique
class ProofKind(StrEnum):
    """What was done with a drive before it was asked what it does."""

    LOAD = "load"
    HOLD = "hold"
    PROVE = "prove"
    CLEAR = "clear"

    @property
    def operation(self) -> Operation:
        """What the event is called that belongs to it."""
        return Operation(f"drive-{self}")


@dataclass(frozen=True, slots=True)
class Proof:
    """What a drive, read back, said of one volume key: kept so that it can be shown later.

    ``encrypted`` says that the drive encrypts with this key (after a load; or at a mount that found
    it to hold the key), that what is on the tape was encrypted with it (after a prove); it is False
    after a clear. ``key_format`` is how the key went to the drive, ``plain`` or ``wrapped``.
    ``counter`` is the drive's key instance counter. Serial numbers and barcode are empty, and the
    counter None, where they are not known.
    """

    key_id: bytes
    at: int
    kind: ProofKind
    encrypted: bool
    drive_serial: str
    cartridge_serial: str = ""
    barcode: str = ""
    job: str | None = None
    key_format: str = ""
    counter: int | None = None
    checks: tuple[Check, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether the drive did what it was told."""
        return all_ok(self.checks) and self.encrypted is not (self.kind is ProofKind.CLEAR)
