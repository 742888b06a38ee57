"""The session: on every kind of emulated drive, and on drives that say strange things."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from hwkm.errors import ParseError
from hwkm.keys import SecretBytes
from hwkm.scsi.ability import managed_by, why_not, why_not_here
from hwkm.scsi.commands import write_block
from hwkm.scsi.completion import Completion, Port, Status
from hwkm.scsi.emulator import PROFILES, Drive, EmulatorTransport, create
from hwkm.scsi.encryption import KeyRequest, TapeEncryption
from hwkm.scsi.mode_pages import KeyManager
from hwkm.scsi.pages.base import PageIn
from hwkm.scsi.pages.capabilities import (
    Ability,
    Algorithm,
    Capabilities,
    ConfigurationPrevented,
    PositionValidity,
)
from hwkm.scsi.pages.directory import KeyFormat
from hwkm.scsi.pages.kad import Kad, KadType
from hwkm.scsi.pages.next_block import BlockEncryption
from hwkm.scsi.pages.status import ControlledBy, DecryptionMode, EncryptionMode, Scope
from hwkm.scsi.quirks import CartridgeChangedError
from hwkm.scsi.transport import CheckConditionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hwkm.scsi.transport import Command

    Maker = Callable[..., tuple[TapeEncryption, Drive]]

KEY = SecretBytes(bytes(range(32)))
NAME = Kad(KadType.A_KAD, b"HWKM00000001")
ENCRYPTING = [name for name, profile in PROFILES.items() if profile.encrypts]


@pytest.fixture(name="templates", scope="session")
def _templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sessions")
    for name in PROFILES:
        create(directory / name, name)
    return directory


@pytest.fixture(name="make")
def _make(templates: Path, tmp_path: Path) -> Maker:
    def make(
        profile: str = "ibm-lto-8", cartridge: str = "HWK001L8", quirks: tuple[str, ...] = ()
    ) -> tuple[TapeEncryption, Drive]:
        path = tmp_path / profile
        if quirks:
            create(path, profile, quirks=quirks)
        else:
            shutil.copy(templates / profile, path)
        drive = Drive(path)
        if cartridge:
            drive.insert(cartridge)
            drive.forget_attentions()
        return TapeEncryption(EmulatorTransport(path), sleep=lambda _: None), drive

    return make


def algorithm(session: TapeEncryption) -> Algorithm:
    capabilities = session.capabilities()
    assert capabilities is not None
    found = capabilities.gcm()
    assert found is not None
    return found


# Pages


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("cartridge", ["", "HWK001L8"])
def test_every_page_of_every_drive(make: Maker, profile: str, cartridge: str) -> None:
    session, _ = make(profile, cartridge)
    pages = session.pages()
    if profile == "ibm-lto-3":
        assert pages == session.pages(PageIn.OUT_SUPPORT) == ()
        assert session.management() is None
        assert session.wrapping_key() is None
        assert session.random() is None
        assert session.key_formats() == (KeyFormat.PLAIN,)
        with pytest.raises(CheckConditionError, match="5/20/00"):
            session.status()
        return
    assert session.pages(PageIn.OUT_SUPPORT) == (0x0010,)
    assert session.capabilities() is not None
    assert session.management() is not None
    assert KeyFormat.PLAIN in session.key_formats()
    assert session.status().is_clear
    assert (session.wrapping_key() is not None) is (PageIn.WRAPPING_PUBLIC_KEY in pages)
    number = session.random()
    assert (number is not None) is (PageIn.RANDOM_NUMBER in pages)
    assert number is None or len(number) == 32
    block = session.next_block()
    blank = not cartridge or profile == "hp-lto-4"
    assert (block is None) is blank
    assert session.is_ready() is bool(cartridge)


def test_quirks_of_an_honest_drive(make: Maker) -> None:
    session, drive = make("hp-lto-6")
    session.ability()
    session.status()
    assert session.quirks == ()
    assert session.name == drive.name


def test_quirks_that_show(make: Maker) -> None:
    session, drive = make("quantum-lto-4", quirks=("padded-ukad",))
    drive.tell_lie("busy")
    drive.tell_lie("page-length")
    drive.queue_sense(6, 0x2A, 0x01)
    status = session.status()
    assert status.problems == ("page 0020h announces 36 bytes, 24 came",)
    session.capabilities()
    assert session.quirks == (
        "busy",
        "unit-attention",
        "page-length-too-long",
        "algorithm-index-0",
        "padded-ukad",
        "no-kad-when-off",
    )
    assert session.attentions == 1


def test_a_changed_cartridge(make: Maker) -> None:
    session, drive = make()
    drive.insert("HWK002L8")
    with pytest.raises(CartridgeChangedError):
        session.status()
    drive.insert("HWK001L8")
    with session.any_cartridge():
        assert session.is_ready()
    assert session.status().is_clear


class NotReady(Port):
    """Becomes ready after some tries."""

    name = "slow"

    def __init__(self, *codes: tuple[int, int]) -> None:
        self.codes = [*codes]

    def complete(self, command: Command) -> Completion:
        if not self.codes:
            return Completion()
        head = bytes((0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, *self.codes.pop(0)))
        return Completion(status=Status.CHECK_CONDITION, sense=head + bytes(4))

    def close(self) -> None:
        pass


def test_becoming_ready() -> None:
    slept: list[float] = []
    session = TapeEncryption(NotReady(*[(4, 1)] * 3), sleep=slept.append)
    assert session.is_ready()
    assert len(slept) == 3
    with pytest.raises(CheckConditionError, match="2/04/01"):
        TapeEncryption(NotReady((4, 1), (4, 1)), sleep=slept.append).is_ready(0)
    with pytest.raises(CheckConditionError, match="2/30/03"):
        TapeEncryption(NotReady((0x30, 3))).is_ready()
    assert not TapeEncryption(NotReady((0x3A, 0))).is_ready()


# Keys


@pytest.mark.parametrize("profile", [name for name in ENCRYPTING if name != "library-managed"])
def test_set_and_clear(make: Maker, profile: str) -> None:
    session, drive = make(profile, cartridge="HWK001L8" if profile != "t10000" else "")
    request = KeyRequest(KEY, algorithm(session), (NAME,))
    sent = session.set_key(request)
    assert sent == session.as_sent(request)
    assert len(sent.key) == 0
    status = session.status()
    assert status.encryption_mode is EncryptionMode.ENCRYPT
    assert status.decryption_mode is DecryptionMode.MIXED
    assert status.key_scope is Scope.ALL_I_T_NEXUS
    assert status.kad(KadType.A_KAD) == NAME.value
    session.clear()
    assert session.status().is_clear
    assert drive.state()["shared"]["key"] is False


def test_a_key_that_only_decrypts(make: Maker) -> None:
    session, _ = make("ibm-lto-8")
    session.set_key(KeyRequest(KEY, algorithm(session), (NAME,)))
    session.transport.execute(write_block(b"block"))
    off = EncryptionMode.DISABLE
    sent = session.set_key(KeyRequest(KEY, algorithm(session), (NAME,), encryption_mode=off))
    assert sent.kads == ()
    status = session.status()
    assert (status.encryption_mode, status.decryption_mode) == (0, 3)


@pytest.mark.parametrize("quirks", [("no-ckod",), ("one-kad",), ("no-ckod", "one-kad")])
def test_a_refusal_that_is_a_quirk(make: Maker, quirks: tuple[str, ...]) -> None:
    session, _ = make("hp-lto-4", quirks=quirks)
    kads = (Kad(KadType.U_KAD, b"Vol001"), NAME)
    request = KeyRequest(KEY, algorithm(session), kads, ckod=True)
    sent = session.set_key(request)
    assert sent.ckod is ("no-ckod" not in quirks)
    assert sent.kads == ((NAME,) if "one-kad" in quirks else kads)
    assert session.as_sent(request) == sent
    assert session.status().key_instance_counter == 1


def test_a_refusal_that_is_none(make: Maker) -> None:
    session, _ = make()
    wrong = replace(algorithm(session), index=9)
    with pytest.raises(CheckConditionError, match="ALGORITHM INDEX, byte 8"):
        session.set_key(KeyRequest(KEY, wrong, (NAME,)))
    assert session.status().is_clear


def test_wrapped(make: Maker) -> None:
    session, _ = make("hpe-lto-9")
    key = session.wrapping_key()
    assert key is not None
    designator = b"HPE     Ultrium 9-SCSI  8031BDC7DB"
    request = KeyRequest(KEY, algorithm(session), (NAME,), wrapping_key=key, designator=designator)
    assert session.set_key(request).key_format is KeyFormat.WRAPPED
    session.transport.execute(write_block(b"block"))
    other = replace(request, designator=b"another drive")
    with pytest.raises(CheckConditionError):
        session.set_key(other)
    with pytest.raises(ParseError, match="not RSA-2048"):
        replace(request, wrapping_key=replace(key, key_type=0x10)).page()


def test_clear_on_a_drive_that_is_late(make: Maker) -> None:
    session, drive = make("ibm-lto-5", quirks=("late-capabilities",))
    session.set_key(KeyRequest(KEY, algorithm(session), (NAME,)))
    drive.eject()
    session.clear()
    assert session.status().is_clear
    session.clear()
    assert "late-capabilities" in session.quirks


def test_the_next_block(make: Maker) -> None:
    session, drive = make()
    session.set_key(KeyRequest(KEY, algorithm(session), (NAME,)))
    session.transport.execute(write_block(b"block"))
    drive.eject()
    drive.insert("HWK001L8")
    with session.any_cartridge():
        block = session.next_block()
    assert block is not None
    assert block.encryption is BlockEncryption.READABLE
    assert block.kad(KadType.A_KAD) == NAME.value


# Ability

LTO = Capabilities.parse(
    bytes.fromhex("0010002801" + "00" * 15)
    + bytes.fromhex("01000014BA100020000C00200900000000000000 00010014")
)


def changed(**changes: object) -> Capabilities:
    return replace(LTO, algorithms=(replace(LTO.algorithms[0], **changes),))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("capabilities", "reason"),
    [
        (LTO, ""),
        (replace(LTO, configuration_prevented=ConfigurationPrevented.NOT_REPORTED), ""),
        (replace(LTO, algorithms=()), "but nothing"),
        (changed(code=0x0001_0010), "but AES-256-CCM"),
        (changed(key_bytes=16), "does not offer"),
        (changed(encrypt=Ability.EXTERNAL), "encrypt and decrypt AES-256-GCM itself"),
        (changed(decrypt=Ability.SOFTWARE), "encrypt and decrypt AES-256-GCM itself"),
        (changed(encrypt=Ability.NONE), "encrypt and decrypt AES-256-GCM itself"),
        (changed(valid_for_volume=False), "AVFMV"),
        (changed(position=PositionValidity.NOT_VALID), "AVFCLP"),
        (changed(position=PositionValidity.VALID), ""),
    ],
)
def test_why_not(capabilities: Capabilities, reason: str) -> None:
    found = why_not(capabilities, mounted=True) or why_not_here(capabilities)
    assert reason in found
    assert bool(reason) is bool(found)


def test_nothing_loaded() -> None:
    assert why_not(changed(valid_for_volume=False), mounted=False) == "no cartridge is loaded"


@pytest.mark.parametrize(
    ("control", "manager", "reason"),
    [
        (ControlledBy.NOT_REPORTED, KeyManager.UNKNOWN, ""),
        (ControlledBy.HOST, KeyManager.APPLICATION, ""),
        (ControlledBy.HOST, KeyManager.NONE, ""),
        (ControlledBy.HOST, KeyManager.LIBRARY, "the library"),
        (ControlledBy.HOST, KeyManager.SYSTEM, "operating system"),
        (ControlledBy.DEVICE, KeyManager.UNKNOWN, "the drive itself"),
        (ControlledBy.LIBRARY, KeyManager.APPLICATION, "the library"),
        (ControlledBy.MANAGEMENT, KeyManager.UNKNOWN, "management interface"),
        (7, KeyManager.UNKNOWN, "something unknown (7)"),
    ],
)
def test_who_manages(control: ControlledBy | int, manager: KeyManager, reason: str) -> None:
    found = managed_by(control, manager, LTO)
    assert reason in found
    assert bool(reason) is bool(found)


def test_keys_that_hosts_dont_set() -> None:
    prevented = replace(LTO, configuration_prevented=ConfigurationPrevented.PREVENTED)
    found = managed_by(ControlledBy.HOST, KeyManager.UNKNOWN, prevented)
    assert found == "its keys are not set by hosts (CFG_P of page 0010h)"
    assert managed_by(ControlledBy.LIBRARY, KeyManager.UNKNOWN, prevented).endswith("the library")


@pytest.mark.parametrize("profile", PROFILES)
def test_every_drives_ability(make: Maker, profile: str) -> None:
    session, _ = make(profile)
    ability = session.ability()
    assert ability.can_encrypt is (profile not in ("ibm-lto-3", "t10000", "library-managed"))
    assert ability.reason
    if ability.can_encrypt:
        assert ability.algorithm is not None
        assert ability.algorithm.is_aes_256_gcm
        assert ability.management is not None
        assert ability.management.lock


class OnlyPages(Port):
    """Lists a page too few."""

    name = "few"

    def complete(self, command: Command) -> Completion:
        return Completion(data=bytes.fromhex("00000004 0000 0010"))

    def close(self) -> None:
        pass


def test_pages_that_are_missing() -> None:
    ability = TapeEncryption(OnlyPages()).ability()
    assert ability.reason == "it has no tape data encryption that a host could use"
