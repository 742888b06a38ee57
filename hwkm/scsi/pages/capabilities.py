"""Page 0010h, Data Encryption Capabilities: the drive's algorithms (SSC-5).

They depend on the medium: to be read again after each load.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique

from hwkm.scsi.pages.base import PageIn, bits, flag, member, open_page

LEAST_BYTES = 20
"""Length of the head of the page, up to the first descriptor."""

DESCRIPTOR_BYTES = 24
DESCRIPTOR_HEAD_BYTES = 4
"""What DESCRIPTOR LENGTH does not count."""

AES_256_GCM = 0x0001_0014
AES_256_GCM_KEY_BYTES = 32

ALGORITHM_NAMES = {
    0x0001_000C: "AES-256-CBC with HMAC-SHA-1",
    0x0001_0010: "AES-256-CCM",
    AES_256_GCM: "AES-256-GCM",
    0x0001_0016: "AES-256-XTS with HMAC-SHA-512",
    0x8001_0010: "AES-256-CCM (Oracle)",
}
"""SECURITY ALGORITHM CODEs (SPC-5); those from 80000000h on are the vendors'."""


@unique
class Ability(IntEnum):
    """DECRYPT_C and ENCRYPT_C: who does it. EXTERNAL: only under control from outside."""

    NONE = 0
    SOFTWARE = 1
    HARDWARE = 2
    EXTERNAL = 3


@unique
class ConfigurationPrevented(IntEnum):
    """CFG_P: whether this host is kept from setting a key."""

    NOT_REPORTED = 0
    ALLOWED = 1
    PREVENTED = 2


@unique
class ExternalControl(IntEnum):
    """EXTDECC: whether something else than a host, like a library, can set the key."""

    NOT_REPORTED = 0
    NOT_CAPABLE = 1
    CAPABLE = 2


@unique
class PositionValidity(IntEnum):
    """AVFCLP: whether encrypted blocks can be written at the current position."""

    NOT_APPLICABLE = 0
    NOT_VALID = 1
    VALID = 2


@unique
class Nonce(IntEnum):
    """NONCE_C: who makes the nonces."""

    NONE = 0
    DEVICE = 1
    HOST = 2
    EITHER = 3


@unique
class DecryptionKad(IntEnum):
    """DKAD_C: whether KADs go with a key that only decrypts."""

    UNSPECIFIED = 0
    REQUIRED = 1
    NOT_ALLOWED = 2
    ALLOWED = 3


@unique
class ExternalMode(IntEnum):
    """EEMC_C: whether blocks that the host has encrypted may be written."""

    UNSPECIFIED = 0
    NOT_ALLOWED = 1
    ALLOWED = 2


@unique
class RawRead(IntEnum):
    """RDMC_C: whether ciphertext can be read, and whether RDMC may change that."""

    UNSPECIFIED = 0
    IMPOSSIBLE = 1
    OFF_CHANGEABLE = 4
    ON_CHANGEABLE = 5
    OFF_FIXED = 6
    ON_FIXED = 7


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One algorithm descriptor; lengths are in bytes.

    ``index`` is what the drive calls it: never to be assumed. ``valid_for_volume`` (AVFMV) is
    false too if nothing is loaded. With ``fixed_ukad`` or ``fixed_akad``, that KAD must be exactly
    ``max_ukad`` or ``max_akad`` bytes long. ``distinguishes`` (DED_C): tells encrypted blocks from
    others. ``sdk``: takes supplemental keys, ``msdk_count`` of them.
    """

    index: int
    code: int
    valid_for_volume: bool
    sdk: bool
    mac: bool
    distinguishes: bool
    decrypt: Ability
    encrypt: Ability
    position: PositionValidity | int
    nonce: Nonce
    kad_format: bool
    vcelb: bool
    fixed_ukad: bool
    fixed_akad: bool
    max_ukad: int
    max_akad: int
    key_bytes: int
    dkad: DecryptionKad
    eemc: ExternalMode | int
    rdmc: RawRead | int
    earem: bool
    max_eedk_count: int
    msdk_count: int
    max_eedk_size: int

    @property
    def name(self) -> str:
        """What people call it; the code if it is not known."""
        return ALGORITHM_NAMES.get(self.code, f"algorithm {self.code:08X}h")

    @property
    def is_aes_256_gcm(self) -> bool:
        """Whether it is AES-256-GCM with a tag of 128 bits, and takes keys of 32 bytes."""
        return self.code == AES_256_GCM and self.key_bytes == AES_256_GCM_KEY_BYTES

    @property
    def in_hardware(self) -> bool:
        """Whether the drive itself encrypts and decrypts, at this host's bidding."""
        return self.encrypt == self.decrypt == Ability.HARDWARE


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The page: the algorithms in the drive's order, and who may set a key."""

    algorithms: tuple[Algorithm, ...]
    external_control: ExternalControl | int
    configuration_prevented: ConfigurationPrevented | int
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Capabilities:
        """Read the page; a descriptor without all its fields, and what follows it, is left out.

        :raises ParseError: if it is another page, or shorter than 20 bytes.
        """
        page, problems = open_page(data, PageIn.CAPABILITIES, LEAST_BYTES)
        algorithms, damage = _parse_algorithms(page[LEAST_BYTES:])
        return cls(
            algorithms=algorithms,
            external_control=member(ExternalControl, bits(page[4], 3, 2)),
            configuration_prevented=member(ConfigurationPrevented, bits(page[4], 1, 0)),
            problems=problems + damage,
        )

    def gcm(self) -> Algorithm | None:
        """Return AES-256-GCM; of several, one in hardware and valid for the medium goes first."""
        found = [one for one in self.algorithms if one.is_aes_256_gcm]
        return max(found, key=lambda one: (one.in_hardware, one.valid_for_volume), default=None)


def _parse_algorithms(data: bytes) -> tuple[tuple[Algorithm, ...], tuple[str, ...]]:
    found = []
    while len(data) >= DESCRIPTOR_BYTES:
        end = DESCRIPTOR_HEAD_BYTES + int.from_bytes(data[2:4])
        if not DESCRIPTOR_BYTES <= end <= len(data):
            break
        found.append(_parse_algorithm(data))
        data = data[end:]
    return tuple(found), ("an algorithm descriptor is cut off or too short",) if data else ()


def _parse_algorithm(data: bytes) -> Algorithm:
    return Algorithm(
        index=data[0],
        code=int.from_bytes(data[20:24]),
        valid_for_volume=flag(data[4], 7),
        sdk=flag(data[4], 6),
        mac=flag(data[4], 5),
        distinguishes=flag(data[4], 4),
        decrypt=Ability(bits(data[4], 3, 2)),
        encrypt=Ability(bits(data[4], 1, 0)),
        position=member(PositionValidity, bits(data[5], 7, 6)),
        nonce=Nonce(bits(data[5], 5, 4)),
        kad_format=flag(data[5], 3),
        vcelb=flag(data[5], 2),
        fixed_ukad=flag(data[5], 1),
        fixed_akad=flag(data[5], 0),
        max_ukad=int.from_bytes(data[6:8]),
        max_akad=int.from_bytes(data[8:10]),
        key_bytes=int.from_bytes(data[10:12]),
        dkad=DecryptionKad(bits(data[12], 7, 6)),
        eemc=member(ExternalMode, bits(data[12], 5, 4)),
        rdmc=member(RawRead, bits(data[12], 3, 1)),
        earem=flag(data[12], 0),
        max_eedk_count=bits(data[13], 3, 0),
        msdk_count=int.from_bytes(data[14:16]),
        max_eedk_size=int.from_bytes(data[16:18]),
    )
