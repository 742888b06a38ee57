"""Putting a key into a drive so that it is known to be there: the steps, and what undoes them."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hwkm.checks import Check, all_ok, fail, ok, warn
from hwkm.drivers import readback
from hwkm.drivers.attempts import attempt_guard
from hwkm.drivers.clearing import take_out
from hwkm.drivers.next_block import judge, see_next, settle
from hwkm.drivers.report import LoadReport, NotEncryptedError, WrappingKeyChangedError
from hwkm.errors import DeviceError, HwkmError, ParseError, PolicyError
from hwkm.scsi.encryption import KeyRequest
from hwkm.scsi.inventory import conflicts, identify_cartridge, identify_drive, same_cartridge
from hwkm.scsi.pages.directory import KeyFormat
from hwkm.scsi.pages.kad import Kad, KadType
from hwkm.scsi.pages.status import Scope
from hwkm.scsi.quirks import SCOPE_NOT_REPORTED, OneKadOnly
from hwkm.scsi.transport import OutcomeUnknownError

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.drivers.attempts import AttemptGuard
    from hwkm.keys import VolumeKey
    from hwkm.scsi.ability import EncryptionAbility
    from hwkm.scsi.encryption import TapeEncryption
    from hwkm.scsi.inventory import Cartridge, DriveIdentity
    from hwkm.scsi.pages.capabilities import Algorithm
    from hwkm.scsi.pages.next_block import NextBlockStatus
    from hwkm.scsi.pages.set_encryption import SetDataEncryption
    from hwkm.scsi.pages.status import EncryptionStatus
    from hwkm.scsi.pages.wrapping_key import WrappingKey

MAX_STALE = 3
"""How often the read-back is done anew because an event came in between."""

FORMAT_WORDS = {KeyFormat.PLAIN: "plain", KeyFormat.WRAPPED: "wrapped"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be loaded: a key, the name that goes with every block, and for which volume.

    ``pinned`` is the SHA-256 of the drive's page 0031h on record; None if none is.
    ``barcode`` is what the cartridge is expected to carry; "" if nobody knows. ``new`` is for a key
    that is to be written with at once: for others it is enough that the drive can decrypt, and a
    drive that can't encrypt where the tape stands refuses to write there by itself.
    """

    key: VolumeKey
    key_id: bytes
    volume: str
    pinned: bytes | None = None
    barcode: str = ""
    new: bool = True


@dataclass(slots=True)
class Load:
    """One load. What is found on the way is kept in it, for the report.

    The flow, and where it stands in :meth:`run`:

    1. Drain unit attentions: from here on a change of cartridge ends it.
    2. Identify drive and cartridge, serial number first; another barcode than expected ends it.
    3. Find out whether drive and cartridge can encrypt, and by which algorithm.
    4. Choose the key format: wrapped wherever the drive offers it, to the key that is on record.
    5. Count the try, before it is made.
    6. Read the status, then Set Data Encryption.
    7. Read the status back and compare it with what was sent.
    8. Identify the cartridge again: it must be the same one.
    9. See whether the key opens the next block.
    10. Read the status once more: nobody may have set anything since, whatever events came.
    11. Settle the count of tries.

    Up to 5 the drive is not changed. Whatever goes wrong from 6 on takes the key out again.
    """

    session: TapeEncryption
    directory: Path
    wanted: Wanted
    drive: DriveIdentity = field(init=False)
    cartridge: Cartridge = field(init=False)
    checks: list[Check] = field(default_factory=list)
    key_format: KeyFormat = KeyFormat.PLAIN
    fingerprint: bytes | None = None
    counter: int = 0

    def run(self) -> LoadReport:
        """Do it.

        :raises NotEncryptedError: if it is not certain that the drive now encrypts with the key.
        :raises WrappingKeyChangedError: if the drive's public key is not the pinned one.
        :raises TooManyKeysError: if so many keys failed before that this one is not tried.
        :raises DeviceError: if the drive, or the cartridge, can't; nothing was changed then.
        """
        # 1. Drain unit attentions.
        with self.session.any_cartridge():
            loaded = self.session.is_ready()
        # 2. Identify drive and cartridge.
        self._identify(loaded)
        # 3. Find out whether drive and cartridge can encrypt.
        ability, algorithm = self._ability()
        # 4. Choose the key format.
        request = self._request(ability, algorithm, self._wrapping_key(ability))
        # 5. Count the try.
        guard = attempt_guard(self.session.transport, self.directory, self.drive, self.cartridge)
        guard.reserve()
        try:
            # 6. to 10.
            block = self._set_and_read_back(request)
            # 11. Settle the count of tries.
            if all_ok(self.checks):
                settle(guard, block)
        except HwkmError as error:
            raise self._failed(guard, str(error)) from error
        except BaseException:
            with suppress(HwkmError):
                take_out(self.session)
            raise
        if not all_ok(self.checks):
            raise self._failed(guard)
        return self._report()

    # 2

    def _identify(self, loaded: bool) -> None:
        self.drive = identify_drive(self.session.transport)
        cartridge = identify_cartridge(self.session.transport) if loaded else None
        if cartridge is None:
            raise DeviceError(
                f"{self.session.name}: no cartridge is loaded",
                hint="A key is loaded for the cartridge in the drive; load that first",
            )
        if not (cartridge.serial or cartridge.barcode):
            raise DeviceError(
                f"{self.session.name}: the cartridge has neither serial number nor barcode",
                hint="One that can't be told from others gets no key; see its chip (MAM)",
            )
        if trouble := conflicts(cartridge, self.wanted.barcode):
            raise DeviceError(
                f"{self.session.name}: {trouble}",
                hint="The wrong cartridge is loaded, or it carries another one's label",
            )
        self.cartridge = cartridge
        self.checks += _about(cartridge)

    # 3

    def _ability(self) -> tuple[EncryptionAbility, Algorithm]:
        ability = self.session.ability()
        able = ability.can_encrypt if self.wanted.new else ability.can_decrypt
        if not able or ability.algorithm is None:
            what = "encrypt" if self.wanted.new else "decrypt"
            raise DeviceError(
                f"{self.session.name} can't {what}: {ability.reason}",
                hint="See hwkm drive probe; software encryption works with any drive",
            )
        return ability, ability.algorithm

    # 4

    def _wrapping_key(self, ability: EncryptionAbility) -> WrappingKey | None:
        offered = KeyFormat.WRAPPED in ability.formats
        found = self.session.wrapping_key() if offered else None
        self._check_pin(None if found is None else found.fingerprint())
        if found is None:
            return None
        if trouble := _unusable(found, self.drive.designator):
            self._go_plain(trouble)
            return None
        self.key_format, self.fingerprint = KeyFormat.WRAPPED, found.fingerprint()
        return found

    def _check_pin(self, found: bytes | None) -> None:
        pinned = self.wanted.pinned
        if pinned is None or pinned == found:
            return
        shows = "shows none any more" if found is None else f"shows {found.hex()[:16]}..."
        raise WrappingKeyChangedError(
            f"on record for drive {self.drive.serial or self.drive.product} is the wrapping key "
            f"{pinned.hex()[:16]}..., and it {shows}",
            hint="If the drive's electronics were changed, accept the new key by the drive's "
            "serial number; otherwise another device may pose as it",
        )

    def _go_plain(self, trouble: str) -> None:
        if self.wanted.pinned is not None:
            raise WrappingKeyChangedError(
                f"drive {self.drive.serial or self.drive.product} took wrapped keys and now can't: "
                f"{trouble}",
                hint="Another device may pose as it; see INQUIRY page 83h",
            )
        advice = "The key goes in plain: who can read the bus to the drive can read it"
        self.checks.append(warn("key format", trouble, advice))

    def _request(
        self, ability: EncryptionAbility, algorithm: Algorithm, wrapping_key: WrappingKey | None
    ) -> KeyRequest:
        management = ability.management
        everybody = management is None or management.all_i_t_nexus
        return KeyRequest(
            key=self.wanted.key,
            algorithm=algorithm,
            kads=_kads(self.wanted, algorithm),
            scope=Scope.ALL_I_T_NEXUS if everybody else Scope.LOCAL,
            lock=management is not None and management.lock,
            ckod=management is not None and management.ckod,
            wrapping_key=wrapping_key,
            designator=self.drive.designator,
        )

    # 6 to 10

    def _set_and_read_back(self, request: KeyRequest) -> NextBlockStatus | None:
        # 6. Read the status, then Set Data Encryption.
        before = self.session.status()
        sent = self._set(request)
        # 7. Read the status back and compare it.
        after = self.session.status()
        if readback.keeps_only_the_first(sent, after):
            self.session.adopt(OneKadOnly())
            before, sent = after, self._set(request)
            after = self.session.status()
        self.checks += self._compare(sent, before, after)
        # 8. Identify the cartridge again.
        self.checks.append(self._same_cartridge())
        # 9. See whether the key opens the next block.
        block = see_next(self.session)
        self.checks.append(judge(block))
        # 10. Read the status once more.
        self.checks.append(self._nothing_since(after))
        return block

    def _set(self, request: KeyRequest) -> SetDataEncryption:
        try:
            return self.session.set_key(request)
        except OutcomeUnknownError:
            # It may have been done all the same: what the drive says next decides.
            return self.session.as_sent(request)

    def _compare(
        self, sent: SetDataEncryption, before: EncryptionStatus, after: EncryptionStatus
    ) -> tuple[Check, ...]:
        self.counter = after.key_instance_counter
        checks = readback.compare(sent, before, after)
        if readback.shows_one_scope(before, after) and after.key_scope != sent.scope:
            self.session.note(SCOPE_NOT_REPORTED)
        return (self._sent_as(), *checks, *_leaves_with_the_cartridge(sent))

    def _sent_as(self) -> Check:
        if self.fingerprint is None:
            return ok("key sent", "plain (key format 00h)")
        return ok("key sent", f"wrapped to the drive's key {self.fingerprint.hex()[:16]}...")

    def _same_cartridge(self) -> Check:
        found = identify_cartridge(self.session.transport)
        name, swapped = "cartridge", "Let nothing load or unload the drive meanwhile"
        if found is None:
            return fail(name, "it is gone: the drive has none any more", swapped)
        if same_cartridge(self.cartridge, found):
            return ok(name, f"still {_named(found)}")
        return fail(name, f"{_named(found)} instead of {_named(self.cartridge)}", swapped)

    def _nothing_since(self, after: EncryptionStatus) -> Check:
        """Read the status until no event came in between; it must be what it was."""
        name = "status, read again"
        for _ in range(MAX_STALE):
            events = self.session.attentions
            again = self.session.status()
            if _in_force(again) != _in_force(after):
                advice = "Another host or a reset changed the parameters: let one host set keys"
                return fail(name, "the parameters have changed meanwhile", advice)
            if events == self.session.attentions:
                return ok(name, "nothing has changed")
        return ok(name, "nothing has changed, though the drive reports events all the time")

    # Ends

    def _report(self) -> LoadReport:
        return LoadReport(
            drive=self.drive,
            cartridge=self.cartridge,
            key_id=self.wanted.key_id,
            key_format=FORMAT_WORDS[self.key_format],
            counter=self.counter,
            at=int(time.time()),
            checks=tuple(self.checks),
            wrapping_key=self.fingerprint,
            quirks=self.session.quirks,
        )

    def _failed(self, guard: AttemptGuard, trouble: str = "") -> NotEncryptedError:
        """Take the key out; return the error that says why, and whether the key is out."""
        if trouble:
            advice = "See hwkm drive status, and try again once the drive is in order"
            self.checks.append(fail("conversation", trouble, advice))
        error = NotEncryptedError(self._report(), cleared=take_out(self.session))
        if error.cleared:
            with suppress(PolicyError):  # then it stays counted
                guard.harmless()
        return error


def _kads(wanted: Wanted, algorithm: Algorithm) -> tuple[Kad, ...]:
    """Return the key's name as A-KAD and the volume's as U-KAD, as far as there is room.

    :raises DeviceError: if there is no room for the key's name.
    """
    volume = wanted.volume.encode()
    label = (Kad(KadType.U_KAD, volume),) if volume and len(volume) <= algorithm.max_ukad else ()
    if len(wanted.key_id) <= algorithm.max_akad:
        return (*label, Kad(KadType.A_KAD, wanted.key_id))
    if len(wanted.key_id) <= algorithm.max_ukad:
        return (Kad(KadType.U_KAD, wanted.key_id),)
    raise DeviceError(
        f"the name of the key has {len(wanted.key_id)} bytes, and the drive keeps "
        f"{algorithm.max_akad} (A-KAD) or {algorithm.max_ukad} (U-KAD)",
        hint="Without it the tape could not ask for its key: use software encryption",
    )


def _unusable(key: WrappingKey, designator: bytes) -> str:
    try:
        key.rsa()
    except ParseError as error:
        return str(error)
    return "" if designator else "the drive does not say which logical unit it is"


def _about(cartridge: Cartridge) -> list[Check]:
    checks = []
    if cartridge.worm:
        advice = "What is on it can't be written again: a new key serves new blocks only"
        checks.append(warn("WORM", f"{_named(cartridge)} takes each block only once", advice))
    if cartridge.write_protected:
        advice = "Nothing can be written; the key serves for reading"
        checks.append(warn("write protection", f"{_named(cartridge)} is write-protected", advice))
    return checks


def _leaves_with_the_cartridge(sent: SetDataEncryption) -> tuple[Check, ...]:
    if sent.ckod:
        return ()
    advice = "Run hwkm drive clear before each unload (hwkm drive changer does)"
    return (warn("CKOD", "the drive keeps the key when the cartridge leaves", advice),)


def _in_force(status: EncryptionStatus) -> tuple[object, ...]:
    modes = (status.encryption_mode, status.decryption_mode, status.algorithm_index)
    owner = (status.nexus_scope, status.key_scope, status.controlled_by)
    return (*modes, *owner, status.key_instance_counter, status.kads)


def _named(cartridge: Cartridge) -> str:
    maker = f"{cartridge.manufacturer} " if cartridge.manufacturer else ""
    barcode = f" ({cartridge.barcode})" if cartridge.barcode else ""
    return f"{maker}{cartridge.serial or 'without serial number'}{barcode}"
