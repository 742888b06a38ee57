"""Pages against drives that pack and read them with code of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from hwkm.keys import SecretBytes
from hwkm.scsi.commands import rewind, security_protocol_in, security_protocol_out, write_block
from hwkm.scsi.emulator import PROFILES, Drive, EmulatorTransport, create
from hwkm.scsi.inventory import identify_drive
from hwkm.scsi.pages.base import InformationPage, PageIn, PageOut
from hwkm.scsi.pages.capabilities import (
    AES_256_GCM,
    Algorithm,
    Capabilities,
    ConfigurationPrevented,
    ExternalControl,
)
from hwkm.scsi.pages.directory import (
    Certificate,
    KeyFormat,
    KeyFormats,
    SupportedPages,
    SupportedProtocols,
)
from hwkm.scsi.pages.kad import Kad, KadType
from hwkm.scsi.pages.management import ManagementCapabilities
from hwkm.scsi.pages.next_block import BlockEncryption, NextBlockStatus
from hwkm.scsi.pages.random_number import RandomNumber
from hwkm.scsi.pages.set_encryption import PAGE, SetDataEncryption
from hwkm.scsi.pages.status import (
    ControlledBy,
    DecryptionMode,
    EncryptionMode,
    EncryptionStatus,
    Scope,
)
from hwkm.scsi.pages.wrapping_key import WrappingKey, wrap
from tests.scsi.pages import vectors

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENCRYPTING = sorted(set(PROFILES) - {"ibm-lto-3"})
OWN_KEYS = sorted(set(ENCRYPTING) - {"library-managed"})
WRAPPING = ("hp-lto-6", "hpe-lto-9")


class Page(Protocol):
    @property
    def problems(self) -> tuple[str, ...]: ...


PARSERS: dict[int, Callable[[bytes], Page]] = {
    PageIn.IN_SUPPORT: SupportedPages.parse,
    PageIn.OUT_SUPPORT: lambda data: SupportedPages.parse(data, PageIn.OUT_SUPPORT),
    PageIn.CAPABILITIES: Capabilities.parse,
    PageIn.KEY_FORMATS: KeyFormats.parse,
    PageIn.MANAGEMENT_CAPABILITIES: ManagementCapabilities.parse,
    PageIn.STATUS: EncryptionStatus.parse,
    PageIn.NEXT_BLOCK_STATUS: NextBlockStatus.parse,
    PageIn.RANDOM_NUMBER: RandomNumber.parse,
    PageIn.WRAPPING_PUBLIC_KEY: WrappingKey.parse,
}


def loaded(path: Path, profile: str) -> EmulatorTransport:
    create(path, profile, cartridge="HWK001L8")
    drive = EmulatorTransport(path)
    drive.execute(write_block(b"label"))
    drive.execute(rewind())
    return drive


def read(drive: EmulatorTransport, page: int, protocol: int = 0x20) -> bytes:
    return drive.execute(security_protocol_in(protocol, page))


def status(drive: EmulatorTransport) -> EncryptionStatus:
    return EncryptionStatus.parse(read(drive, PageIn.STATUS))


def next_block(drive: EmulatorTransport) -> NextBlockStatus:
    return NextBlockStatus.parse(read(drive, PageIn.NEXT_BLOCK_STATUS))


def algorithm(drive: EmulatorTransport) -> Algorithm:
    return Capabilities.parse(read(drive, PageIn.CAPABILITIES)).algorithms[0]


def send(drive: EmulatorTransport, request: SetDataEncryption) -> None:
    drive.execute(security_protocol_out(0x20, PAGE, request.pack()))


def kads(which: Algorithm) -> tuple[Kad, ...]:
    offered = (
        (which.max_ukad, Kad(KadType.U_KAD, vectors.U_KAD)),
        (which.max_akad, Kad(KadType.A_KAD, vectors.A_KAD)),
    )
    return tuple(kad for room, kad in offered if len(kad.value) <= room)


def key_request(which: Algorithm) -> SetDataEncryption:
    return SetDataEncryption(
        Scope.ALL_I_T_NEXUS,
        EncryptionMode.ENCRYPT,
        DecryptionMode.MIXED,
        which.index,
        key=SecretBytes(vectors.KEY),
        kads=kads(which),
        ckod=True,
    )


def clear_request(which: Algorithm) -> SetDataEncryption:
    off = (EncryptionMode.DISABLE, DecryptionMode.DISABLE)
    return SetDataEncryption(Scope.ALL_I_T_NEXUS, *off, which.index)


@pytest.mark.parametrize("profile", ENCRYPTING)
def test_every_page_it_lists(tmp_path: Path, profile: str) -> None:
    drive = loaded(tmp_path / "drive", profile)
    listed = SupportedPages.parse(read(drive, PageIn.IN_SUPPORT)).pages
    assert set(listed) <= set(PARSERS)
    for number in listed:
        assert PARSERS[number](read(drive, number)).problems == ()
    out = SupportedPages.parse(read(drive, PageIn.OUT_SUPPORT), PageIn.OUT_SUPPORT)
    assert out.pages == (PageOut.SET_DATA_ENCRYPTION,)


def test_protocols_and_certificate(tmp_path: Path) -> None:
    drive = loaded(tmp_path / "drive", "ibm-lto-8")
    protocols = read(drive, InformationPage.SUPPORTED_PROTOCOLS, 0x00)
    assert SupportedProtocols.parse(protocols) == SupportedProtocols((0x00, 0x20))
    certificate = read(drive, InformationPage.CERTIFICATE, 0x00)
    assert Certificate.parse(certificate) == Certificate(b"")


def test_wrapping_key_is_usable(tmp_path: Path) -> None:
    drive = loaded(tmp_path / "drive", "ibm-lto-8")
    page = read(drive, PageIn.WRAPPING_PUBLIC_KEY)
    found = WrappingKey.parse(page)
    assert found.rsa().key_size == 2048
    assert found.pack() == page


@pytest.mark.parametrize("profile", OWN_KEYS)
def test_key_and_what_it_writes(tmp_path: Path, profile: str) -> None:
    drive = loaded(tmp_path / "drive", profile)
    which = algorithm(drive)
    before = status(drive)
    assert before.is_clear
    send(drive, key_request(which))
    now = status(drive)
    assert (now.encryption_mode, now.decryption_mode) == (2, 3)
    assert now.algorithm_index == which.index
    assert now.key_scope == now.nexus_scope == Scope.ALL_I_T_NEXUS
    assert now.key_instance_counter != before.key_instance_counter
    for kad in kads(which):
        assert now.kad(KadType(kad.type)) == kad.value
    assert next_block(drive).encryption == BlockEncryption.CLEAR


@pytest.mark.parametrize("profile", sorted(set(OWN_KEYS) - {"ibm-3592"}))
def test_block_is_readable_until_the_key_is_gone(tmp_path: Path, profile: str) -> None:
    drive = loaded(tmp_path / "drive", profile)
    which = algorithm(drive)
    send(drive, key_request(which))
    drive.execute(write_block(b"data"))
    drive.execute(rewind())
    found = next_block(drive)
    assert found.encryption == BlockEncryption.READABLE
    assert found.algorithm_index == which.index
    for kad in kads(which):
        assert found.kad(KadType(kad.type)) == kad.value
    send(drive, clear_request(which))
    assert status(drive).is_clear
    gone = next_block(drive)
    assert gone.encryption == BlockEncryption.UNREADABLE
    for kad in kads(which):
        assert gone.kad(KadType(kad.type)) == kad.value


@pytest.mark.parametrize("profile", WRAPPING)
def test_wrapped_key_opens_to_the_plain_one(tmp_path: Path, profile: str) -> None:
    drive = loaded(tmp_path / "drive", profile)
    which = algorithm(drive)
    assert KeyFormat.WRAPPED in KeyFormats.parse(read(drive, PageIn.KEY_FORMATS)).formats
    wrapping_key = WrappingKey.parse(read(drive, PageIn.WRAPPING_PUBLIC_KEY))
    designator = identify_drive(drive).designator
    field = wrap(SecretBytes(vectors.KEY), wrapping_key, designator)
    request = SetDataEncryption(
        Scope.ALL_I_T_NEXUS,
        EncryptionMode.ENCRYPT,
        DecryptionMode.DECRYPT,
        which.index,
        key_format=KeyFormat.WRAPPED,
        key=SecretBytes(field),
        kads=kads(which),
    )
    send(drive, request)
    drive.execute(write_block(b"data"))
    send(drive, clear_request(which))
    send(drive, key_request(which))
    drive.execute(rewind())
    assert next_block(drive).encryption == BlockEncryption.READABLE


def test_capabilities_say_who_may_set_a_key(tmp_path: Path) -> None:
    drive = loaded(tmp_path / "drive", "library-managed")
    found = Capabilities.parse(read(drive, PageIn.CAPABILITIES))
    assert found.configuration_prevented == ConfigurationPrevented.PREVENTED
    assert found.external_control == ExternalControl.CAPABLE
    assert status(drive).controlled_by == ControlledBy.LIBRARY


def test_capabilities_depend_on_the_medium(tmp_path: Path) -> None:
    path = tmp_path / "drive"
    drive = loaded(path, "hp-lto-6")
    found = Capabilities.parse(read(drive, PageIn.CAPABILITIES)).gcm()
    assert found is not None
    assert (found.index, found.code, found.max_akad) == (1, AES_256_GCM, 60)
    assert found.valid_for_volume
    Drive(path).eject()
    empty = algorithm(drive)
    assert not empty.valid_for_volume


def test_status_page_that_lies_about_its_length(tmp_path: Path) -> None:
    path = tmp_path / "drive"
    drive = loaded(path, "ibm-lto-8")
    send(drive, key_request(algorithm(drive)))
    honest = status(drive)
    Drive(path).tell_lie("page-length")
    lying = status(drive)
    assert honest.problems == ()
    assert len(lying.problems) == 1
    assert lying.kads == honest.kads
