"""How the drive encrypts a block, and gives one out again (SSC-5, section 4.2.22)."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM

from hwkm.scsi.emulator.profiles import AES_256_GCM, M_KAD_BYTES
from hwkm.scsi.emulator.refusal import Reason, Refusal
from hwkm.scsi.emulator.state import (
    A_KAD,
    DECRYPT,
    DISABLE,
    ENCRYPT,
    EXTERNAL,
    KEY_FAIL_LIMIT,
    M_KAD,
    RAW,
    U_KAD,
)
from hwkm.scsi.emulator.tape import CLEAR, ENCRYPTED, MediumObject
from hwkm.scsi.emulator.tape import EXTERNAL as WRITTEN_EXTERNALLY

if TYPE_CHECKING:
    from hwkm.scsi.emulator.device import Device
    from hwkm.scsi.emulator.state import Parameters

NONCE_BYTES = 12
CHECK_BYTES = 8

_CHECK_EXTERNAL, _CHECK_ENCRYPTED = 2, 3
"""CEEM: which blocks may not be read."""


def encryption_mode(parameters: Parameters) -> int:
    """Return how a block that is written now is marked."""
    return {DISABLE: CLEAR, EXTERNAL: WRITTEN_EXTERNALLY, ENCRYPT: ENCRYPTED}[
        parameters.encryption_mode
    ]


def record(device: Device, data: bytes) -> MediumObject:
    """Return the object that is put on tape for a block of the host's."""
    parameters = device.parameters
    mode = encryption_mode(parameters)
    algorithm = device.algorithm(parameters.algorithm_index)
    if mode == CLEAR or algorithm is None:
        return MediumObject(data=data)
    if mode == WRITTEN_EXTERNALLY:
        nonce, check = _split_metadata(parameters.kads[M_KAD])
    else:
        nonce, check = os.urandom(NONCE_BYTES), key_check(parameters.key)
        associated = parameters.kads.get(A_KAD)
        data = _cipher(algorithm.code, parameters.key).encrypt(nonce, data, associated)
    return MediumObject(
        data=data,
        encryption=mode,
        algorithm=algorithm.code,
        nonce=nonce,
        key_check=check,
        u_kad=parameters.kads.get(U_KAD),
        a_kad=parameters.kads.get(A_KAD),
        kad_format=parameters.kad_format,
        raw_disabled=parameters.raw_disabled,
    )


def give_out(device: Device, one: MediumObject) -> bytes:
    """Return a block as the host gets it.

    :raises Refusal: if the parameters in force don't allow that.
    """
    parameters = device.parameters
    if not one.is_encrypted:
        if parameters.decryption_mode in (RAW, DECRYPT):
            raise Refusal(Reason.UNENCRYPTED_DATA)
        return one.data
    forbidden = {WRITTEN_EXTERNALLY: _CHECK_EXTERNAL, ENCRYPTED: _CHECK_ENCRYPTED}
    if parameters.ceem == forbidden[one.encryption]:
        raise Refusal(Reason.MODE_MISMATCH)
    if parameters.decryption_mode == DISABLE:
        raise Refusal(Reason.CANT_DECRYPT)
    if parameters.decryption_mode == RAW:
        if one.raw_disabled:
            raise Refusal(Reason.NOT_RAW_READABLE)
        return one.data
    return _decrypt(device, one)


def opens(device: Device, one: MediumObject) -> bool:
    """Return whether the key in force is the one of this block."""
    parameters = device.parameters
    return parameters.decryption_mode not in (DISABLE, RAW) and _fits(device, parameters, one)


def metadata(one: MediumObject) -> bytes:
    """Return the M-KAD of a block, with which a copy of it can be written in EXTERNAL mode."""
    return (one.nonce + one.key_check).ljust(M_KAD_BYTES, b"\0")


def key_check(key: bytes) -> bytes:
    """Return eight bytes that tell keys apart and tell nothing about them."""
    return hmac.digest(key, b"key check", hashlib.sha256)[:CHECK_BYTES]


def _decrypt(device: Device, one: MediumObject) -> bytes:
    state, parameters = device.state, device.parameters
    if state.wrong_keys >= KEY_FAIL_LIMIT:
        raise Refusal(Reason.KEY_FAIL_LIMIT)
    if not _fits(device, parameters, one):
        state.wrong_keys += 1
        raise Refusal(Reason.INCORRECT_KEY)
    try:
        data = _cipher(one.algorithm, parameters.key).decrypt(one.nonce, one.data, one.a_kad)
    except InvalidTag:
        raise Refusal(Reason.INTEGRITY) from None
    state.wrong_keys = 0
    return data


def _fits(device: Device, parameters: Parameters, one: MediumObject) -> bool:
    if device.profile.kad_must_match and parameters.kads.get(U_KAD) != one.u_kad:
        return False
    algorithm = device.algorithm(parameters.algorithm_index)
    same = algorithm is not None and algorithm.code == one.algorithm
    return same and key_check(parameters.key) == one.key_check


def _cipher(code: int, key: bytes) -> AESGCM | AESCCM:
    return AESGCM(key) if code == AES_256_GCM else AESCCM(key)


def _split_metadata(data: bytes) -> tuple[bytes, bytes]:
    return data[:NONCE_BYTES], data[NONCE_BYTES : NONCE_BYTES + CHECK_BYTES]
