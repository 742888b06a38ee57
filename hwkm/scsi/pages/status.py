"""Page 0020h, Data Encryption Status: the parameters in force for this host (SSC-5).

The key itself is never given out; its KADs, its counter and the modes tell whether it is set.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique
from typing import TYPE_CHECKING

from hwkm.scsi.pages.base import PageIn, bits, flag, member, open_page
from hwkm.scsi.pages.kad import KadFormat, find_kad, parse_kads

if TYPE_CHECKING:
    from hwkm.scsi.pages.kad import Kad, KadType

LEAST_BYTES = 24
"""Length up to the first KAD."""


@unique
class Scope(IntEnum):
    """Whom parameters hold for: those who set none, this I_T nexus, or all that share."""

    PUBLIC = 0
    LOCAL = 1
    ALL_I_T_NEXUS = 2


@unique
class EncryptionMode(IntEnum):
    """ENCRYPTION MODE: EXTERNAL takes blocks that the host has encrypted."""

    DISABLE = 0
    EXTERNAL = 1
    ENCRYPT = 2


@unique
class DecryptionMode(IntEnum):
    """DECRYPTION MODE: RAW gives out ciphertext, MIXED lets clear blocks pass, DECRYPT does not."""

    DISABLE = 0
    RAW = 1
    DECRYPT = 2
    MIXED = 3


@unique
class ControlledBy(IntEnum):
    """PARAMETERS CONTROL: who alone may set a key.

    HOST: nobody from outside has it to himself. DEVICE: the drive itself. LIBRARY: the automation
    device server (ADC). MANAGEMENT: a management interface.
    """

    NOT_REPORTED = 0
    HOST = 1
    DEVICE = 2
    LIBRARY = 3
    MANAGEMENT = 4


@unique
class ModeCheck(IntEnum):
    """CEEM and CEEMS: whether reading checks the mode in which a block was written."""

    DEFAULT = 0
    NO_CHECK = 1
    REFUSE_EXTERNAL = 2
    REFUSE_ENCRYPT = 3


@dataclass(frozen=True, slots=True)
class EncryptionStatus:
    """The page.

    ``nexus_scope`` is the scope this nexus uses, ``key_scope`` that of the parameters in force.
    ``key_instance_counter`` moves when parameters are set. ``volume_contains_encrypted`` (VCELB)
    holds only where the algorithm has ``vcelb``. ``free_sdk``: supplemental keys it still takes.
    """

    nexus_scope: Scope | int
    key_scope: Scope | int
    encryption_mode: EncryptionMode | int
    decryption_mode: DecryptionMode | int
    algorithm_index: int
    key_instance_counter: int
    controlled_by: ControlledBy | int
    volume_contains_encrypted: bool
    ceems: ModeCheck
    raw_read_disabled: bool
    kad_format: KadFormat | int
    free_sdk: int
    kads: tuple[Kad, ...] = ()
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> EncryptionStatus:
        """Read the page.

        :raises ParseError: if it is another page, or shorter than 24 bytes.
        """
        page, problems = open_page(data, PageIn.STATUS, LEAST_BYTES)
        kads, damage = parse_kads(page[LEAST_BYTES:])
        return cls(
            nexus_scope=member(Scope, bits(page[4], 7, 5)),
            key_scope=member(Scope, bits(page[4], 2, 0)),
            encryption_mode=member(EncryptionMode, page[5]),
            decryption_mode=member(DecryptionMode, page[6]),
            algorithm_index=page[7],
            key_instance_counter=int.from_bytes(page[8:12]),
            controlled_by=member(ControlledBy, bits(page[12], 6, 4)),
            volume_contains_encrypted=flag(page[12], 3),
            ceems=ModeCheck(bits(page[12], 2, 1)),
            raw_read_disabled=flag(page[12], 0),
            kad_format=member(KadFormat, page[13]),
            free_sdk=int.from_bytes(page[14:16]),
            kads=kads,
            problems=problems + damage,
        )

    @property
    def is_clear(self) -> bool:
        """Whether neither encryption nor decryption is on: no key is in force."""
        return self.encryption_mode == 0 and self.decryption_mode == 0

    def kad(self, kind: KadType) -> bytes | None:
        """Return the KAD of type ``kind`` that was sent with the key; None if there is none."""
        return find_kad(self.kads, kind)
