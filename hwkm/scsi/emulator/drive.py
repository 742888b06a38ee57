"""The hands of an operator, a library and the fates: what happens to a drive besides commands."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from hwkm.errors import ConfigError, DeviceError
from hwkm.scsi.emulator import reservations
from hwkm.scsi.emulator.cartridges import KINDS, can_read, own_kind
from hwkm.scsi.emulator.device import Device
from hwkm.scsi.emulator.lies import BUSY_TIMES, LIES
from hwkm.scsi.emulator.mam import BARCODE
from hwkm.scsi.emulator.port import DEFAULT_NEXUS
from hwkm.scsi.emulator.positioning import demount, mount
from hwkm.scsi.emulator.profiles import PROFILES, QUIRKS, WRAPPING_KEY
from hwkm.scsi.emulator.refusal import Code, Reason
from hwkm.scsi.emulator.state import LOCAL, PUBLIC, Attribute, Cartridge, Nexus, State, public
from hwkm.scsi.emulator.store import create_file, opened

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from hwkm.scsi.emulator.tape import MediumObject

DEFAULT_PROFILE = "ibm-lto-8"
RSA_BITS = 2048
MAX_BARCODE = 32


def create(
    path: str | os.PathLike[str],
    profile: str = DEFAULT_PROFILE,
    *,
    serial: str = "",
    cartridge: str | None = None,
    quirks: Iterable[str] = (),
) -> Drive:
    """Make a drive in a new file, and load a new cartridge with the barcode ``cartridge``.

    ``profile`` is one of ``PROFILES``, ``quirks`` are some of ``QUIRKS``; "" takes the profile's
    own serial number.

    :raises ConfigError: if there is no such profile or quirk.
    :raises DeviceAccessError: if the file can't be made.
    """
    unknown = set(quirks) - QUIRKS
    if profile not in PROFILES or unknown:
        raise ConfigError(
            f"there is no emulated drive {' '.join((profile, *sorted(unknown)))!r}",
            hint=f"Choose one of: {', '.join(PROFILES)}",
        )
    state = State(
        profile=profile,
        serial=serial or PROFILES[profile].serial,
        quirks=sorted(quirks),
        wrapping_key=_new_key() if WRAPPING_KEY in PROFILES[profile].pages else b"",
        nexuses={DEFAULT_NEXUS: Nexus()},
    )
    create_file(Path(path), state)
    drive = Drive(path)
    if cartridge:
        drive.insert(cartridge)
        drive.forget_attentions()  # it was there before anyone came
    return drive


@dataclass(frozen=True, slots=True)
class Loaded:
    """A cartridge that the drive knows of."""

    barcode: str
    kind: str
    serial: str
    worm: bool
    write_protected: bool
    inside: bool
    objects: int


class Drive:
    """What can be done to the drive in a file, by hand.

    :raises DeviceAccessError: every method does, if there is no emulated drive in that file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @property
    def name(self) -> str:
        """The device's name for hwkm's commands."""
        return f"emulator:{self.path}"

    def insert(
        self, barcode: str, *, kind: str = "", worm: bool = False, write_protected: bool = False
    ) -> None:
        """Load a cartridge: the one with this barcode, or a new one. Every host is told.

        ``kind`` is one of ``KINDS``, without it the drive's own generation; it and ``worm`` count
        for new cartridges only. A cartridge that was inside goes back to its slot.

        :raises DeviceError: if the drive does not take such a cartridge.
        """
        with self._device() as device:
            state = device.state
            known = state.cartridges.get(barcode) or _new(device, barcode, kind, worm)
            if not can_read(device.profile, known.kind):
                raise DeviceError(
                    f"{self.name} does not take a cartridge {known.kind.name}",
                    hint=f"It was made for {own_kind(device.profile).name}",
                )
            demount(device)
            known.write_protected = write_protected
            state.cartridges[barcode] = known
            state.inside, state.gone = barcode, False
            mount(device)
            _tell_all(state, Reason.MEDIUM_CHANGED)

    def eject(self) -> None:
        """Take the cartridge out, if there is one; keys that were set with CKOD go."""
        with self._device() as device:
            demount(device)
            device.state.inside, device.state.gone = "", False

    def give(self, barcode: str, other: Drive) -> None:
        """Take a cartridge out and carry it, with all that is on it, to another drive's slots.

        :raises DeviceError: if there is no such cartridge.
        """
        objects = self.blocks(barcode)
        with self._device() as device:
            if barcode not in device.state.cartridges:
                raise DeviceError(f"{self.name} has no cartridge {barcode}")
            if device.state.inside == barcode:
                demount(device)
                device.state.inside = ""
            cartridge = device.state.cartridges.pop(barcode)
            device.tape.cut(barcode, 0)
        with other._device() as device:
            device.state.cartridges[barcode] = cartridge
            for number, one in enumerate(objects):
                device.tape.put(barcode, number, one)

    def cartridges(self) -> tuple[Loaded, ...]:
        """Return every cartridge that was ever inserted."""
        with self._device() as device:
            state, tape = device.state, device.tape
            return tuple(
                Loaded(
                    barcode=name,
                    kind=one.kind_name,
                    serial=one.serial,
                    worm=one.worm,
                    write_protected=one.write_protected,
                    inside=name == state.inside,
                    objects=tape.end(name),
                )
                for name, one in state.cartridges.items()
            )

    def blocks(self, barcode: str) -> tuple[MediumObject, ...]:
        """Return what lies on a cartridge: ciphertext where it is encrypted."""
        with self._device() as device:
            found = [device.tape.get(barcode, n) for n in range(device.tape.end(barcode))]
            return tuple(one for one in found if one is not None)

    def damage(self, barcode: str, number: int) -> None:
        """Flip one bit of a block on tape."""
        with self._device() as device:
            device.tape.damage(barcode, number)

    def power_cycle(self) -> None:
        """Turn the drive off and on: keys, locks and reservations are gone, and all are told."""
        with self._device() as device:
            reservations.lose(device)
            _forget(device)
            for nexus in device.state.nexuses.values():
                nexus.registration = 0
            device.state.counter = 0
            _remount(device)
            _tell_all(device.state, Reason.POWER_ON)

    def reset(self) -> None:
        """Reset the drive: keys, locks and legacy reservations are gone, and all are told.

        With the lie ``key-lost-at-reset`` nobody is.
        """
        with self._device() as device:
            _forget(device)
            if not device.lies("key-lost-at-reset"):
                _tell_all(device.state, Reason.DEVICE_RESET)

    def lose_nexus(self, nexus: str = DEFAULT_NEXUS) -> None:
        """Break a host's connection: its LOCAL parameters and its lock are gone."""
        with self._device() as device:
            one = device.state.nexuses.setdefault(nexus, Nexus())
            if one.local is not None:
                device.drop(one.local)
            if one.scope == LOCAL:
                one.scope = PUBLIC
            one.locked_at = None
            one.attend(Reason.NEXUS_LOSS)

    def preempt(self, nexus: str = "another-host") -> None:
        """Let another host take the reservation away from whoever holds it."""
        with self._device(nexus) as device:
            holder = device.state.nexuses.get(device.state.holder)
            if holder is None or not holder.registration:
                raise DeviceError(f"{self.name}: there is no persistent reservation to preempt")
            device.nexus.registration = device.nexus.registration or secrets.randbits(63) + 1
            reservations.preempt(device, holder.registration)

    def queue_sense(
        self, key: int, asc: int, ascq: int, *, nexus: str = DEFAULT_NEXUS, times: int = 1
    ) -> None:
        """Let a host's next commands end with this sense, without being run."""
        with self._device() as device:
            one = device.state.nexuses.setdefault(nexus, Nexus())
            one.attentions.extend([[key, asc, ascq]] * times)

    def forget_attentions(self) -> None:
        """Drop all unit attentions that are waiting."""
        with self._device() as device:
            for nexus in device.state.nexuses.values():
                nexus.attentions.clear()

    def lies(self) -> frozenset[str]:
        """Return the names of the lies that the drive was told to tell."""
        with self._device() as device:
            return frozenset(device.state.lies)

    def tell_lie(self, name: str, on: bool = True, *, times: int = BUSY_TIMES) -> None:
        """Switch one of ``LIES`` on or off; ``times`` is how many commands ``busy`` holds up.

        :raises ConfigError: if there is no such lie.
        """
        if name not in LIES:
            raise ConfigError(f"there is no lie {name!r}", hint=f"Choose one of: {', '.join(LIES)}")
        with self._device() as device:
            state = device.state
            if on:
                state.lies[name] = times
                return
            state.lies.pop(name, None)
            state.gone = state.gone and name != "no-medium"
            state.managed = state.managed and name != "library-managed"

    def state(self) -> dict[str, Any]:
        """Return what the drive remembers; ``key`` only says whether there is one."""
        with self._device() as device:
            return public(device.state)

    @contextmanager
    def _device(self, nexus: str = "") -> Iterator[Device]:
        with opened(self.path) as (state, tape):
            yield Device(state, tape, nexus)


def _new_key() -> bytes:
    key = generate_private_key(65537, RSA_BITS)
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _new(device: Device, barcode: str, kind: str, worm: bool) -> Cartridge:
    if not barcode or len(barcode) > MAX_BARCODE or not barcode.isascii():
        raise ConfigError(f"{barcode!r} is no barcode", hint="Use 1 to 32 ASCII characters")
    if kind and kind not in KINDS:
        raise ConfigError(
            f"there is no cartridge {kind!r}", hint=f"Choose one of: {', '.join(KINDS)}"
        )
    cartridge = Cartridge(
        barcode=barcode,
        kind_name=kind or own_kind(device.profile).name,
        serial=secrets.token_hex(5).upper(),
        worm=worm,
    )
    cartridge.attributes[BARCODE] = Attribute(1, barcode.encode().ljust(MAX_BARCODE))
    return cartridge


def _forget(device: Device) -> None:
    """Forget what a reset takes: parameters, scopes, locks and legacy reservations."""
    state = device.state
    for parameters in list(device.sets()):
        device.drop(parameters)
    for nexus in state.nexuses.values():
        nexus.scope, nexus.locked_at, nexus.uses_encryption = PUBLIC, None, False
    if state.reservation == reservations.LEGACY:
        reservations.lose(device)


def _remount(device: Device) -> None:
    demount(device)
    if device.state.inside:
        mount(device)


def _tell_all(state: State, code: Code) -> None:
    for nexus in state.nexuses.values():
        nexus.attend(code)
