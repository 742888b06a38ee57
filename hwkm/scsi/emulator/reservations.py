"""RESERVE, RELEASE and PERSISTENT RESERVE, and what their loss does to keys (SPC-5, SSC-5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwkm.scsi.emulator.refusal import Reason, Refusal, invalid_cdb

if TYPE_CHECKING:
    from hwkm.scsi.emulator.device import Device
    from hwkm.scsi.emulator.refusal import Code

LEGACY, PERSISTENT = "legacy", "persistent"
WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS = 1, 3
TYPES = frozenset({WRITE_EXCLUSIVE, EXCLUSIVE_ACCESS})
LIST_BYTES = 24

READ_KEYS, READ_RESERVATION = 0, 1
"""SERVICE ACTION of PERSISTENT RESERVE IN."""

REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, REGISTER_AND_IGNORE = 0, 1, 2, 3, 4, 6
"""SERVICE ACTION of PERSISTENT RESERVE OUT."""


class Conflict(Exception):  # noqa: N818  # a status of the command, as Refusal is
    """The command ends with RESERVATION CONFLICT."""


def check(device: Device) -> None:
    """Check that no other nexus holds a reservation.

    :raises Conflict: if one does.
    """
    if device.state.reservation and device.state.holder != device.host:
        raise Conflict


def reserve(device: Device, _cdb: bytes) -> bytes:
    """Reserve the drive for this nexus until it is released, or the drive is reset.

    :raises Conflict: if there is a persistent reservation, or another's.
    """
    if device.state.reservation == PERSISTENT:
        raise Conflict
    device.state.reservation, device.state.holder = LEGACY, device.host
    return b""


def release(device: Device, _cdb: bytes) -> bytes:
    """Release this nexus's reservation; anyone else's stays."""
    if device.state.reservation == LEGACY and device.state.holder == device.host:
        lose(device)
    return b""


def lose(device: Device, *, preempted: bool = False) -> None:
    """End the reservation, and forget the keys that were to go with it."""
    state, holder = device.state, device.state.holder
    if not state.reservation:
        return
    for parameters in list(device.sets()):
        if parameters.owner == holder and (parameters.ckorl or (parameters.ckorp and preempted)):
            device.drop(parameters)
    state.reservation, state.holder, state.reservation_type = "", "", 0


def persistent_reserve_in(device: Device, cdb: bytes) -> bytes:
    """Return the registered keys, or the reservation.

    :raises Refusal: for another service action.
    """
    state = device.state
    keys = [one.registration for one in state.nexuses.values() if one.registration]
    action = cdb[1] & 0x1F
    if action == READ_KEYS:
        body = b"".join(key.to_bytes(8) for key in keys)
    elif action == READ_RESERVATION:
        body = _reservation(device) if state.reservation == PERSISTENT else b""
    else:
        raise invalid_cdb(1, 4)
    head = state.generation.to_bytes(4) + len(body).to_bytes(4)
    return (head + body)[: int.from_bytes(cdb[7:9])]


def persistent_reserve_out(device: Device, cdb: bytes, data: bytes) -> bytes:
    """Register, reserve, release, clear or preempt.

    :raises Refusal: for what the CDB or the list must not hold.
    :raises Conflict: if the reservation key is not this nexus's, or the drive is another's.
    """
    if len(data) != LIST_BYTES:
        raise Refusal(Reason.LIST_LENGTH)
    action, kind = cdb[1] & 0x1F, cdb[2] & 0x0F
    own, given = int.from_bytes(data[:8]), int.from_bytes(data[8:16])
    if action not in (REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, REGISTER_AND_IGNORE):
        raise invalid_cdb(1, 4)
    if action != REGISTER_AND_IGNORE and own != device.nexus.registration:
        raise Conflict
    if action in (REGISTER, REGISTER_AND_IGNORE):
        _register(device, given)
        return b""
    if not device.nexus.registration or device.state.reservation == LEGACY:
        raise Conflict
    if action in (RESERVE, RELEASE, PREEMPT) and kind not in TYPES:
        raise invalid_cdb(2, 3)
    if action == RESERVE:
        _reserve(device, kind)
    elif action == RELEASE:
        _release(device, kind)
    elif action == CLEAR:
        _clear(device)
    else:
        preempt(device, given, kind)
    return b""


def preempt(device: Device, key: int, kind: int = EXCLUSIVE_ACCESS) -> None:
    """Take reservation and registrations away from whoever registered ``key``."""
    state = device.state
    victims = {name: one for name, one in device.others() if one.registration == key}
    if state.holder in victims:
        lose(device, preempted=True)
        _reserve(device, kind)
    for nexus in victims.values():
        nexus.registration = 0
        nexus.attend(Reason.REGISTRATIONS_PREEMPTED)
    state.generation += 1


def _register(device: Device, key: int) -> None:
    device.nexus.registration = key
    device.state.generation += 1
    if not key and device.state.reservation == PERSISTENT and device.state.holder == device.host:
        lose(device)
        _tell_registered(device, Reason.RESERVATIONS_RELEASED)


def _reserve(device: Device, kind: int) -> None:
    state = device.state
    check(device)
    if state.reservation and state.reservation_type != kind:
        raise Conflict
    state.reservation, state.holder, state.reservation_type = PERSISTENT, device.host, kind


def _release(device: Device, kind: int) -> None:
    state = device.state
    if state.reservation != PERSISTENT or state.holder != device.host:
        return  # not the holder's command: nothing is released, and that is no error
    if state.reservation_type != kind:
        raise Refusal(Reason.INVALID_RELEASE)
    lose(device)
    _tell_registered(device, Reason.RESERVATIONS_RELEASED)


def _clear(device: Device) -> None:
    lose(device, preempted=device.state.holder != device.host)
    _tell_registered(device, Reason.RESERVATIONS_PREEMPTED)
    for nexus in device.state.nexuses.values():
        nexus.registration = 0
    device.state.generation += 1


def _tell_registered(device: Device, code: Code) -> None:
    for _, nexus in device.others():
        if nexus.registration:
            nexus.attend(code)


def _reservation(device: Device) -> bytes:
    state = device.state
    key = state.nexuses[state.holder].registration
    return key.to_bytes(8) + bytes(5) + bytes((state.reservation_type, 0, 0))
