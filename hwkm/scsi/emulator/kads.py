"""The key-associated data that a host sends with a key, checked strictly (SSC-5, section 8.5.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.scsi.emulator.profiles import M_KAD_BYTES
from hwkm.scsi.emulator.refusal import Reason, Refusal, invalid_list
from hwkm.scsi.emulator.state import (
    A_KAD,
    DECRYPT,
    DISABLE,
    ENCRYPT,
    EXTERNAL,
    M_KAD,
    MIXED,
    NONCE,
    U_KAD,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.scsi.emulator.profiles import Algorithm, Profile

HEAD_BYTES = 4
ENCRYPTION_MODE, DECRYPTION_MODE = 6, 7
NONCE_FROM_HOST = frozenset({2, 3})
"""NONCE_C of algorithms that take a nonce from the host."""

KAD_UNSPECIFIED, KAD_REQUIRED, KAD_NOT_ALLOWED = 0, 1, 2
"""DKAD_C: KADs that come with a key for decryption only."""


def check_kads(profile: Profile, algorithm: Algorithm, data: bytes, start: int) -> dict[int, bytes]:
    """Return the descriptors that follow the key in the page, by type.

    :raises Refusal: if one of them is wrong, or one is missing.
    """
    kads: dict[int, bytes] = {}
    encryption = data[ENCRYPTION_MODE]
    for at, kind, value in _descriptors(data, start):
        _check_one(profile, algorithm, data, at, kads)
        _check_size(algorithm, encryption, at, kind, value)
        kads[kind] = value
    _check_missing(algorithm, encryption, data[DECRYPTION_MODE], kads)
    if profile.fills_kads and encryption == ENCRYPT:
        kads = _filled(algorithm, kads)
    return {kind: value for kind, value in kads.items() if value}


def _descriptors(data: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    while at < len(data):
        if len(data) - at < HEAD_BYTES:
            raise invalid_list(at)
        end = at + HEAD_BYTES + int.from_bytes(data[at + 2 : at + 4])
        if end > len(data):
            raise invalid_list(at + 2)
        yield at, data[at], data[at + HEAD_BYTES : end]
        at = end


def _check_one(
    profile: Profile, algorithm: Algorithm, data: bytes, at: int, before: dict[int, bytes]
) -> None:
    kind, encryption = data[at], data[ENCRYPTION_MODE]
    usable = {U_KAD, A_KAD}
    if encryption == EXTERNAL:
        usable.add(M_KAD)
    if algorithm.nonce_c in NONCE_FROM_HOST:
        usable.add(NONCE)
    only_decrypts = encryption == DISABLE
    unwanted = only_decrypts and algorithm.dkad_c in (KAD_UNSPECIFIED, KAD_NOT_ALLOWED)
    ascending = not before or kind > max(before)
    if kind not in usable or unwanted or not ascending or (profile.one_kad and before):
        raise invalid_list(at)
    if data[at + 1]:
        raise invalid_list(at + 1)


def _check_size(algorithm: Algorithm, encryption: int, at: int, kind: int, value: bytes) -> None:
    most, fixed = {
        U_KAD: (algorithm.max_ukad, algorithm.ukadf),
        A_KAD: (algorithm.max_akad, algorithm.akadf),
        M_KAD: (M_KAD_BYTES, encryption == EXTERNAL),
        NONCE: (12, True),
    }[kind]
    if len(value) > most or (fixed and len(value) != most):
        raise invalid_list(at + 2)


def _check_missing(
    algorithm: Algorithm, encryption: int, decryption: int, kads: dict[int, bytes]
) -> None:
    only_decrypts = encryption == DISABLE and decryption in (DECRYPT, MIXED)
    missing = only_decrypts and algorithm.dkad_c == KAD_REQUIRED and not kads
    if missing or (encryption == EXTERNAL and M_KAD not in kads):
        raise Refusal(Reason.INCOMPLETE_KADS)


def _filled(algorithm: Algorithm, kads: dict[int, bytes]) -> dict[int, bytes]:
    """Return the KADs, zeros for those that are missing."""
    zeros = {U_KAD: bytes(algorithm.max_ukad), A_KAD: bytes(algorithm.max_akad)}
    return zeros | kads
