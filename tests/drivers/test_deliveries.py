"""Keys from a token and a keystore into an emulated drive, and what is on record afterwards."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from hwkm.deliveries import Deliveries, open_drive
from hwkm.drivers.choose import Choice
from hwkm.drivers.report import NotEncryptedError, WrappingKeyChangedError
from hwkm.errors import DeviceError, KeystoreError, NotFoundError
from hwkm.keystore.engine import Keystore
from hwkm.keystore.records import Proof, ProofKind
from hwkm.manager import Caller
from hwkm.policy import Delivery
from hwkm.scsi import commands, emulator
from hwkm.scsi.worker import WorkerTransport
from tests.keystore import homes

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.scsi.completion import Completion
    from hwkm.scsi.transport import Command
    from tests.keystore.homes import Home

VOLUME = "Vol-0001"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """An installation whose policy lets the drive encrypt, if it can."""
    home = homes.initialize(tmp_path_factory.mktemp("deliveries") / "template")
    text = home.config_path.read_text()
    home.config_path.write_text(text.replace('delivery = "software"', 'delivery = "auto"'))
    return home


@pytest.fixture
def home(template: Home, tmp_path: Path) -> Home:
    return homes.copy(template, tmp_path / "home")


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    path = tmp_path / "drive"
    emulator.create(path, "hpe-lto-9", cartridge="L90001L9")
    return path


def deliveries(home: Home) -> Deliveries:
    return Deliveries.of(home.installation(), Caller("tester", "7"))


def runtime(home: Home) -> Path:
    return home.installation().config.runtime_dir


def proofs(home: Home, kind: ProofKind) -> list[Proof]:
    with Keystore.open(home.installation().config.keystore).reading() as transaction:
        found = [transaction.proofs(one.key_id) for one in transaction.all_generations()]
    return [proof for of_key in found for proof in of_key if proof.kind is kind]


def make_and_load(home: Home, device: str) -> None:
    desk = deliveries(home)
    with open_drive(device, runtime(home)) as driver:
        desk.issue(VOLUME, Choice(Delivery.DRIVE, "it was asked for"))
        desk.load(driver, VOLUME)


def names_in(home: Home, device: str) -> tuple[bytes, ...]:
    with open_drive(device, runtime(home)) as driver:
        return driver.held_names()


def test_a_load_is_on_record(home: Home, drive: Path) -> None:
    make_and_load(home, f"emulator:{drive}")
    (proof,) = proofs(home, ProofKind.LOAD)
    assert (proof.encrypted, proof.key_format, proof.job) == (True, "wrapped", "7")
    assert (proof.drive_serial, proof.barcode) == ("8031BDC7DB", "L90001L9")


def test_a_drive_that_lies_is_on_record_too(home: Home, drive: Path) -> None:
    emulator.Drive(drive).tell_lie("mode-ignored")
    with pytest.raises(NotEncryptedError, match="encryption mode"):
        make_and_load(home, f"emulator:{drive}")
    (proof,) = proofs(home, ProofKind.LOAD)
    assert not proof.encrypted
    assert names_in(home, f"emulator:{drive}") == ()


def test_what_cant_be_recorded_is_not_used(home: Home, drive: Path) -> None:
    desk, device = deliveries(home), f"emulator:{drive}"
    with open_drive(device, runtime(home)) as driver:
        desk.issue(VOLUME, Choice(Delivery.DRIVE, ""))
        with closing(sqlite3.connect(home.folder / "keystore.db")) as other:
            other.execute(
                "CREATE TRIGGER full BEFORE INSERT ON proof BEGIN SELECT RAISE(ABORT, 'full'); END"
            )
        with pytest.raises(KeystoreError):
            desk.load(driver, VOLUME)
        assert driver.held_names() == ()


def test_a_key_that_outlived_its_cartridge(home: Home, tmp_path: Path) -> None:
    """A drive without CKOD keeps it; it is taken out unless its own cartridge is there again."""
    path = tmp_path / "keeps"
    emulator.create(path, "ibm-lto-5", cartridge="L50001L5", quirks=("no-ckod",))
    make_and_load(home, f"emulator:{path}")
    desk, drive = deliveries(home), emulator.Drive(path)
    with open_drive(f"emulator:{path}", runtime(home)) as driver:
        assert desk.clear_stray(driver) is None
        drive.eject()
        drive.insert("L50002L5")
        assert driver.held_names() != ()
        report = desk.clear_stray(driver)
        assert report is not None
        assert report.cleared
        assert driver.held_names() == ()
        assert desk.clear_stray(driver) is None


def test_another_wrapping_key_is_refused_until_accepted(home: Home, drive: Path) -> None:
    make_and_load(home, f"emulator:{drive}")
    other = drive.with_name("other")
    emulator.create(other, "hpe-lto-9", cartridge="L90002L9")  # the same serial, another key
    desk = deliveries(home)
    with open_drive(f"emulator:{other}", runtime(home)) as driver:
        with pytest.raises(WrappingKeyChangedError):
            desk.load(driver, VOLUME)
        assert driver.held_names() == ()
        assert desk.load(driver, VOLUME, accept="8031BDC7DB").encrypted
        assert desk.load(driver, VOLUME).encrypted


def test_a_tape_that_nobody_knows(home: Home, drive: Path, tmp_path: Path, template: Home) -> None:
    strange = homes.copy(template, tmp_path / "strange")
    make_and_load(strange, f"emulator:{drive}")
    with closing(emulator.EmulatorTransport(drive)) as port:
        port.execute(commands.write_block(b"strange" * 100))
        port.execute(commands.rewind())
    with open_drive(f"emulator:{drive}", runtime(home)) as driver:
        deliveries(home).clear(driver)
        with pytest.raises(NotFoundError, match="not on record"):
            deliveries(home).auto(driver)


def test_a_prove_needs_a_key_of_ours(home: Home, drive: Path) -> None:
    with (
        open_drive(f"emulator:{drive}", runtime(home)) as driver,
        pytest.raises(NotFoundError, match="holds no key"),
    ):
        deliveries(home).prove(driver)


def test_one_process_at_a_drive(home: Home, drive: Path) -> None:
    with (
        open_drive(f"emulator:{drive}", runtime(home)),
        pytest.raises(DeviceError, match="another"),
        open_drive(f"emulator:{drive}", runtime(home), seconds=0.1),
    ):
        pass


def test_killed_before_any_command(home: Home, drive: Path) -> None:
    """Wherever a load is killed, the drive holds no key, or one that the keystore can give."""
    device, number, held = f"emulator:{drive}", 0, set()
    while _killed_at(home, device, number):
        names = names_in(home, device)
        held.add(bool(names))
        with open_drive(device, runtime(home)) as driver:
            if names:
                assert deliveries(home).load(driver, VOLUME).key_id in names
            assert deliveries(home).clear(driver).cleared
        # A load that was killed counts as a wrong key, until the cartridge is loaded anew.
        emulator.Drive(drive).eject()
        emulator.Drive(drive).insert("L90001L9")
        number += 1
    assert number > 20
    assert held == {True, False}


def _killed_at(home: Home, device: str, number: int) -> bool:
    """Run a load in a process that kills itself before its command ``number``."""
    child = os.fork()
    if child == 0:
        try:
            _die_before(number)
            make_and_load(home, device)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _die_before(number: int) -> None:
    left = iter(range(number))
    complete = WorkerTransport.complete

    def counted(self: WorkerTransport, command: Command) -> Completion:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return complete(self, command)

    WorkerTransport.complete = counted  # type: ignore[method-assign]
