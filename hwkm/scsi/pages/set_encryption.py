"""Page 0010h of SECURITY PROTOCOL OUT, Set Data Encryption: hands the drive a key (SSC-5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, unique

from hwkm.errors import ParseError
from hwkm.keys import SecretBytes
from hwkm.scsi.pages.base import MAX_PAGE_LENGTH, PageOut, bits, flag, member, open_page
from hwkm.scsi.pages.directory import KeyFormat
from hwkm.scsi.pages.kad import Kad, KadFormat, pack_kads, parse_kads
from hwkm.scsi.pages.status import DecryptionMode, EncryptionMode, ModeCheck, Scope

PAGE = int(PageOut.SET_DATA_ENCRYPTION)

LEAST_BYTES = 20
"""Length up to the key."""

RESERVED = bytes(7)
"""Bytes 11 to 17: one that is not zero makes drives refuse the page."""


@unique
class RawReadControl(IntEnum):
    """RDMC: whether blocks written from now on may be read as ciphertext."""

    DEFAULT = 0
    ALLOW = 2
    PREVENT = 3


@dataclass(frozen=True, slots=True)
class SetDataEncryption:
    """The page. Clearing is both modes DISABLE, without key and KADs.

    ``algorithm_index`` is the drive's own (page 0010h of SECURITY PROTOCOL IN). ``key`` has 32
    bytes in the format PLAIN. ``lock``: writing fails once another host has set parameters.
    ``sdk``: the key is a supplemental one that only decrypts. ``ckod``, ``ckorp``, ``ckorl``: the
    drive drops it on demount, on reservation preempted, on reservation lost. ``kad_format`` other
    than zero needs an algorithm with ``kad_format``.
    """

    scope: Scope | int
    encryption_mode: EncryptionMode | int
    decryption_mode: DecryptionMode | int
    algorithm_index: int
    key_format: KeyFormat | int = KeyFormat.PLAIN
    key: SecretBytes = field(default_factory=lambda: SecretBytes(b""))
    kads: tuple[Kad, ...] = ()
    lock: bool = False
    ceem: ModeCheck = ModeCheck.DEFAULT
    rdmc: RawReadControl | int = RawReadControl.DEFAULT
    sdk: bool = False
    ckod: bool = False
    ckorp: bool = False
    ckorl: bool = False
    kad_format: KadFormat | int = KadFormat.UNSPECIFIED

    def pack(self) -> SecretBytes:
        """Return the page; it holds the key.

        :raises ValueError: if a field has not room for its value, the page would be longer than
            its length can say, or a type of KAD stands twice.
        """
        fields = bytes((self._scope_byte(), self._control_byte(), *self._numbers())) + RESERVED
        tail = len(self.key).to_bytes(2) + self.key.expose() + pack_kads(self.kads)
        length = len(fields) + len(tail)
        if length > MAX_PAGE_LENGTH:
            raise ValueError("the page Set Data Encryption has at most 65,539 bytes")
        return SecretBytes(PAGE.to_bytes(2) + length.to_bytes(2) + fields + tail)

    @classmethod
    def parse(cls, data: bytes) -> SetDataEncryption:
        """Read a page, as strictly as drives do.

        :raises ParseError: if it is another page, its lengths don't add up, a reserved bit is set,
            or its KADs are not one of each type in ascending order.
        """
        page, problems = open_page(data, PAGE, LEAST_BYTES)
        end = LEAST_BYTES + int.from_bytes(page[18:20])
        if problems or end > len(page):
            raise ParseError("the lengths in the page Set Data Encryption don't add up")
        kads, problems = parse_kads(page[end:])
        if problems:
            raise ParseError("the KADs of the page Set Data Encryption are malformed")
        found = cls._build(page, SecretBytes(page[LEAST_BYTES:end]), kads)
        if found.pack() != SecretBytes(page):
            raise ParseError("the page Set Data Encryption has reserved bits set or KADs astray")
        return found

    @classmethod
    def _build(cls, page: bytes, key: SecretBytes, kads: tuple[Kad, ...]) -> SetDataEncryption:
        return cls(
            scope=member(Scope, bits(page[4], 7, 5)),
            encryption_mode=member(EncryptionMode, page[6]),
            decryption_mode=member(DecryptionMode, page[7]),
            algorithm_index=page[8],
            key_format=member(KeyFormat, page[9]),
            key=key,
            kads=kads,
            lock=flag(page[4], 0),
            ceem=ModeCheck(bits(page[5], 7, 6)),
            rdmc=member(RawReadControl, bits(page[5], 5, 4)),
            sdk=flag(page[5], 3),
            ckod=flag(page[5], 2),
            ckorp=flag(page[5], 1),
            ckorl=flag(page[5], 0),
            kad_format=member(KadFormat, page[10]),
        )

    def _scope_byte(self) -> int:
        return self.scope << 5 | self.lock

    def _control_byte(self) -> int:
        if not 0 <= self.rdmc <= 3:
            raise ValueError("RDMC has two bits")
        key = self.sdk << 3 | self.ckod << 2 | self.ckorp << 1 | self.ckorl
        return self.ceem << 6 | self.rdmc << 4 | key

    def _numbers(self) -> tuple[int, ...]:
        modes = (self.encryption_mode, self.decryption_mode)
        return (*modes, self.algorithm_index, self.key_format, self.kad_format)
