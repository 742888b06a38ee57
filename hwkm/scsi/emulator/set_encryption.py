"""The page Set Data Encryption as the drive sees it: checked strictly, from its first byte on.

Every refusal points at the field it is about; a page that is refused changes nothing (SSC-5,
section 8.5.3.2; Oracle's and Quantum's manuals for what is refused).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hwkm.scsi.emulator.kads import check_kads
from hwkm.scsi.emulator.profiles import KEY_BYTES, PLAIN, WRAPPED
from hwkm.scsi.emulator.refusal import Reason, Refusal, invalid_list
from hwkm.scsi.emulator.state import (
    ALL_I_T_NEXUS,
    DECRYPT,
    DISABLE,
    ENCRYPT,
    EXTERNAL,
    KEY_FAIL_LIMIT,
    MIXED,
    PUBLIC,
    RAW,
)
from hwkm.scsi.emulator.wrapped import unwrap

if TYPE_CHECKING:
    from hwkm.scsi.emulator.device import Device
    from hwkm.scsi.emulator.profiles import Algorithm

PAGE_CODE = 0x0010
HEADER_BYTES = 20

SCOPE_BYTE, FLAGS, ENCRYPTION_MODE, DECRYPTION_MODE, ALGORITHM_INDEX = 4, 5, 6, 7, 8
KEY_FORMAT, KAD_FORMAT, RESERVED, KEY_LENGTH = 9, 10, 11, 18

LAST_KAD_FORMAT = 2
RDMC_RESERVED, RDMC_READABLE, RDMC_UNREADABLE = 1, 2, 3
RAW_NOT_ALLOWED = 1
NO_CONTROL_OF_RAW = frozenset({1, 6, 7})
"""RDMC_C of algorithms whose raw reads the host can't control."""
RAW_DISABLED_AT_FIRST = frozenset({4, 6})
EXTERNAL_ALLOWED = 2
"""EEMC_C."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a host asked for, after all checks."""

    scope: int
    lock: bool
    ceem: int = 0
    raw_disabled: bool = False
    ckod: bool = False
    ckorp: bool = False
    ckorl: bool = False
    encryption_mode: int = DISABLE
    decryption_mode: int = DISABLE
    algorithm_index: int = 0
    kad_format: int = 0
    key: bytes = field(default=b"", repr=False)
    kads: dict[int, bytes] = field(default_factory=dict)


def parse_request(device: Device, data: bytes) -> Request:
    """Return what the page asks for.

    :raises Refusal: with the first thing that is wrong with it.
    """
    _check_length(data)
    scope, lock = _scope(data)
    if scope == PUBLIC:
        return Request(scope, lock)  # only these two fields count
    ceem, rdmc = data[FLAGS] >> 6, data[FLAGS] >> 4 & 0b11
    _check_read_control(data, ceem, rdmc)
    _check_clearing(device, data[FLAGS])
    algorithm = _check_modes(device, data)
    _check_raw(data, rdmc, algorithm)
    _check_formats(device, data, algorithm)
    key, rest = _key(device, data)
    return Request(
        scope=scope,
        lock=lock,
        ceem=ceem,
        raw_disabled=_raw_disabled(data, rdmc, algorithm),
        ckod=bool(data[FLAGS] & 0x04),
        ckorp=bool(data[FLAGS] & 0x02),
        ckorl=bool(data[FLAGS] & 0x01),
        encryption_mode=data[ENCRYPTION_MODE],
        decryption_mode=data[DECRYPTION_MODE],
        algorithm_index=data[ALGORITHM_INDEX],
        kad_format=data[KAD_FORMAT],
        key=key,
        kads=check_kads(device.profile, algorithm, data, rest),
    )


def _check_length(data: bytes) -> None:
    if len(data) < HEADER_BYTES:
        raise Refusal(Reason.LIST_LENGTH)
    if int.from_bytes(data[:2]) != PAGE_CODE:
        raise invalid_list(0)
    if int.from_bytes(data[2:4]) != len(data) - 4:
        raise invalid_list(2)


def _scope(data: bytes) -> tuple[int, bool]:
    scope = data[SCOPE_BYTE] >> 5
    if scope > ALL_I_T_NEXUS:
        raise invalid_list(SCOPE_BYTE, 7)
    if data[SCOPE_BYTE] & 0x1E:
        raise invalid_list(SCOPE_BYTE, 4)
    return scope, bool(data[SCOPE_BYTE] & 0x01)


def _check_read_control(data: bytes, ceem: int, rdmc: int) -> None:
    if ceem >= 2 and data[DECRYPTION_MODE] == DISABLE:
        raise invalid_list(FLAGS, 7)
    if rdmc == RDMC_RESERVED:
        raise invalid_list(FLAGS, 5)
    if data[FLAGS] & 0x08:  # SDK: none of these drives has room for a second key
        raise invalid_list(FLAGS, 3)


def _check_clearing(device: Device, flags: int) -> None:
    """Check that what a key shall be cleared by can happen: CKOD, CKORP and CKORL."""
    state = device.state
    holds = state.reservation != "" and state.holder == device.host
    if flags & 0x04 and (device.cartridge is None or device.profile.refuses_ckod):
        raise invalid_list(FLAGS, 2)
    if flags & 0x02 and not (holds and state.reservation == "persistent"):
        raise invalid_list(FLAGS, 1)
    if flags & 0x01 and not holds:
        raise invalid_list(FLAGS, 0)


def _check_modes(device: Device, data: bytes) -> Algorithm:
    encryption, decryption = data[ENCRYPTION_MODE], data[DECRYPTION_MODE]
    algorithm = device.algorithm(data[ALGORITHM_INDEX])
    external = algorithm is not None and algorithm.eemc_c == EXTERNAL_ALLOWED
    if encryption > ENCRYPT or (encryption == EXTERNAL and not external):
        raise invalid_list(ENCRYPTION_MODE)
    no_raw = algorithm is not None and algorithm.rdmc_c == RAW_NOT_ALLOWED
    if decryption > MIXED or (decryption == RAW and no_raw):
        raise invalid_list(DECRYPTION_MODE)
    on = encryption != DISABLE or decryption != DISABLE
    if algorithm is None or (on and device.cartridge is not None and not device.valid_for_volume):
        raise invalid_list(ALGORITHM_INDEX)
    return algorithm


def _check_raw(data: bytes, rdmc: int, algorithm: Algorithm) -> None:
    encrypting = data[ENCRYPTION_MODE] == ENCRYPT
    if encrypting and rdmc >= RDMC_READABLE and algorithm.rdmc_c in NO_CONTROL_OF_RAW:
        raise invalid_list(FLAGS, 5)


def _raw_disabled(data: bytes, rdmc: int, algorithm: Algorithm) -> bool:
    if data[ENCRYPTION_MODE] == DISABLE:
        return False
    return rdmc == RDMC_UNREADABLE or (rdmc == 0 and algorithm.rdmc_c in RAW_DISABLED_AT_FIRST)


def _check_formats(device: Device, data: bytes, algorithm: Algorithm) -> None:
    if data[KEY_FORMAT] not in device.profile.key_formats:
        raise invalid_list(KEY_FORMAT)
    if data[KAD_FORMAT] > (LAST_KAD_FORMAT if algorithm.kadf_c else 0):
        raise invalid_list(KAD_FORMAT)
    for at in range(RESERVED, KEY_LENGTH):
        if data[at]:
            raise invalid_list(at)


def _key(device: Device, data: bytes) -> tuple[bytes, int]:
    """Return the key, and where the KADs begin."""
    length = int.from_bytes(data[KEY_LENGTH:HEADER_BYTES])
    end = HEADER_BYTES + length
    needed = data[ENCRYPTION_MODE] == ENCRYPT or data[DECRYPTION_MODE] in (DECRYPT, MIXED)
    wrong = data[KEY_FORMAT] == PLAIN and length not in (0, KEY_BYTES)
    if end > len(data) or wrong or (needed and not length):
        raise invalid_list(KEY_LENGTH)
    if needed and device.state.wrong_keys >= KEY_FAIL_LIMIT:
        raise Refusal(Reason.KEY_FAIL_LIMIT)
    key = data[HEADER_BYTES:end]
    if key and data[KEY_FORMAT] == WRAPPED:
        key = unwrap(device, key, HEADER_BYTES)
    return (key if needed else b""), end
