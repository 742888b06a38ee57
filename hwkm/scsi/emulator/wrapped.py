"""Key format 02h: a key wrapped to the drive's own RSA-2048 key (SSC-5, section 8.5.3.2.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.hashes import SHA256

from hwkm.scsi.emulator.identity import designator
from hwkm.scsi.emulator.profiles import KEY_BYTES
from hwkm.scsi.emulator.refusal import Reason, Refusal, invalid_list
from hwkm.scsi.emulator.security_in import RSA_2048_BYTES, wrapping_key

if TYPE_CHECKING:
    from hwkm.scsi.emulator.device import Device

RSA_2048 = 0x0000
"""PARAMETER SET."""

DEVICE_SERVER, WRAPPED_LENGTH = 0x00, 0x04
"""Types of the descriptors in the label that must be there."""

HEAD_BYTES = 4


def unwrap(device: Device, data: bytes, offset: int) -> bytes:
    """Return the 32 key bytes wrapped in ``data``, which begins at ``offset`` of the page.

    :raises Refusal: 5/26/00 for a wrong structure, a foreign label or an unknown parameter set;
        5/74/0C if the key does not open.
    """
    if len(data) < HEAD_BYTES or int.from_bytes(data[:2]) != RSA_2048:
        raise invalid_list(offset)
    label, at = _field(data, 2, offset)
    _check_label(device, label, offset + HEAD_BYTES)
    wrapped, end = _field(data, at, offset)
    _signature, end = _field(data, end, offset)
    if len(wrapped) != RSA_2048_BYTES:
        raise invalid_list(offset + at)
    if end != len(data):
        raise invalid_list(offset + end)
    return _opened(device, wrapped, label)


def _opened(device: Device, wrapped: bytes, label: bytes) -> bytes:
    padding = OAEP(MGF1(SHA256()), SHA256(), label)
    try:
        key = wrapping_key(device).decrypt(wrapped, padding)
    except ValueError:
        raise Refusal(Reason.CANT_DECRYPT_LIST) from None
    if len(key) != KEY_BYTES:
        raise Refusal(Reason.CANT_DECRYPT_LIST)
    return key


def _field(data: bytes, at: int, offset: int) -> tuple[bytes, int]:
    """Return a field that has its length in front, and where the next one begins."""
    end = at + 2 + int.from_bytes(data[at : at + 2])
    if at + 2 > len(data) or end > len(data):
        raise invalid_list(offset + at)
    return data[at + 2 : end], end


def _check_label(device: Device, label: bytes, offset: int) -> None:
    wanted = {DEVICE_SERVER: designator(device), WRAPPED_LENGTH: RSA_2048_BYTES.to_bytes(2)}
    at = 0
    while at < len(label):
        value, end = _field(label, at + 2, offset)
        if wanted.pop(label[at], value) != value:
            raise invalid_list(offset + at)
        at = end
    if wanted:
        raise invalid_list(offset)
