"""SECURITY PROTOCOL IN: the pages of tape data encryption (SSC-5, section 8.5.2)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_der_private_key

from hwkm.scsi.emulator.blocks import metadata, opens
from hwkm.scsi.emulator.refusal import Reason, Refusal, invalid_cdb
from hwkm.scsi.emulator.state import A_KAD, M_KAD, NONCE, RAW, U_KAD
from hwkm.scsi.emulator.tape import EXTERNAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwkm.scsi.emulator.device import Device
    from hwkm.scsi.emulator.tape import MediumObject

INFORMATION, TAPE_ENCRYPTION = 0x00, 0x20
"""SECURITY PROTOCOL."""

RSA_2048_BYTES = 256
RANDOM_BYTES = 32
INC_512 = 0x80

NOT_COVERED, NOT_TRIED, AUTHENTICATED = 1, 2, 3
"""AUTHENTICATED in what the drive gives out; of the KADs the tag covers the A-KAD only."""

CANNOT_TELL_NOW, NOT_A_BLOCK, CLEAR_BLOCK, UNKNOWN, READABLE, UNREADABLE = 1, 2, 3, 4, 5, 6
"""ENCRYPTION STATUS of the next block."""

LIE_BYTES_TOO_MANY = 12


def security_protocol_in(device: Device, cdb: bytes) -> bytes:
    """Return the page that the CDB asks for, cut to the allocation length.

    :raises Refusal: if there is none.
    """
    if not device.profile.encrypts:
        raise Refusal(Reason.UNKNOWN_COMMAND)
    if cdb[4] & INC_512:
        raise invalid_cdb(4, 7)
    protocol, number = cdb[1], int.from_bytes(cdb[2:4])
    if protocol == TAPE_ENCRYPTION:
        device.nexus.uses_encryption = True
    make = _maker(device, protocol, number)
    return make(device)[: int.from_bytes(cdb[6:10])]


def _maker(device: Device, protocol: int, number: int) -> Callable[[Device], bytes]:
    makers = {INFORMATION: _INFORMATION_PAGES, TAPE_ENCRYPTION: _ENCRYPTION_PAGES}.get(protocol)
    if makers is None:
        raise invalid_cdb(1)
    offered = protocol == INFORMATION or number in device.profile.pages
    if number not in makers or not offered:
        raise invalid_cdb(2)
    return makers[number]


def _protocols(_device: Device) -> bytes:
    return bytes(6) + (2).to_bytes(2) + bytes((INFORMATION, TAPE_ENCRYPTION))


def _no_certificate(_device: Device) -> bytes:
    return bytes(4)


def _page(number: int, body: bytes) -> bytes:
    return number.to_bytes(2) + len(body).to_bytes(2) + body


def _in_support(device: Device) -> bytes:
    return _page(0x0000, b"".join(number.to_bytes(2) for number in device.profile.pages))


def _out_support(_device: Device) -> bytes:
    return _page(0x0001, bytes((0x00, 0x10)))


def _capabilities(device: Device) -> bytes:
    profile = device.profile
    if profile.late_capabilities:
        device.mounted()
    prevented = 0b10 if device.state.managed else profile.cfg_p
    body = bytes((profile.extdecc << 2 | prevented,)) + bytes(15)
    mounted = device.valid_for_volume
    writable = device.takes_writes
    body += b"".join(one.pack(mounted=mounted, writable=writable) for one in device.algorithms)
    if device.lies("library-managed"):
        device.state.managed = True  # from the next command on
    return _page(0x0010, body)


def _key_formats(device: Device) -> bytes:
    return _page(0x0011, bytes(device.profile.key_formats))


def _management(_device: Device) -> bytes:
    return _page(0x0012, bytes((0x01, 0x07, 0x00, 0x07)) + bytes(8))


def _status(device: Device) -> bytes:
    now, cartridge = device.parameters, device.cartridge
    on = now.encryption_mode or now.decryption_mode
    head = bytes((device.nexus.scope << 5 | now.scope, now.encryption_mode, now.decryption_mode))
    index = bytes((now.algorithm_index if on else 0,)) + now.counter.to_bytes(4)
    control = 3 if device.state.managed else device.profile.control
    encrypted = cartridge is not None and device.tape.first_encrypted(cartridge.barcode) is not None
    known = any(one.vcelb_c for one in device.algorithms)
    flags = control << 4 | (encrypted and known) << 3 | now.ceem << 1 | now.raw_disabled
    tail = bytes((flags, now.kad_format)) + bytes(10)
    page = _page(0x0020, head + index + tail + _parameter_kads(now.kads))
    if device.lies("page-length"):
        length = int.from_bytes(page[2:4]) + LIE_BYTES_TOO_MANY
        page = page[:2] + length.to_bytes(2) + page[4:]
    return page


def _parameter_kads(kads: dict[int, bytes]) -> bytes:
    return b"".join(
        _kad(kind, NOT_TRIED if kind == A_KAD else NOT_COVERED, kads[kind])
        for kind in sorted(kads)
        if kind != NONCE
    )


def _next_block(device: Device) -> bytes:
    cartridge = device.mounted()
    one = device.next_object()
    if one is None and not device.tape.end(cartridge.barcode) and device.profile.blank_is_an_error:
        raise Refusal(Reason.NO_END_OF_DATA)
    head = device.state.position.to_bytes(8)
    status = _block_status(device, one)
    if one is None or status not in (UNKNOWN, READABLE, UNREADABLE):
        return _page(0x0021, head + bytes((status, 0, 0, 0)))
    index = next((a.index for a in device.algorithms if a.code == one.algorithm), 0)
    flags = (one.encryption == EXTERNAL) << 1 | one.raw_disabled
    body = bytes((status, index, flags, one.kad_format)) + _block_kads(device, one, status)
    return _page(0x0021, head + body)


def _block_status(device: Device, one: MediumObject | None) -> int:
    if one is None:
        return CANNOT_TELL_NOW
    if not one.is_block:
        return NOT_A_BLOCK
    if not one.is_encrypted:
        return CLEAR_BLOCK
    if one.algorithm not in {algorithm.code for algorithm in device.algorithms}:
        return UNKNOWN
    return READABLE if opens(device, one) else UNREADABLE


def _block_kads(device: Device, one: MediumObject, status: int) -> bytes:
    kads = b""
    if one.u_kad is not None:
        kads += _kad(U_KAD, NOT_COVERED, one.u_kad)
    if one.a_kad is not None:
        tried = AUTHENTICATED if status == READABLE else NOT_TRIED
        kads += _kad(A_KAD, tried, one.a_kad)
    if device.parameters.decryption_mode == RAW:
        kads += _kad(M_KAD, NOT_COVERED, metadata(one))
    return kads


def _kad(kind: int, authenticated: int, value: bytes) -> bytes:
    return bytes((kind, authenticated)) + len(value).to_bytes(2) + value


def _random(_device: Device) -> bytes:
    return _page(0x0030, os.urandom(RANDOM_BYTES))


def _wrapping_key(device: Device) -> bytes:
    numbers = wrapping_key(device).public_key().public_numbers()
    key = numbers.n.to_bytes(RSA_2048_BYTES) + numbers.e.to_bytes(RSA_2048_BYTES)
    return _page(0x0031, bytes(8) + len(key).to_bytes(2) + key)


def wrapping_key(device: Device) -> RSAPrivateKey:
    """Return the drive's own RSA key, to which hosts wrap theirs."""
    key = load_der_private_key(device.state.wrapping_key, None)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError("the drive's wrapping key is no RSA key")
    return key


PageMaker: TypeAlias = "Callable[[Device], bytes]"

_INFORMATION_PAGES: dict[int, PageMaker] = {
    0x0000: _protocols,
    0x0001: _no_certificate,
}
_ENCRYPTION_PAGES: dict[int, PageMaker] = {
    0x0000: _in_support,
    0x0001: _out_support,
    0x0010: _capabilities,
    0x0011: _key_formats,
    0x0012: _management,
    0x0020: _status,
    0x0021: _next_block,
    0x0030: _random,
    0x0031: _wrapping_key,
}
