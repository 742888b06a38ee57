"""Encryption by a tape drive: keys are brought in, read back, proved on the tape, and taken out."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hwkm.checks import Check, all_ok, fail, ok
from hwkm.drivers import chip, readback
from hwkm.drivers.attempts import attempt_guard
from hwkm.drivers.clearing import NO_KEY, take_out
from hwkm.drivers.load import Load, Wanted
from hwkm.drivers.look import ENCRYPTED, look
from hwkm.drivers.report import ClearReport, HoldReport, ProveReport
from hwkm.drivers.software import check_delivery
from hwkm.errors import DeviceError, ParseError
from hwkm.policy import Delivery
from hwkm.scsi.encryption import TapeEncryption
from hwkm.scsi.inventory import identify_cartridge, identify_drive, is_3592, same_cartridge
from hwkm.scsi.pages.base import PageIn
from hwkm.scsi.pages.next_block import BlockEncryption
from hwkm.scsi.pages.status import ControlledBy

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.drivers.look import Sight
    from hwkm.drivers.report import LoadReport
    from hwkm.keys import VolumeKey
    from hwkm.scsi.ability import EncryptionAbility
    from hwkm.scsi.inventory import Cartridge, DriveIdentity
    from hwkm.scsi.pages.next_block import NextBlockStatus
    from hwkm.scsi.pages.status import EncryptionStatus
    from hwkm.scsi.transport import Transport

_WRONG_TAPE = "What is on the tape was written with another key, or none: label the volume anew"


class Keyed(Protocol):
    """A record of a key."""

    @property
    def key_id(self) -> bytes:
        """Its id."""


@dataclass(frozen=True, slots=True)
class NextKey:
    """The key that the tape asks for: ``names`` are those beside the block, the A-KAD first.

    ``block`` is None on a blank tape.
    """

    block: NextBlockStatus | None
    names: tuple[bytes, ...]

    @property
    def is_encrypted(self) -> bool:
        """Whether a key is asked for."""
        return self.block is not None and self.block.encryption in ENCRYPTED

    @property
    def text(self) -> str:
        """The names, for people."""
        return ", ".join(map(readback.show, self.names)) or "its blocks name none"

    def name_of(self, record: Keyed) -> bytes:
        """Return the name under which the tape knows a key: its id, or else what it calls it."""
        own = any(readback.same_name(record.key_id, one) for one in self.names)
        return record.key_id if own or not self.names else self.names[0]


class TapeDriver:
    """A tape drive that encrypts.

    Each method drains what events have gathered, then a change of cartridge ends it.

    :param runtime_dir: where the count of wrong keys is kept.
    :raises CartridgeChangedError: every method does if the cartridge may have been changed.
    :raises DeviceError: every method does if the drive refuses, or can't be reached.
    """

    delivery = Delivery.DRIVE

    def __init__(self, transport: Transport, runtime_dir: Path) -> None:
        self.session = TapeEncryption(transport)
        self._runtime_dir = runtime_dir

    @property
    def was_reset(self) -> bool:
        """Whether the drive told, since it was opened, that it was reset or others set parameters.

        Whoever has its tape node open is not told any more.
        """
        return self.session.was_reset

    def ability(self) -> EncryptionAbility:
        """Return whether the drive can encrypt the cartridge in it, and if not, why."""
        self._begin()
        return self.session.ability()

    def identify(self) -> tuple[DriveIdentity, Cartridge | None]:
        """Return which drive this is and which cartridge is in it, None for none."""
        loaded = self._begin()
        drive = identify_drive(self.session.transport)
        return drive, identify_cartridge(self.session.transport) if loaded else None

    def load(
        self,
        key: VolumeKey,
        key_id: bytes,
        volume: str,
        *,
        pinned: bytes | None = None,
        barcode: str = "",
        new: bool = True,
    ) -> LoadReport:
        """Put ``key`` into the drive, and read back that it encrypts with it.

        :param key_id: the name that goes with every block: the A-KAD where it fits.
        :param volume: the U-KAD where it fits.
        :param pinned: SHA-256 of the drive's page 0031h on record; None trusts what it shows.
        :param barcode: what the cartridge is expected to carry, "" if nobody knows.
        :param new: whether it is to be written with at once; to read, decrypting is enough.
        :raises NotEncryptedError: naming the check that failed; the key was taken out then.
        :raises WrappingKeyChangedError: if the drive shows another key than the pinned one.
        :raises TooManyKeysError: if another wrong key might lock the drive.
        :raises PolicyError: if the key is one for software encryption.
        """
        check_delivery(key, volume, self.delivery)
        wanted = Wanted(key, key_id, volume, pinned, barcode, new)
        return Load(self.session, self._runtime_dir, wanted).run()

    def holds(self, key_id: bytes) -> HoldReport:
        """Find out whether the drive encrypts with the key called ``key_id``."""
        drive, cartridge = self.identify()
        status = self._status()
        return HoldReport(
            drive=drive,
            cartridge=cartridge,
            key_id=key_id,
            counter=status.key_instance_counter,
            at=int(time.time()),
            checks=readback.holding(status, key_id),
        )

    def held_names(self) -> tuple[bytes, ...]:
        """Return what the key in force is called, the A-KAD first; nothing if there is none."""
        self._begin()
        return _names_in_force(self.session.status()) if self.session.pages() else ()

    def holds_any(self) -> bool:
        """Return whether a key of a host is in force; a library's is not ours to touch."""
        self._begin()
        if not self.session.pages():
            return False
        status = self.session.status()
        ours = status.controlled_by in (ControlledBy.NOT_REPORTED, ControlledBy.HOST)
        return ours and not status.is_clear

    def can_hold_keys(self) -> bool:
        """Return whether the drive takes keys from hosts."""
        return bool(self.session.pages(PageIn.OUT_SUPPORT))

    def guard_changed(self, counter: int) -> bool:
        """Return whether anybody has set parameters since the counter was ``counter``."""
        self._begin()
        return self._status().key_instance_counter != counter

    def next_key(self) -> NextKey:
        """Find out which key the tape asks for; the tape is left where it stands."""
        _, cartridge = self.identify()
        if cartridge is None:
            raise _no_cartridge(self.session)
        may_read = self._status().is_clear
        block = look(self.session, cartridge.first_encrypted, may_read=may_read).block
        return NextKey(block, () if block is None else readback.names(block.kads))

    def has_encrypted_blocks(self) -> bool:
        """Return whether the cartridge's chip, or the next block, tells of encrypted blocks."""
        _, cartridge = self.identify()
        if cartridge is None:
            return False
        block = self.session.next_block() if self.session.pages() else None
        seen = block is not None and block.encryption in ENCRYPTED
        return seen or cartridge.first_encrypted is not None

    def first_is_clear(self) -> bool:
        """Return whether the drive leaves the first block of an encrypted tape in clear.

        An IBM 3592 does, and shows itself by its mode page 25h.
        """
        self._begin()
        return is_3592(self.session.transport)

    def keep_on_chip(self, envelope: bytes) -> Check:
        """Keep ``envelope``, of at most ``chip.MAX_BYTES``, in the cartridge's chip as well."""
        return chip.keep(self.session.transport, envelope)

    def envelope_on_chip(self) -> bytes | None:
        """Return the envelope in the cartridge's chip; None if there is none, or no way to it."""
        with suppress(DeviceError, ParseError):
            self._begin()
            return chip.read(self.session.transport)
        return None

    def prove(self, key_id: bytes, counter: int | None = None) -> ProveReport:
        """Look at what is on the tape: it must be encrypted with the key called ``key_id``.

        The tape is moved only if it is known where it stands, and moved back.

        :param counter: the key instance counter after the load; None if it is not known.
        """
        # 1. Identify drive and cartridge.
        drive, cartridge = self.identify()
        if cartridge is None:
            raise _no_cartridge(self.session)
        # 2. The drive must hold the key, and nobody may have set another one since.
        status = self._status()
        since = status.key_instance_counter if counter is None else counter
        checks = (*readback.holding(status, key_id), readback.counter_unmoved(since, status))
        # 3. Look at the first encrypted block, and go back.
        sight = look(self.session, cartridge.first_encrypted, may_read=all_ok(checks))
        checks += _seen(sight, key_id)
        # 4. Still the same cartridge, and nothing was set meanwhile.
        checks += (self._still(cartridge), self._untouched(status.key_instance_counter))
        report = ProveReport(
            drive=drive,
            cartridge=cartridge,
            key_id=key_id,
            counter=status.key_instance_counter,
            at=int(time.time()),
            block=sight.block.object_number if sight.block and sight.is_encrypted else None,
            checks=checks,
        )
        if sight.block and sight.block.encryption == BlockEncryption.READABLE:
            attempt_guard(self.session.transport, self._runtime_dir, drive, cartridge).opened()
        return report

    def clear(self) -> ClearReport:
        """Take whatever key it holds out of the drive, and read back that it is out."""
        drive, cartridge = self.identify()
        encrypts = bool(self.session.pages())
        status = self.session.status() if encrypts else None
        checks = take_out(self.session) if encrypts else (ok(NO_KEY, "it can't hold any"),)
        return ClearReport(
            drive=drive,
            cartridge=cartridge,
            held=() if status is None else _names_in_force(status),
            counter=self.session.status().key_instance_counter if encrypts else 0,
            at=int(time.time()),
            checks=checks,
        )

    def _begin(self) -> bool:
        """Drain unit attentions; return whether a cartridge is loaded."""
        with self.session.any_cartridge():
            return self.session.is_ready()

    def _status(self) -> EncryptionStatus:
        if self.session.pages():
            return self.session.status()
        raise DeviceError(
            f"{self.session.name} has no tape data encryption",
            hint="Use a drive that has: hwkm drive probe says of each what it can do",
        )

    def _still(self, cartridge: Cartridge) -> Check:
        found = identify_cartridge(self.session.transport)
        if found is not None and same_cartridge(cartridge, found):
            return ok("cartridge", "still the same")
        advice = "Let nothing load or unload the drive meanwhile"
        return fail("cartridge", "it is another one, or gone", advice)

    def _untouched(self, counter: int) -> Check:
        check = readback.counter_unmoved(counter, self.session.status())
        return Check("status, read again", check.status, check.detail, check.advice)


def _names_in_force(status: EncryptionStatus) -> tuple[bytes, ...]:
    return () if status.is_clear else readback.names(status.kads)


def _seen(sight: Sight, key_id: bytes) -> tuple[Check, ...]:
    """Judge the block that was seen."""
    where = "" if sight.moved else "; the tape was not moved"
    if sight.block is None:
        return (fail("block", f"there is nothing on the tape{where}", _WRONG_TAPE),)
    word = getattr(sight.block.encryption, "name", f"status {sight.block.encryption}")
    seen = f"object {sight.block.object_number}: {word}{where}"
    if sight.block.encryption != BlockEncryption.READABLE:
        return (fail("block", seen, _WRONG_TAPE),)
    named = readback.key_name(sight.block.kads, key_id)
    return ok("block", seen), Check("block's key id", named.status, named.detail, named.advice)


def _no_cartridge(session: TapeEncryption) -> DeviceError:
    return DeviceError(
        f"{session.name}: no cartridge is loaded", hint="Load the one that is to be looked at"
    )
