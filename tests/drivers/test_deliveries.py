"""Keys from a token and a keystore into an emulated drive, and what is on record afterwards."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from hwkm.deliveries import Deliveries, open_drive
from hwkm.drivers.choose import Choice
from hwkm.drivers.report import NotEncryptedError, WrappingKeyChangedError
from hwkm.drivers.tape import TapeDriver
from hwkm.errors import DeviceError, KeystoreError, NotFoundError
from hwkm.keystore.engine import Keystore
from hwkm.keystore.records import Proof, ProofKind
from hwkm.manager import Caller
from hwkm.policy import Delivery
from hwkm.scsi import commands, emulator
from hwkm.scsi.transport import CheckConditionError
from hwkm.scsi.worker import WorkerTransport
from tests.drivers.bench import Between
from tests.keystore import homes

if TYPE_CHECKING:
    from collections.abc import Callable
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
        desk.deliver(driver, desk.fetch(VOLUME))


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
            desk.deliver(driver, desk.fetch(VOLUME))
        assert driver.held_names() == ()


class AtTheChip(Between):
    """Does something when the chip is about to be written."""

    def __init__(self, path: Path, what: Callable[[], object]) -> None:
        super().__init__(path)
        self._what = what

    def complete(self, command: Command) -> Completion:
        if command.cdb[0] == commands.OpCode.WRITE_ATTRIBUTE:
            self._what()
        return super().complete(command)


@pytest.mark.parametrize("what", ["reset", "power_cycle", "eject"])
def test_what_happens_while_the_chip_is_written(home: Home, drive: Path, what: str) -> None:
    """That comes after the key was read back, so the drive is looked at once more."""
    port = AtTheChip(drive, getattr(emulator.Drive(drive), what))
    desk, driver = deliveries(home), TapeDriver(port, runtime(home))
    handout = desk.issue(VOLUME, Choice(Delivery.DRIVE, ""))
    with pytest.raises(DeviceError, match=r"lost the key|changed"):
        desk.deliver(driver, handout, new=True)
    assert names_in(home, f"emulator:{drive}") == ()
    assert not [proof for proof in proofs(home, ProofKind.LOAD) if proof.encrypted]


def swapped(home: Home, path: Path) -> None:
    """Leave the key of one cartridge in the drive with another."""
    emulator.create(path, "ibm-lto-5", cartridge="L50001L5", quirks=("no-ckod",))
    make_and_load(home, f"emulator:{path}")
    emulator.Drive(path).eject()
    emulator.Drive(path).insert("L50002L5")


def test_a_blank_tape_gets_no_key_of_another(home: Home, tmp_path: Path) -> None:
    swapped(home, path := tmp_path / "keeps")
    with open_drive(f"emulator:{path}", runtime(home)) as driver:
        assert driver.held_names() != ()
        assert deliveries(home).auto(driver) is None
        assert driver.held_names() == ()


def test_what_bears_another_volumes_key_is_not_proved(home: Home, tmp_path: Path) -> None:
    swapped(home, path := tmp_path / "keeps")
    with closing(emulator.EmulatorTransport(path)) as port:
        with suppress(CheckConditionError):  # the change of the cartridge
            port.execute(commands.rewind())
        port.execute(commands.write_block(b"data" * 100))
    with open_drive(f"emulator:{path}", runtime(home)) as driver:
        _, report = deliveries(home).prove(driver)
    assert not report.encrypted
    assert report.checks[-1].name == "loaded for"


def test_names_that_a_drive_has_filled_up(home: Home) -> None:
    desk = deliveries(home)
    key_id = desk.issue(VOLUME, Choice(Delivery.DRIVE, "")).envelope.header.key_id
    with home.keystore().reading() as transaction:
        for name in (key_id, key_id.ljust(60, b"\0"), key_id.ljust(32)):
            found = transaction.find_by_key_name(name)
            assert found is not None
            assert found.key_id == key_id
        assert transaction.find_by_key_name(key_id + b"x") is None


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
            desk.deliver(driver, desk.fetch(VOLUME))
        assert driver.held_names() == ()
        assert desk.deliver(driver, desk.fetch(VOLUME), accept="8031BDC7DB").encrypted
        assert desk.deliver(driver, desk.fetch(VOLUME)).encrypted


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
            desk = deliveries(home)
            if names:
                assert desk.deliver(driver, desk.fetch(VOLUME)).key_id in names
            assert desk.clear(driver).cleared
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
