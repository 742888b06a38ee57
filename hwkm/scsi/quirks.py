"""How drives differ from the standard, and what is done about it: one small class for each quirk.

Two of them stand between the session and the device and see every command; the others change the
page Set Data Encryption before it goes out. None is switched on by a drive's name: each shows
itself, in a page, in a refusal or in what is read back.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from hwkm.errors import DeviceError
from hwkm.scsi.pages.capabilities import Algorithm, DecryptionKad
from hwkm.scsi.pages.kad import Kad, KadType
from hwkm.scsi.pages.set_encryption import LEAST_BYTES, SetDataEncryption
from hwkm.scsi.pages.status import EncryptionMode
from hwkm.scsi.sense import Sense, SenseKey
from hwkm.scsi.transport import BusyError, CheckConditionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hwkm.scsi.transport import Command, Transport

MAX_ATTENTIONS = 8
"""More unit attentions than that in a row are no queue that drains."""

BUSY_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds before each further try of a command that ended with BUSY."""

MEDIUM_MAY_HAVE_CHANGED = 0x28
RESET = 0x29
"""ADDITIONAL SENSE CODE of all resets, power on among them (SPC-5, table 49)."""

PARAMETERS_CHANGED = {(0x2A, 0x11), (0x2A, 0x12), (0x2A, 0x13)}
"""Data encryption parameters were changed by another host or by the drive; the key instance counter
has changed (SSC-5)."""

INVALID_FIELD_IN_PARAMETER_LIST = (0x26, 0x00)
CONTROL_BYTE, CKOD_BIT = 5, 2
"""Where CKOD stands in the page Set Data Encryption."""

PAGE_LENGTH_TOO_LONG = "page-length-too-long"
"""Page 0020h announces more bytes than come; what comes is taken."""

LATE_CAPABILITIES = "late-capabilities"
"""Page 0010h can't be read without a cartridge; it is read once there is one."""

SCOPE_NOT_REPORTED = "scope-not-reported"
"""Page 0020h gives the same scopes whatever was set, so that the scope can't be compared."""


class CartridgeChangedError(DeviceError):
    """The drive says that the cartridge may be another one: what was known of it is void."""


# Filters: they see every command


class Filter(ABC):
    """A transport around another one; ``note`` is told the quirk when it shows."""

    quirk: ClassVar[str]

    def __init__(self, inner: Transport, note: Callable[[str], None]) -> None:
        self._inner = inner
        self._note = note

    @property
    def name(self) -> str:
        """How people call the device."""
        return self._inner.name

    @abstractmethod
    def execute(self, command: Command) -> bytes:
        """Run ``command``; return data-in, cut to what was transferred."""

    def close(self) -> None:
        """Give the device up."""
        self._inner.close()


class BusyRetry(Filter):
    """Sends a command again, some seconds long, that the drive had no time for (SAM-5, 5.3)."""

    quirk = "busy"

    def __init__(
        self,
        inner: Transport,
        note: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(inner, note)
        self._sleep = sleep

    def execute(self, command: Command) -> bytes:
        """Run ``command``.

        :raises BusyError: if the drive is busy for longer than some seconds.
        """
        for pause in BUSY_PAUSES:
            try:
                return self._inner.execute(command)
            except BusyError:
                self._note(self.quirk)
                self._sleep(pause)
        return self._inner.execute(command)


class UnitAttentionDrain(Filter):
    """Sends a command again that was not run because the drive had an event to report.

    ``taken`` has the ASC and ASCQ of each: what was read before one may be stale after it, and no
    other program of this host is told of it.
    """

    quirk = "unit-attention"

    def __init__(self, inner: Transport, note: Callable[[str], None]) -> None:
        super().__init__(inner, note)
        self.taken: list[tuple[int, int]] = []
        self._any_cartridge = False

    @contextmanager
    def any_cartridge(self) -> Iterator[None]:
        """Let a change of cartridge pass: nothing is known of the cartridge yet, or any longer."""
        before, self._any_cartridge = self._any_cartridge, True
        try:
            yield
        finally:
            self._any_cartridge = before

    def execute(self, command: Command) -> bytes:
        """Run ``command``.

        :raises CartridgeChangedError: if the cartridge may be another one, unless that may be.
        :raises CheckConditionError: if the events don't end.
        """
        for _ in range(MAX_ATTENTIONS):
            try:
                return self._inner.execute(command)
            except CheckConditionError as error:
                if not error.sense.is_unit_attention or error.sense.deferred:
                    raise
                self._take(error)
        return self._inner.execute(command)

    def _take(self, error: CheckConditionError) -> None:
        self.taken.append((error.sense.asc, error.sense.ascq))
        self._note(self.quirk)
        if error.sense.asc == MEDIUM_MAY_HAVE_CHANGED and not self._any_cartridge:
            raise CartridgeChangedError(
                f"{self.name}: the cartridge may have been changed meanwhile "
                f"({error.sense.number})",
                hint="Nothing else may load or unload the drive at this time; then start anew",
            ) from error


# What changes the page Set Data Encryption


class PageFilter(ABC):
    """Makes a page into one that the drive takes."""

    @property
    @abstractmethod
    def quirk(self) -> str:
        """What it is called where quirks are listed."""

    @abstractmethod
    def adjusted(self, page: SetDataEncryption) -> SetDataEncryption:
        """Return the page as it is to be sent."""


@dataclass(frozen=True, slots=True)
class AlgorithmIndexZero(PageFilter):
    """The drive calls its algorithm 00h, which others refuse: the page stays as it is."""

    quirk = "algorithm-index-0"

    def adjusted(self, page: SetDataEncryption) -> SetDataEncryption:
        """Return the page."""
        return page


@dataclass(frozen=True, slots=True)
class PaddedKad(PageFilter):
    """A KAD has exactly ``length`` bytes; stenc fills texts with spaces, and so is it done here."""

    kind: KadType
    length: int

    @property
    def quirk(self) -> str:
        """``padded-ukad`` or ``padded-akad``."""
        return "padded-ukad" if self.kind is KadType.U_KAD else "padded-akad"

    @property
    def _filler(self) -> bytes:
        return b" " if self.kind is KadType.U_KAD else b"\0"

    def adjusted(self, page: SetDataEncryption) -> SetDataEncryption:
        """Return the page with this KAD filled up, and with one of filler only if it has none."""
        values = {KadType(kad.type): kad.value for kad in page.kads}
        values[self.kind] = values.get(self.kind, b"").ljust(self.length, self._filler)
        kads = tuple(Kad(kind, values[kind]) for kind in sorted(values))
        return replace(page, kads=kads)


@dataclass(frozen=True, slots=True)
class NoKadWhenOff(PageFilter):
    """KADs name what is written: drives refuse them with a key that only decrypts."""

    quirk = "no-kad-when-off"

    def adjusted(self, page: SetDataEncryption) -> SetDataEncryption:
        """Return the page, without KADs if it does not encrypt."""
        if page.encryption_mode != EncryptionMode.DISABLE:
            return page
        return replace(page, kads=())


class Refused(PageFilter):
    """A filter that is taken on after the drive refused a page because of what it takes out."""

    @abstractmethod
    def explains(self, sense: Sense, page: SetDataEncryption) -> bool:
        """Return whether ``page`` may have been refused for what this filter takes out."""


@dataclass(frozen=True, slots=True)
class NoCkod(Refused):
    """The drive offers CKOD and refuses it: the key has to be taken out before the cartridge."""

    quirk = "no-ckod"

    def explains(self, sense: Sense, page: SetDataEncryption) -> bool:
        """Return whether the drive objects to CKOD, or to something that it does not name."""
        return page.ckod and _objects_to(sense, CONTROL_BYTE, CONTROL_BYTE + 1, CKOD_BIT)

    def adjusted(self, page: SetDataEncryption) -> SetDataEncryption:
        """Return the page without CKOD."""
        return replace(page, ckod=False)


@dataclass(frozen=True, slots=True)
class OneKadOnly(Refused):
    """The drive takes one KAD, or keeps only the first: the key's name goes alone."""

    quirk = "one-kad-only"

    def explains(self, sense: Sense, page: SetDataEncryption) -> bool:
        """Return whether the drive objects to the KADs, or to something that it does not name."""
        first = LEAST_BYTES + len(page.key)
        return len(page.kads) > 1 and _objects_to(sense, first, first + (1 << 16))

    def adjusted(self, page: SetDataEncryption) -> SetDataEncryption:
        """Return the page with the last of its KADs, which is the A-KAD where it has one."""
        return replace(page, kads=page.kads[-1:])


ON_REFUSAL: tuple[Refused, ...] = (NoCkod(), OneKadOnly())
"""In the order in which they are tried where the drive does not say what it objects to."""


def filters_for(algorithm: Algorithm) -> tuple[PageFilter, ...]:
    """Return the filters that the drive's own description of an algorithm asks for."""
    found: list[PageFilter] = []
    if algorithm.index == 0:
        found.append(AlgorithmIndexZero())
    if algorithm.fixed_ukad:
        found.append(PaddedKad(KadType.U_KAD, algorithm.max_ukad))
    if algorithm.fixed_akad:
        found.append(PaddedKad(KadType.A_KAD, algorithm.max_akad))
    if algorithm.dkad in (DecryptionKad.UNSPECIFIED, DecryptionKad.NOT_ALLOWED):
        found.append(NoKadWhenOff())
    return tuple(found)


def first_explaining(
    sense: Sense, page: SetDataEncryption, known: tuple[PageFilter, ...]
) -> Refused | None:
    """Return the filter that is to be tried after a refusal; None if none explains it."""
    fresh = (one for one in ON_REFUSAL if one not in known)
    return next((one for one in fresh if one.explains(sense, page)), None)


def _objects_to(sense: Sense, first: int, end: int, bit: int | None = None) -> bool:
    """Return whether INVALID FIELD IN PARAMETER LIST points at these bytes, or nowhere."""
    if sense.deferred or sense.code != (
        SenseKey.ILLEGAL_REQUEST,
        *INVALID_FIELD_IN_PARAMETER_LIST,
    ):
        return False
    pointer = sense.field_pointer
    if pointer is None:
        return True
    there = not pointer.in_cdb and first <= pointer.byte < end
    return there and (bit is None or pointer.bit in (None, bit))
