"""A volume that Bacula mounts in a drive: who encrypts it, and what the drive is to hold then.

Where the drive encrypts, its key is in it and was read back there before anything is answered.
Where the Storage Daemon does, the drive holds no key: nothing is encrypted twice.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hwkm.checks import Status
from hwkm.deliveries import LOCK_SECONDS, Deliveries, open_drive
from hwkm.drivers.attempts import TooManyKeysError
from hwkm.drivers.choose import Choice, choose
from hwkm.errors import DeviceError, HwkmError
from hwkm.policy import Delivery
from hwkm.scsi.transport import NoTapeDriveError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hwkm.drivers.report import LoadReport
    from hwkm.drivers.tape import TapeDriver
    from hwkm.keys import Cipher
    from hwkm.manager import Handout


@contextmanager
def at(device: str, deliveries: Deliveries, deadline: float) -> Iterator[Mount]:
    """Open ``device``, which need not be a tape drive, for what is mounted there.

    To be called before any PKCS#11 module is loaded: it forks.

    :param deadline: when (of :func:`time.monotonic`) a drive that is not done is given up.
    """
    runtime_dir = deliveries.installation.config.runtime_dir
    patience = min(LOCK_SECONDS, max(0.0, deadline - time.monotonic()))
    with ExitStack() as stack:
        driver, why_none, trouble = None, "", None
        try:
            driver = stack.enter_context(open_drive(device, runtime_dir, patience, deadline))
        except NoTapeDriveError as error:
            why_none = str(error)
        except DeviceError as error:
            why_none, trouble = str(error), error
        yield Mount(deliveries, driver, why_none, trouble)


@dataclass(frozen=True, slots=True)
class Mount:
    """A device with a volume in it; ``driver`` is None where there is none, as ``why_none`` says.

    ``trouble`` is what keeps a drive that may be there from being opened: it may hold a key.
    Keys are handed out with a text that says who encrypts, and why.
    """

    deliveries: Deliveries
    driver: TapeDriver | None
    why_none: str
    trouble: DeviceError | None = None

    def label(self, volume: str, cipher: Cipher | None) -> tuple[Handout, str]:
        """Make a new generation of ``volume``; if the drive is to encrypt it, put its key there.

        ``cipher`` takes the place of the policy's for software encryption.

        :raises PolicyError: if the policy wants the drive, and the drive can't.
        :raises DeviceError: if the drive fails, and the policy wants no other; or if it holds
            a key that does not come out.
        """
        if self.trouble is not None:
            raise self.trouble
        wanted = self.deliveries.installation.config.policy.rule_for(volume).delivery
        choice = self._choose(wanted)
        if self.driver is not None and choice.delivery is Delivery.DRIVE:
            handout = self.deliveries.issue(volume, choice)
            try:
                report = self.deliveries.deliver(self.driver, handout, new=True)
            except (DeviceError, TooManyKeysError) as error:
                if wanted is Delivery.DRIVE:
                    raise
                return self._instead(volume, cipher, error)
            return _given(handout, report, choice.reason)
        self._keep_clear()
        return self.deliveries.issue(volume, choice, cipher), f"software encrypts: {choice.reason}"

    def read(self, volume: str, label: bytes | None) -> tuple[Handout, str]:
        """Return the key of ``volume``; if the drive encrypts it, the drive holds it afterwards.

        ``label`` is the envelope in the volume's label, if there is one.

        :raises DeviceError: if the drive can't be brought to hold it, or what is on its tape does
            not ask for it; or if the Storage Daemon encrypts, and the drive holds a key that does
            not come out.
        """
        if self.deliveries.keys.delivery(volume, label) is Delivery.SOFTWARE:
            self._keep_clear()
            handout = self.deliveries.keys.read(volume, label, self.deliveries.caller)
            unsure = (f"whether the drive holds a key is not known: {self.trouble}",)
            notes = handout.notes if self.trouble is None else (*handout.notes, *unsure)
            return replace(handout, notes=notes), "software encrypts"
        if self.driver is None:
            raise DeviceError(
                f"volume {volume!r} is encrypted by a tape drive; {self.why_none}",
                hint="Mount it in a drive that encrypts; --device %a of the Encryption Command "
                "must name it",
            )
        handout = self.deliveries.fetch(volume, label=label)
        if self.deliveries.holds(self.driver, handout.envelope.header.key_id):
            return handout, "the drive encrypts: it holds the key"
        report = self.deliveries.bring(self.driver, handout)
        return _given(handout, report, "the drive did not hold it, and the tape asks for it")

    def _choose(self, wanted: Delivery | None) -> Choice:
        ability = None if self.driver is None else self.driver.ability()
        return choose(wanted, ability, self.why_none)

    def _instead(self, volume: str, cipher: Cipher | None, error: HwkmError) -> tuple[Handout, str]:
        """Let software encrypt, because the drive did not take the key."""
        self._keep_clear()
        choice = Choice(Delivery.SOFTWARE, "the drive was to encrypt, and did not take the key")
        handout = self.deliveries.issue(volume, choice, cipher)
        noted = replace(handout, notes=(*handout.notes, str(error)))
        return noted, f"software encrypts: {choice.reason}"

    def _keep_clear(self) -> None:
        if self.driver is not None:
            self.deliveries.keep_clear(self.driver)


def _given(handout: Handout, report: LoadReport, why: str) -> tuple[Handout, str]:
    noted = replace(handout, notes=(*handout.notes, *_warnings(report)))
    return noted, f"drive {report.drive.serial} encrypts: it was given the key ({why})"


def _warnings(report: LoadReport) -> tuple[str, ...]:
    return tuple(
        f"{check.name}: {check.detail}" for check in report.checks if check.status is Status.WARN
    )
