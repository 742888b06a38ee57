"""SECURITY PROTOCOL OUT: a host sets data encryption parameters (SSC-5, sections 4.2.22, 8.5.3)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hwkm.scsi.emulator.profiles import KEY_BYTES
from hwkm.scsi.emulator.refusal import Reason, Refusal, invalid_cdb
from hwkm.scsi.emulator.security_in import INC_512, TAPE_ENCRYPTION
from hwkm.scsi.emulator.set_encryption import PAGE_CODE, parse_request
from hwkm.scsi.emulator.state import (
    ALL_I_T_NEXUS,
    DISABLE,
    ENCRYPT,
    LOCAL,
    MIXED,
    PUBLIC,
    U_KAD,
    Nexus,
    Parameters,
)

if TYPE_CHECKING:
    from hwkm.scsi.emulator.device import Device
    from hwkm.scsi.emulator.set_encryption import Request

OTHER_HOST = "another-host"
OTHER_LABEL = b"another host"


def security_protocol_out(device: Device, cdb: bytes, data: bytes) -> bytes:
    """Take the page that a host sends; a refused one changes nothing.

    :raises Refusal: if something about it is wrong.
    """
    if not device.profile.encrypts:
        raise Refusal(Reason.UNKNOWN_COMMAND)
    _check_cdb(cdb)
    device.nexus.uses_encryption = True
    length = int.from_bytes(cdb[6:10])
    if not length:
        return b""  # no page at all is no error (SPC-5, section 6.41)
    if device.externally_managed:
        raise Refusal(Reason.CONFIGURATION_PREVENTED)
    request = parse_request(device, data[:length])
    _apply(device, request)
    _lie(device, request)
    return b""


def _check_cdb(cdb: bytes) -> None:
    if cdb[1] != TAPE_ENCRYPTION:
        raise invalid_cdb(1)
    if int.from_bytes(cdb[2:4]) != PAGE_CODE:
        raise invalid_cdb(2)
    if cdb[4] & INC_512:
        raise invalid_cdb(4, 7)


def _apply(device: Device, request: Request) -> None:
    nexus, counter = device.nexus, device.next_counter()
    nexus.scope = request.scope
    nexus.local = None
    if request.scope == LOCAL:
        nexus.local = _parameters(device, request, counter)
    elif request.scope == ALL_I_T_NEXUS:
        _share(device, _parameters(device, request, counter))
    nexus.locked_at = device.parameters.counter if request.lock else None


def _share(device: Device, parameters: Parameters) -> None:
    """Let parameters be in force for all nexuses that have none of their own."""
    device.state.shared = parameters
    device.announce_change(ALL_I_T_NEXUS)
    for _, nexus in device.others():
        if nexus.scope == ALL_I_T_NEXUS:
            nexus.scope = PUBLIC


def _parameters(device: Device, request: Request, counter: int) -> Parameters:
    return Parameters(
        scope=request.scope,
        encryption_mode=DISABLE if device.lies("mode-ignored") else request.encryption_mode,
        decryption_mode=request.decryption_mode,
        algorithm_index=request.algorithm_index,
        key=request.key,
        kads={} if device.lies("kad-dropped") else request.kads,
        kad_format=request.kad_format,
        ceem=request.ceem,
        raw_disabled=request.raw_disabled,
        ckod=request.ckod,
        ckorp=request.ckorp,
        ckorl=request.ckorl,
        owner=device.host,
        counter=counter,
    )


def _lie(device: Device, request: Request) -> None:
    """Do what the drive was told to do behind the host's back, after a key was set."""
    sets_a_key = request.scope != PUBLIC and bool(request.key)
    if sets_a_key and device.lies("other-host"):
        device.state.nexuses.setdefault(OTHER_HOST, Nexus())
        device.state.shared = Parameters(
            scope=ALL_I_T_NEXUS,
            encryption_mode=ENCRYPT,
            decryption_mode=MIXED,
            algorithm_index=request.algorithm_index,
            key=os.urandom(KEY_BYTES),
            kads={U_KAD: OTHER_LABEL},
            owner=OTHER_HOST,
            counter=device.next_counter(),
        )
    if sets_a_key and device.lies("no-medium"):
        device.state.gone = True
