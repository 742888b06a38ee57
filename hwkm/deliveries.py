"""Volume keys and tape drives joined: loading, proving, clearing, and what the tape asks for.

The drive's lock is taken first, the tokens' second and the keystore's last, so that two processes
can't wait for each other; and no token or keystore is held while a drive works.
"""

from __future__ import annotations

import math
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hwkm import issuing
from hwkm.checks import Check, fail, ok
from hwkm.drivers import chip
from hwkm.drivers.choose import Choice, choose
from hwkm.drivers.lock import drive_lock
from hwkm.drivers.readback import same_name
from hwkm.drivers.report import POWER_CYCLE, NotEncryptedError
from hwkm.drivers.tape import TapeDriver
from hwkm.envelope import Envelope, fit
from hwkm.errors import DeviceError, EnvelopeError, HwkmError, NotFoundError, ParseError
from hwkm.keystore.records import Proof, ProofKind, State
from hwkm.policy import Delivery
from hwkm.scsi.encryption import TapeEncryption
from hwkm.scsi.inventory import identify_drive, same_cartridge
from hwkm.scsi.worker import WorkerTransport
from hwkm.service import OwnTokens

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from hwkm.drivers.report import ClearReport, HoldReport, LoadReport, ProveReport
    from hwkm.drivers.tape import NextKey
    from hwkm.installation import Installation
    from hwkm.keys import Cipher
    from hwkm.keystore.records import Generation
    from hwkm.keystore.source import KeystoreSource
    from hwkm.keystore.store import Transaction
    from hwkm.manager import Caller, Handout
    from hwkm.service import KeyService

    Report = LoadReport | HoldReport | ProveReport | ClearReport

LOCK_SECONDS = 30.0
"""How long to wait for another process that works with the drive."""


@contextmanager
def open_drive(
    device: str,
    runtime_dir: Path,
    seconds: float = LOCK_SECONDS,
    deadline: float = math.inf,
) -> Iterator[TapeDriver]:
    """Open the drive at ``device``, alone among hwkm's processes, in a process of its own.

    To be called before any PKCS#11 module is loaded: it forks. The process that talks to the drive
    holds the lock too, so that a drive that hangs stays locked for as long as it does.

    :param seconds: how long to wait for another process.
    :param deadline: when (of :func:`time.monotonic`) a drive that is not done is given up.
    :raises DeviceError: if there is no drive, or another process does not let go of it.
    """
    with closing(WorkerTransport(device, deadline=deadline)) as transport:
        # Through a session, which waits for a drive that is busy.
        serial = identify_drive(TapeEncryption(transport).transport).serial
    with (
        drive_lock(runtime_dir, serial, seconds) as descriptor,
        closing(WorkerTransport(device, keep=(descriptor,), deadline=deadline)) as transport,
    ):
        yield TapeDriver(transport, runtime_dir)


@dataclass(frozen=True, slots=True)
class Deliveries:
    """The use cases around one installation's drives, for one caller.

    Keys come from ``keys``; proofs go into the installation's keystore.
    """

    installation: Installation
    caller: Caller
    keys: KeyService
    keystore: KeystoreSource

    @classmethod
    def of(
        cls, installation: Installation, caller: Caller, keys: KeyService | None = None
    ) -> Deliveries:
        """Return the use cases; without ``keys``, with those of this process's own tokens."""
        service = OwnTokens(installation) if keys is None else keys
        return cls(installation, caller, service, installation.keystore())

    def choose(self, driver: TapeDriver, volume: str) -> Choice:
        """Return who is to encrypt ``volume`` with this drive: by policy and by capability.

        :raises PolicyError: if the policy wants the drive, and the drive can't.
        """
        rule = self.installation.config.policy.rule_for(volume)
        return choose(rule.delivery, driver.ability())

    def issue(self, volume: str, choice: Choice, cipher: Cipher | None = None) -> Handout:
        """Make a new generation of ``volume``, which keeps its delivery for life.

        ``cipher`` takes the place of the policy's for software encryption.
        """
        own = cipher if choice.delivery is Delivery.SOFTWARE else None
        return self.keys.label(volume, self.caller, own, choice.delivery, choice.reason)

    def fetch(
        self, volume: str, key_id: bytes | None = None, label: bytes | None = None
    ) -> Handout:
        """Return a key of ``volume`` for a drive: that of ``key_id``, or the newest.

        If ``label``, the envelope in the volume's label, is given, it names the key.
        """
        return self.keys.drive_key(volume, self.caller, key_id=key_id, label=label)

    def auto(self, driver: TapeDriver) -> tuple[Generation, LoadReport] | None:
        """Load the key that the tape asks for; None if its next block is not encrypted.

        Only one key is ever tried.

        :raises NotFoundError: if the block is encrypted with a key that is neither on record nor
            in the cartridge's chip.
        """
        self.clear_stray(driver)
        wanted = driver.next_key()
        if not wanted.is_encrypted:
            self.keep_clear(driver)  # nothing asks for the key that may be in it
            return None
        found = self._find(wanted.names)
        if found is not None:
            handout = self.fetch(found.volume, found.key_id)
            return found, self.deliver(driver, handout, name=wanted.name_of(found))
        handout = self._from_chip(driver, wanted)
        found = issuing.record_of(handout.envelope.header, State.ACTIVE)
        return found, self.deliver(driver, handout)

    def bring(self, driver: TapeDriver, handout: Handout) -> LoadReport:
        """Load the key of a volume whose label was just read, if the tape in the drive asks for it.

        :raises DeviceError: if it does not: then the label was read in another drive, or is in
            clear; or if the drive was reset since, and so stands elsewhere.
        """
        if alarm := self.alarm(driver):
            raise alarm
        self.keep_clear(driver)
        wanted, header = driver.next_key(), handout.envelope.header
        if wanted.is_encrypted and self._is_named(header.key_id, wanted):
            return self.deliver(driver, handout, name=wanted.name_of(header))
        if wanted.is_encrypted or not driver.first_is_clear():
            raise _not_its_tape(header.volume, wanted)
        return self.deliver(driver, handout)

    def loaded(self, driver: TapeDriver) -> None:
        """Bring in what the cartridge asks for that a changer has just loaded.

        :raises DeviceError: if it is encrypted, and the drive can't decrypt.
        :raises HwkmError: as :meth:`auto` does.
        """
        self.keep_clear(driver)
        ability = driver.ability()
        if ability.can_decrypt:
            self.auto(driver)
        elif not ability.by_others and driver.has_encrypted_blocks():
            raise DeviceError(
                f"the tape is encrypted, and the drive can't decrypt it: {ability.reason}",
                hint="Load it in a drive that can; see hwkm drive probe",
            )

    def unloading(self, driver: TapeDriver) -> None:
        """Take the key out before a changer takes the cartridge.

        :raises DeviceError: if the drive still holds it.
        """
        self.keep_clear(driver)

    def alarm(self, driver: TapeDriver) -> DeviceError | None:
        """Return what is to be said aloud if an event has taken a key out that is counted on.

        Whoever writes to the drive is not told of the event, because hwkm was.
        """
        lost = self._lost(driver)
        if lost is None:
            return None
        return DeviceError(
            f"a reset or another host took the key of volume {lost.volume!r} out of the drive: "
            "WHAT IS WRITTEN NOW IS NOT ENCRYPTED WITH IT",
            hint="Stop what writes to it and mount the volume anew; what was written since is "
            "not as it should be, and perhaps at the wrong place",
        )

    def deliver(
        self,
        driver: TapeDriver,
        handout: Handout,
        *,
        name: bytes = b"",
        accept: str = "",
        barcode: str = "",
        new: bool = False,
    ) -> LoadReport:
        """Put a key that was handed out into the drive; what that read back is recorded.

        ``name`` is what the tape calls the key, where that is not its key id. Of a ``new`` key the
        envelope is kept in the cartridge's chip as well, if it can be. ``accept`` is the serial
        number of a drive whose new wrapping key is to be trusted. ``barcode`` is the cartridge's,
        "" if nobody knows: another one is refused.

        :raises NotEncryptedError: naming the check that failed; the drive then holds no key.
        :raises WrappingKeyChangedError: if the drive shows another wrapping key than before.
        :raises KeystoreError: if it can't be recorded; the drive then holds no key.
        """
        header = handout.envelope.header
        serial = driver.identify()[0].serial
        on_record = self._pinned(serial)
        pinned = None if accept and accept == serial else on_record
        called = name or header.key_id
        try:
            report = driver.load(
                handout.key, called, header.volume, pinned=pinned, barcode=barcode, new=new
            )
        except NotEncryptedError as error:
            self._record(header.key_id, ProofKind.LOAD, error.report)
            raise
        pin = report.wrapping_key if report.wrapping_key != on_record else None
        try:
            if new:
                report = _with_chip(driver, handout, report)
            self._record(header.key_id, ProofKind.LOAD, report, pin=pin)
        except HwkmError as error:
            # What can't be put on record is not used.
            raise _undone(driver, error) from error
        except BaseException:
            with suppress(HwkmError):
                driver.clear()
            raise
        return report

    def holds(self, driver: TapeDriver, key_id: bytes) -> bool:
        """Find out whether the drive encrypts with the key called ``key_id``; if so, record it."""
        report = driver.holds(key_id)
        if report.encrypted:
            self._record(key_id, ProofKind.HOLD, report)
        return report.encrypted

    def held(self, driver: TapeDriver) -> Generation | None:
        """Return whose key the drive holds; None if there is none, or it is not on record."""
        return self._find(driver.held_names())

    def changed_by_others(self, driver: TapeDriver) -> bool | None:
        """Return whether the drive's parameters were set, or reset, since hwkm last did anything.

        None if hwkm never did.
        """
        last = self._last_in(driver)
        counter = None if last is None else last.counter
        return None if counter is None else driver.guard_changed(counter)

    def prove(self, driver: TapeDriver) -> tuple[Generation, ProveReport]:
        """Look whether what is on the tape is encrypted with the key that the drive holds.

        :raises NotFoundError: if the drive holds no key that is on record.
        """
        found = self.held(driver)
        if found is None:
            raise self.alarm(driver) or NotFoundError(
                "the drive holds no key that is on record",
                hint="Load the volume's with hwkm drive load or hwkm drive auto",
            )
        report = driver.prove(found.key_id, self._counter(found.key_id, driver))
        loaded_for = self._loaded_for(found.key_id, report)
        report = replace(report, checks=(*report.checks, loaded_for))
        self._record(found.key_id, ProofKind.PROVE, report)
        return found, report

    def clear(self, driver: TapeDriver) -> ClearReport:
        """Take whatever key it holds out of the drive, and read back that it is out."""
        report = driver.clear()
        found = self._find(report.held)
        last = self._last_in(driver)
        if found is not None:
            self._record(found.key_id, ProofKind.CLEAR, report)
        elif last is not None and last.encrypted and report.cleared:
            self._record(last.key_id, ProofKind.CLEAR, report)  # it had left with its cartridge
        return report

    def clear_stray(self, driver: TapeDriver) -> ClearReport | None:
        """Take out a key of ours that was not loaded for the cartridge in the drive; None if none.

        So it can be left there by a crash: a drive without CKOD keeps a key over an unload.
        """
        found = self.held(driver)
        if found is None or self._was_loaded_here(driver, found.key_id):
            return None
        return self.clear(driver)

    def keep_clear(self, driver: TapeDriver) -> None:
        """Take out the key of a host, if there is one: a key never outlives its cartridge.

        :raises DeviceError: if the drive still holds it.
        """
        if not (driver.holds_any() or self._may_be_locked(driver)):
            return
        if not self.clear(driver).cleared:
            raise DeviceError(
                "the drive still holds a key",
                hint="Run hwkm drive status; a power cycle of the drive takes every key out",
            )

    # below

    def _lost(self, driver: TapeDriver) -> Generation | None:
        """Return whose key an event took out of the drive, while its cartridge stayed there."""
        if not driver.was_reset:
            return None
        last, held = self._last_in(driver), self.held(driver)
        if held is not None and last is not None and held.key_id == last.key_id:
            return None
        if last is None or not last.encrypted or not self._was_loaded_here(driver, last.key_id):
            return None
        with self._reading() as transaction:
            return transaction.generation(last.key_id)

    def _may_be_locked(self, driver: TapeDriver) -> bool:
        """Return whether the drive was never told that the last key's time is over.

        CKOD takes the key with the cartridge. LOCK stays, and refuses this host's next write until
        parameters are set anew (SSC-5, 4.2.22.9).
        """
        last = self._last_in(driver)
        return last is not None and last.encrypted and driver.can_hold_keys()

    def _last_in(self, driver: TapeDriver) -> Proof | None:
        if self.keystore.is_missing():
            return None
        with self._reading() as transaction:
            return transaction.last_proof_in(driver.identify()[0].serial)

    def _from_chip(self, driver: TapeDriver, wanted: NextKey) -> Handout:
        """Return the key whose envelope is in the cartridge's chip, if the tape asks for it."""
        blob = driver.envelope_on_chip()
        with suppress(ParseError):
            header = Envelope.parse(blob or b"").header
            if any(same_name(header.key_id, one) for one in wanted.names):
                return self.fetch(header.volume, label=blob)
        raise NotFoundError(
            "the tape is encrypted with a key that is not on record, nor in the cartridge's chip "
            f"({wanted.text})",
            hint="Restore the keystore's backup; another program's key is taken up with "
            "hwkm volume import",
        )

    def _is_named(self, key_id: bytes, wanted: NextKey) -> bool:
        """Return whether the tape asks for this key; a tape whose blocks name none may."""
        if not wanted.names or any(same_name(key_id, one) for one in wanted.names):
            return True
        found = self._find(wanted.names)
        return found is not None and found.key_id == key_id

    def _find(self, names: tuple[bytes, ...]) -> Generation | None:
        if self.keystore.is_missing():
            return None  # a bare machine
        with self._reading() as transaction:
            found = (transaction.find_by_key_name(name) for name in names)
            return next((generation for generation in found if generation is not None), None)

    def _counter(self, key_id: bytes, driver: TapeDriver) -> int | None:
        """Return the key instance counter after this drive's last load of the key."""
        last = self._last_load(key_id)
        here = last is not None and last.drive_serial == driver.identify()[0].serial
        return last.counter if last is not None and here else None

    def _loaded_for(self, key_id: bytes, report: ProveReport) -> Check:
        """Judge whether the key was loaded for the cartridge that was looked at."""
        last = self._last_load(key_id)
        name = "loaded for"
        if last is None or last.cartridge_serial in ("", report.cartridge.serial):
            return ok(name, "this cartridge")
        seen = f"cartridge {last.cartridge_serial}, and this is {report.cartridge.serial}"
        return fail(name, seen, "It bears another volume's key: write it anew, with its own")

    def _was_loaded_here(self, driver: TapeDriver, key_id: bytes) -> bool:
        """Return whether the key's last load was into this drive, for the cartridge in it."""
        last = self._last_load(key_id)
        drive, cartridge = driver.identify()
        return (
            last is not None
            and cartridge is not None
            and last.drive_serial == drive.serial
            and (last.cartridge_serial, last.barcode) == (cartridge.serial, cartridge.barcode)
        )

    def _last_load(self, key_id: bytes) -> Proof | None:
        with self._reading() as transaction:
            return transaction.last_proof(key_id, ProofKind.LOAD)

    def _pinned(self, serial: str) -> bytes | None:
        with self._reading() as transaction:
            return transaction.pinned_wrapping_key(serial)

    def _record(
        self, key_id: bytes, kind: ProofKind, report: Report, pin: bytes | None = None
    ) -> None:
        """Keep what the drive said; ``pin`` is its wrapping key, to be trusted from now on."""
        cartridge = report.cartridge
        proof = Proof(
            key_id=key_id,
            at=report.at,
            kind=kind,
            encrypted=report.encrypted,
            drive_serial=report.drive.serial,
            cartridge_serial=cartridge.serial if cartridge else "",
            barcode=cartridge.barcode if cartridge else "",
            job=self.caller.job,
            key_format=report.key_format,
            counter=report.counter,
            checks=report.checks,
        )
        with self.keystore.open().writing() as transaction:
            if pin is not None:
                transaction.pin_wrapping_key(proof.drive_serial, pin, proof.at, self.caller.who)
            transaction.add_proof(proof, self.caller.who)

    def _reading(self) -> AbstractContextManager[Transaction]:
        return self.keystore.open().reading()


def _with_chip(driver: TapeDriver, handout: Handout, report: LoadReport) -> LoadReport:
    """Keep the envelope in the chip too, and make sure that the drive is as it was before.

    :raises DeviceError: if it is not.
    """
    kept = _keep_on_chip(driver, handout)
    again = driver.holds(report.key_id)
    same = again.cartridge is not None and same_cartridge(report.cartridge, again.cartridge)
    if not (again.encrypted and same and again.counter == report.counter):
        raise DeviceError(
            "the drive lost the key, or its cartridge, after it was read back",
            hint="See hwkm drive status, and what resets the drive or moves cartridges",
        )
    return replace(report, checks=(*report.checks, kept))


def _not_its_tape(volume: str, wanted: NextKey) -> DeviceError:
    other = f"encrypted with another key ({wanted.text})"
    found = other if wanted.is_encrypted else "blank or in clear"
    return DeviceError(
        f"the label of volume {volume!r} was read, and what is on the tape in the drive is {found}",
        hint="--device %a of the Encryption Command must name the drive that the Storage Daemon "
        "uses; hwkm drive status shows which cartridge is in it. A tape that was to be encrypted "
        "and is in clear has to be written anew",
    )


def _undone(driver: TapeDriver, error: HwkmError) -> HwkmError:
    """Take the key out; return the error, or another that says that the drive may hold it."""
    with suppress(HwkmError):
        if driver.clear().cleared:
            return error
    return DeviceError(
        f"{error}; THE DRIVE MAY STILL HOLD THE KEY",
        hint=POWER_CYCLE,
    )


def _keep_on_chip(driver: TapeDriver, handout: Handout) -> Check:
    """Keep the envelope in the chip, with as many of its stanzas as there is room for."""
    try:
        fitting = fit(handout.envelope, handout.key, chip.MAX_BYTES)
    except EnvelopeError as error:
        return chip.not_kept(str(error))
    return driver.keep_on_chip(fitting.encode())
