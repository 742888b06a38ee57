"""A session with a tape drive about encryption: what is done, in the words of SSC-5.

It drains unit attentions, waits while the drive is busy, and adjusts what is sent to what the
drive has shown of itself; which of these happened is listed in ``quirks``.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hwkm.errors import DeviceError, ParseError
from hwkm.keys import SecretBytes
from hwkm.scsi.ability import NEEDED_PAGES, EncryptionAbility, managed_by, why_not, why_not_here
from hwkm.scsi.commands import security_protocol_in, security_protocol_out, test_unit_ready
from hwkm.scsi.inventory import key_manager
from hwkm.scsi.optional import if_known
from hwkm.scsi.pages.base import PageIn
from hwkm.scsi.pages.capabilities import Capabilities
from hwkm.scsi.pages.directory import KeyFormat, KeyFormats, SupportedPages
from hwkm.scsi.pages.management import ManagementCapabilities
from hwkm.scsi.pages.next_block import NextBlockStatus
from hwkm.scsi.pages.random_number import RandomNumber
from hwkm.scsi.pages.set_encryption import PAGE, SetDataEncryption
from hwkm.scsi.pages.status import DecryptionMode, EncryptionMode, EncryptionStatus, Scope
from hwkm.scsi.pages.wrapping_key import WrappingKey, wrap
from hwkm.scsi.quirks import (
    LATE_CAPABILITIES,
    PAGE_LENGTH_TOO_LONG,
    PARAMETERS_CHANGED,
    RESET,
    BusyRetry,
    PageFilter,
    UnitAttentionDrain,
    filters_for,
    first_explaining,
)
from hwkm.scsi.sense import SenseKey
from hwkm.scsi.transport import CheckConditionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hwkm.scsi.pages.capabilities import Algorithm
    from hwkm.scsi.pages.kad import Kad
    from hwkm.scsi.transport import Transport

TAPE_DATA_ENCRYPTION = 0x20
"""SECURITY PROTOCOL."""

NOT_READY_YET = 0x04
BECOMING_READY = 0x01
NO_END_OF_DATA = 0x14

READY_SECONDS = 60.0
READY_PAUSE = 0.5

FIRST_INDEX = 1
"""ALGORITHM INDEX of nearly every drive: used only to clear one that does not name its own."""


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A key, and how it is to be set. ``key`` has 32 bytes.

    ``algorithm`` is out of the drive's page 0010h. With ``wrapping_key`` the key is sent wrapped
    (key format 02h), for the drive whose logical unit is called ``designator``.
    """

    key: SecretBytes
    algorithm: Algorithm
    kads: tuple[Kad, ...] = ()
    encryption_mode: EncryptionMode = EncryptionMode.ENCRYPT
    decryption_mode: DecryptionMode = DecryptionMode.MIXED
    scope: Scope = Scope.ALL_I_T_NEXUS
    lock: bool = False
    ckod: bool = False
    wrapping_key: WrappingKey | None = None
    designator: bytes = b""

    def page(self) -> SetDataEncryption:
        """Return the page that asks for it.

        :raises ParseError: if the wrapping key is not RSA-2048.
        :raises DeviceError: if it is to be wrapped, and there is no designator.
        """
        wrapped = self.wrapping_key and wrap(self.key, self.wrapping_key, self.designator)
        return SetDataEncryption(
            scope=self.scope,
            encryption_mode=self.encryption_mode,
            decryption_mode=self.decryption_mode,
            algorithm_index=self.algorithm.index,
            key_format=KeyFormat.WRAPPED if wrapped else KeyFormat.PLAIN,
            key=SecretBytes(wrapped) if wrapped else self.key,
            kads=self.kads,
            lock=self.lock,
            ckod=self.ckod,
        )


class TapeEncryption:
    """The session.

    :raises CartridgeChangedError: every method does if the cartridge may have been changed, except
        inside of :meth:`any_cartridge`.
    :raises DeviceError: every method does if the drive refuses, or can't be reached.
    """

    def __init__(
        self, transport: Transport, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._quirks: dict[str, None] = {}
        self._drain = UnitAttentionDrain(BusyRetry(transport, self.note, sleep), self.note)
        self._adopted: tuple[PageFilter, ...] = ()
        self._sleep = sleep
        self.transport: Transport = self._drain

    @property
    def name(self) -> str:
        """How people call the device."""
        return self.transport.name

    @property
    def quirks(self) -> tuple[str, ...]:
        """The quirks that the drive has shown, in the order in which it did."""
        return tuple(self._quirks)

    @property
    def attentions(self) -> int:
        """How many unit attentions were taken: what was read before one may be stale after it."""
        return len(self._drain.taken)

    @property
    def was_reset(self) -> bool:
        """Whether one of them told of a reset, or of parameters that somebody else changed."""
        taken = self._drain.taken
        return any(code[0] == RESET or code in PARAMETERS_CHANGED for code in taken)

    def note(self, quirk: str) -> None:
        """Put a quirk on the list."""
        self._quirks[quirk] = None

    def adopt(self, quirk: PageFilter) -> None:
        """Adjust all further pages to a quirk."""
        self._adopted += (quirk,)
        self.note(quirk.quirk)

    @contextmanager
    def any_cartridge(self) -> Iterator[None]:
        """Let a change of cartridge pass: nothing is known of it yet, or it does not matter."""
        with self._drain.any_cartridge():
            yield

    def is_ready(self, seconds: float = READY_SECONDS) -> bool:
        """Return whether a cartridge is loaded, after waiting for one that is becoming ready.

        :raises CheckConditionError: if the drive is not ready for another reason, or too long.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                self.transport.execute(test_unit_ready())
            except CheckConditionError as error:
                if error.sense.is_no_medium:
                    return False
                becoming = error.sense.matches(SenseKey.NOT_READY, NOT_READY_YET, BECOMING_READY)
                if not becoming or time.monotonic() > end:
                    raise
                self._sleep(READY_PAUSE)
            else:
                return True

    # Pages

    def pages(self, code: PageIn = PageIn.IN_SUPPORT) -> tuple[int, ...]:
        """Return the pages it gives, or takes (OUT_SUPPORT); none if it knows no encryption."""
        data = self._optional(code)
        return () if data is None else SupportedPages.parse(data, code).pages

    def capabilities(self) -> Capabilities | None:
        """Return page 0010h; None from a drive that can't tell without a cartridge."""
        try:
            found = Capabilities.parse(self._page(PageIn.CAPABILITIES))
        except CheckConditionError as error:
            if not error.sense.is_no_medium:
                raise
            self.note(LATE_CAPABILITIES)
            return None
        algorithm = found.gcm()
        for quirk in () if algorithm is None else filters_for(algorithm):
            self.note(quirk.quirk)
        return found

    def management(self) -> ManagementCapabilities | None:
        """Return page 0012h; None if the drive has none."""
        data = self._optional(PageIn.MANAGEMENT_CAPABILITIES)
        return None if data is None else ManagementCapabilities.parse(data)

    def key_formats(self) -> tuple[KeyFormat | int, ...]:
        """Return how the drive takes keys; a drive that does not say takes them plain."""
        data = self._optional(PageIn.KEY_FORMATS)
        return (KeyFormat.PLAIN,) if data is None else KeyFormats.parse(data).formats

    def status(self) -> EncryptionStatus:
        """Return page 0020h: the parameters in force."""
        data = self._page(PageIn.STATUS)
        status = EncryptionStatus.parse(data)
        if 4 + int.from_bytes(data[2:4]) > len(data):
            self.note(PAGE_LENGTH_TOO_LONG)
        return status

    def next_block(self) -> NextBlockStatus | None:
        """Return page 0021h; None on a blank tape, and without one."""
        try:
            return NextBlockStatus.parse(self._page(PageIn.NEXT_BLOCK_STATUS))
        except CheckConditionError as error:
            if error.sense.is_no_medium or error.sense.matches(
                SenseKey.BLANK_CHECK, NO_END_OF_DATA
            ):
                return None
            raise

    def wrapping_key(self) -> WrappingKey | None:
        """Return page 0031h, the key to which keys for the drive are wrapped; None if none."""
        data = self._optional(PageIn.WRAPPING_PUBLIC_KEY)
        return None if data is None else WrappingKey.parse(data)

    def random(self) -> bytes | None:
        """Return 32 random bytes of the drive's; None if it gives none."""
        data = self._optional(PageIn.RANDOM_NUMBER)
        return None if data is None else RandomNumber.parse(data).number

    def ability(self) -> EncryptionAbility:
        """Find out whether the drive can encrypt the cartridge in it, and if not, why."""
        if not set(self.pages()) >= NEEDED_PAGES or PAGE not in self.pages(PageIn.OUT_SUPPORT):
            return EncryptionAbility(False, "it has no tape data encryption that a host could use")
        mounted, capabilities = self.is_ready(), self.capabilities()
        if capabilities is None:
            return EncryptionAbility(False, "it tells its abilities with a cartridge only")
        control = self.status().controlled_by
        other = managed_by(control, key_manager(self.transport), capabilities)
        unreadable = other or why_not(capabilities, mounted)
        trouble = unreadable or why_not_here(capabilities)
        algorithm = capabilities.gcm()
        return EncryptionAbility(
            can_encrypt=not trouble,
            can_decrypt=not unreadable,
            by_others=bool(other),
            reason=trouble or "it encrypts AES-256-GCM itself, at a host's bidding",
            algorithm=algorithm,
            formats=self.key_formats(),
            management=self.management(),
            controlled_by=control,
        )

    # Keys

    def set_key(self, request: KeyRequest) -> SetDataEncryption:
        """Set a key, and return the page that the drive took, with the key left out.

        A page that is refused because of a known quirk is sent again without what was refused.
        """
        page = self._page_for(request)
        while True:
            try:
                self._send(page)
            except CheckConditionError as error:
                quirk = first_explaining(error.sense, page, self._adopted)
                if quirk is None:
                    raise
                self.adopt(quirk)
                page = quirk.adjusted(page)
            else:
                return _without_key(page)

    def as_sent(self, request: KeyRequest) -> SetDataEncryption:
        """Return the page that goes out for a request, with the key left out."""
        return _without_key(self._page_for(request))

    def clear(self) -> None:
        """Take the key out: both modes DISABLE. Whether it is out, :meth:`status` says."""
        page = SetDataEncryption(
            scope=self._clearing_scope(),
            encryption_mode=EncryptionMode.DISABLE,
            decryption_mode=DecryptionMode.DISABLE,
            algorithm_index=self._index(),
        )
        self._send(page)

    def _clearing_scope(self) -> Scope:
        """Return the widest scope that the drive has; if it can't be asked, the widest there is."""
        with suppress(DeviceError, ParseError):
            management = self.management()
            if management is not None and not management.all_i_t_nexus:
                return Scope.LOCAL
        return Scope.ALL_I_T_NEXUS

    def _page_for(self, request: KeyRequest) -> SetDataEncryption:
        page = request.page()
        for quirk in (*filters_for(request.algorithm), *self._adopted):
            page = quirk.adjusted(page)
        return page

    def _index(self) -> int:
        """Return an index that the drive knows, for a page in which none is used."""
        capabilities = self.capabilities()
        if capabilities is None:
            return self.status().algorithm_index or FIRST_INDEX
        known = capabilities.gcm() or next(iter(capabilities.algorithms), None)
        return FIRST_INDEX if known is None else known.index

    def _send(self, page: SetDataEncryption) -> None:
        command = security_protocol_out(TAPE_DATA_ENCRYPTION, PAGE, page.pack())
        self.transport.execute(command)

    def _page(self, code: PageIn) -> bytes:
        return self.transport.execute(security_protocol_in(TAPE_DATA_ENCRYPTION, code))

    def _optional(self, code: PageIn) -> bytes | None:
        """Return a page; None from a drive that does not know it."""
        return if_known(self.transport, security_protocol_in(TAPE_DATA_ENCRYPTION, code))


def _without_key(page: SetDataEncryption) -> SetDataEncryption:
    return replace(page, key=SecretBytes(b""))
