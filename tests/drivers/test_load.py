"""A key is in the drive only if everything that the drive says afterwards agrees."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from hwkm.checks import Status
from hwkm.drivers.lock import drive_lock
from hwkm.drivers.report import NotEncryptedError, WrappingKeyChangedError
from hwkm.errors import DeviceError, PolicyError
from hwkm.keys import Cipher, VolumeKey
from hwkm.scsi.quirks import CartridgeChangedError
from hwkm.scsi.worker import WorkerTransport
from tests.drivers.bench import (
    BARCODE,
    CHANGED,
    KEY,
    KEY_ID,
    MODE_CHANGED,
    OTHER_HOSTS_KEY,
    OTHER_ID,
    OTHER_KEY,
    SPOUT,
    VOLUME,
    Attentive,
    Bench,
    Between,
    Interfering,
    Interrupted,
    check,
    refusal,
    sets_a_key,
)
from tests.scsi.emulator.host import Host

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwkm.drivers.report import LoadReport
    from hwkm.scsi.completion import Completion
    from hwkm.scsi.transport import Command

CAN = ["ibm-lto-5", "ibm-lto-8", "hp-lto-4", "hp-lto-6", "hpe-lto-9", "quantum-lto-4", "ibm-3592"]
CANNOT = {
    "ibm-lto-3": "no tape data encryption",
    "t10000": r"AES-256-GCM for this cartridge \(but AES-256-CCM \(Oracle\)\)",
    "library-managed": "set by the library",
}
WRAPS = {"hp-lto-6", "hpe-lto-9"}


def statuses(report: LoadReport) -> dict[str, Status]:
    return {check.name: check.status for check in report.checks}


@pytest.mark.parametrize("profile", CAN)
def test_what_is_written_is_encrypted(make: Callable[..., Bench], profile: str) -> None:
    bench = make(profile)
    report = bench.load()
    assert report.encrypted
    assert report.counter == 1
    assert report.key_format == ("wrapped" if profile in WRAPS else "plain")
    assert (report.wrapping_key is not None) == (profile in WRAPS)
    assert report.cartridge.barcode == BARCODE
    assert {*statuses(report).values()} == {Status.OK}
    bench.write(b"label", b"block")
    on_tape = bench.drive.blocks(BARCODE)[-1]
    assert on_tape.a_kad == KEY_ID
    assert on_tape.data != b"block"
    bench.locate(1)
    assert bench.read() == b"block"


@pytest.mark.parametrize("profile", CANNOT)
def test_a_drive_that_cannot(make: Callable[..., Bench], profile: str) -> None:
    bench = make(profile)
    port = Between(bench.path)
    with pytest.raises(DeviceError, match=CANNOT[profile]):
        bench.through(port).load()
    assert SPOUT not in port.codes


def test_parameters(bench: Bench) -> None:
    bench.load()
    shared = bench.drive.state()["shared"]
    assert (shared["encryption_mode"], shared["decryption_mode"], shared["scope"]) == (2, 3, 2)
    assert shared["ckod"]
    assert shared["kads"] == {"0": VOLUME.encode().hex(), "1": KEY_ID.hex()}
    assert bench.drive.state()["nexuses"]["host-1"]["locked_at"] == 1


def test_the_key_leaves_with_the_cartridge(bench: Bench) -> None:
    bench.load()
    bench.drive.eject()
    assert not bench.holds_a_key


def test_another_hosts_key_stops_the_job(bench: Bench) -> None:
    bench.load()
    bench.spout(OTHER_HOSTS_KEY, "host-2")
    bench.drive.forget_attentions()
    assert refusal(lambda: bench.write(b"block")) == "7/2A/13"


def test_a_second_load_replaces_the_first(bench: Bench) -> None:
    bench.load()
    report = bench.load(OTHER_KEY, OTHER_ID)
    assert report.counter == 2
    assert bench.driver.held_names() == (OTHER_ID, VOLUME.encode())


def test_names_that_do_not_fit(bench: Bench) -> None:
    assert bench.driver.load(KEY, KEY_ID, "V" * 33).encrypted
    assert bench.driver.held_names() == (KEY_ID,)
    long = b"a name from stenc"
    assert bench.driver.load(KEY, long, VOLUME).encrypted
    assert bench.driver.held_names() == (long,)
    with pytest.raises(DeviceError, match="33 bytes, and the drive keeps 12"):
        bench.driver.load(KEY, b"n" * 33, VOLUME)


def test_a_key_for_software(bench: Bench) -> None:
    key = VolumeKey(Cipher.AES_256_XTS, bytes(range(64)))
    with pytest.raises(PolicyError, match="AES_256_XTS"):
        bench.driver.load(key, KEY_ID, VOLUME)


def test_an_empty_drive(make: Callable[..., Bench]) -> None:
    with pytest.raises(DeviceError, match="no cartridge is loaded"):
        make(cartridge="").load()


def test_the_wrong_barcode(bench: Bench) -> None:
    with pytest.raises(DeviceError, match="HWK001L8 instead of HWK002L8"):
        bench.driver.load(KEY, KEY_ID, VOLUME, barcode="HWK002L8")
    assert not bench.holds_a_key
    assert bench.driver.load(KEY, KEY_ID, VOLUME, barcode="HWK001").encrypted


def test_a_cartridge_that_is_not_to_be_written(make: Callable[..., Bench]) -> None:
    bench = make(cartridge="")
    bench.drive.insert("WORM01L8", worm=True, write_protected=True)
    found = statuses(bench.load())
    assert found["WORM"] is found["write protection"] is Status.WARN


# Wrapped keys


def test_no_key_on_the_wire(make: Callable[..., Bench]) -> None:
    bench = make("hp-lto-6")
    port = Between(bench.path)
    bench.through(port).load()
    assert not any(KEY.expose() in command.exposed() for command in port.sent)


def test_the_pinned_wrapping_key(make: Callable[..., Bench]) -> None:
    bench = make("hp-lto-6")
    pinned = bench.load().wrapping_key
    assert pinned is not None
    assert bench.load(pinned=pinned).wrapping_key == pinned
    bench.driver.clear()
    with pytest.raises(WrappingKeyChangedError, match="on record for drive HU1234567X") as caught:
        bench.load(pinned=bytes(32))
    assert "serial number" in caught.value.hint
    assert not bench.holds_a_key


def test_no_way_back_to_plain_keys(make: Callable[..., Bench]) -> None:
    bench = make("ibm-lto-8")
    with pytest.raises(WrappingKeyChangedError, match="shows none any more"):
        bench.load(pinned=bytes(32))
    assert not bench.holds_a_key


class Nameless(Between):
    """Does not say what its logical unit is called."""

    def complete(self, command: Command) -> Completion:
        if command.cdb[:3] == b"\x12\x01\x83":
            return type(super().complete(command))(data=b"\x01\x83\x00\x00")
        return super().complete(command)


def test_a_wrapping_key_that_cannot_be_used(make: Callable[..., Bench]) -> None:
    bench = make("hp-lto-6")
    pinned = bench.load().wrapping_key
    bench.through(Nameless(bench.path))
    report = bench.load()
    assert report.key_format == "plain"
    assert statuses(report)["key format"] is Status.WARN
    with pytest.raises(WrappingKeyChangedError, match="took wrapped keys and now can't"):
        bench.load(pinned=pinned)


# Events


@pytest.mark.parametrize("profile", ["ibm-lto-8", "hp-lto-6"])
def test_an_event_before_every_command(make: Callable[..., Bench], profile: str) -> None:
    bench = make(profile)
    bench.through(Attentive(bench.path, MODE_CHANGED))
    report = bench.load()
    assert report.encrypted
    assert "unit-attention" in report.quirks


def test_a_cartridge_that_is_changed_all_the_time(bench: Bench) -> None:
    with pytest.raises(CartridgeChangedError):
        bench.through(Attentive(bench.path, CHANGED)).load()
    assert not bench.holds_a_key


def test_a_cartridge_that_was_changed_before(bench: Bench) -> None:
    bench.drive.insert("HWK002L8")
    assert bench.load().cartridge.barcode == "HWK002L8"


def commands_of_a_load(make: Callable[..., Bench]) -> list[int]:
    bench = make()
    port = Between(bench.path)
    bench.through(port).load()
    bench.path.unlink()
    return port.codes


def test_a_swap_between_any_two_commands(make: Callable[..., Bench]) -> None:
    """The load says no and leaves no key; or it began, or had ended, with the one cartridge."""
    codes = commands_of_a_load(make)
    came_through = []
    for number in range(1, len(codes) + 1):
        bench = make()
        swap = partial(bench.drive.insert, "HWK002L8")
        try:
            report = bench.through(Interfering(bench.path, number, swap)).load()
        except DeviceError:
            assert not bench.holds_a_key, number
        else:
            came_through.append(number)
            assert report.cartridge.barcode == BARCODE
        bench.path.unlink()
    assert came_through == [len(codes)]


def test_another_host_between_any_two_commands(make: Callable[..., Bench]) -> None:
    """Its key is replaced, or it is seen to have replaced ours; afterwards the counter tells."""
    codes = commands_of_a_load(make)
    set_at = codes.index(SPOUT) + 1
    for number in range(1, len(codes) + 1):
        bench = make()
        interfere = partial(bench.spout, OTHER_HOSTS_KEY, "host-2")
        bench.through(Interfering(bench.path, number, interfere))
        if set_at <= number < len(codes):
            with pytest.raises(NotEncryptedError):
                bench.load()
            assert not bench.holds_a_key, number
        else:
            report = bench.load()
            assert bench.driver.guard_changed(report.counter) is (number == len(codes))
        bench.path.unlink()


def test_a_reset_right_after_the_key(make: Callable[..., Bench]) -> None:
    number = commands_of_a_load(make).index(SPOUT) + 1
    bench = make()
    bench.through(Interfering(bench.path, number, bench.drive.reset))
    with pytest.raises(NotEncryptedError, match="'encryption mode': DISABLE instead of ENCRYPT"):
        bench.load()


class Killed(Between):
    """The process is killed before the command with a given number."""

    def __init__(self, *args: Any, before: int) -> None:
        super().__init__(*args)
        self._before = before

    def complete(self, command: Command) -> Completion:
        if len(self.sent) >= self._before:
            raise SystemExit
        return super().complete(command)


def test_killed_between_any_two_commands(make: Callable[..., Bench]) -> None:
    """The drive holds no key, or the very one, whole and under its name."""
    for number in range(len(commands_of_a_load(make))):
        bench = make()
        with pytest.raises(SystemExit):
            bench.through(Killed(bench.path, before=number)).load()
        if bench.holds_a_key:
            bench.write(b"block")
            assert bench.drive.blocks(BARCODE)[0].a_kad == KEY_ID
        bench.path.unlink()


def test_a_person_interrupts(make: Callable[..., Bench]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    number = commands_of_a_load(make).index(SPOUT) + 1
    bench = make()
    with pytest.raises(KeyboardInterrupt):
        bench.through(Interfering(bench.path, number, interrupt)).load()
    assert not bench.holds_a_key


def test_through_a_process_of_its_own(bench: Bench) -> None:
    with (
        drive_lock(bench.path.parent, "10WT0A1B2C", 0) as descriptor,
        closing(WorkerTransport(bench.drive.name, keep=(descriptor,))) as worker,
    ):
        report = bench.through(worker).load()
        assert report.encrypted
        bench.write(b"block")
        assert bench.driver.prove(KEY_ID, report.counter).encrypted
        assert bench.driver.clear().cleared


@pytest.mark.parametrize("runs", [True, False])
def test_a_command_that_was_interrupted(bench: Bench, runs: bool) -> None:
    bench.through(Interrupted(bench.path, runs=runs))
    if runs:
        assert bench.load().encrypted
        return
    with pytest.raises(NotEncryptedError, match="check 'encryption mode'"):
        bench.load()
    assert not bench.holds_a_key


class Stubborn(Between):
    """Refuses to be cleared."""

    def complete(self, command: Command) -> Completion:
        if command.cdb[0] == SPOUT and not sets_a_key(command):
            return check((5, 0x2C, 0x00))
        return super().complete(command)


def test_a_key_that_does_not_go_out(bench: Bench) -> None:
    bench.drive.tell_lie("kad-dropped")
    with pytest.raises(NotEncryptedError, match="MAY STILL HOLD THE KEY") as caught:
        bench.through(Stubborn(bench.path)).load()
    assert not caught.value.cleared
    assert "Power-cycle" in caught.value.hint
    assert bench.holds_a_key


def test_a_reserved_drive(bench: Bench) -> None:
    bench.spout("00 10 00 10 40 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00", "host-2")
    bench.drive.forget_attentions()
    Host(bench.path, "host-2").good("16 00 00 00 00 00")
    with pytest.raises(DeviceError, match="another host has reserved the drive"):
        bench.load()


def test_no_key_in_reports_and_errors(bench: Bench) -> None:
    report = bench.load()
    bench.drive.tell_lie("kad-dropped")
    with pytest.raises(NotEncryptedError) as caught:
        bench.load()
    for text in (repr(report), repr(caught.value.report), caught.value.diagnostics()):
        assert KEY.expose().hex() not in text
        assert repr(KEY.expose())[2:20] not in text
