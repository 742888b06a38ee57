"""The file: who may read it, what happens to a killed process, and two processes on one drive."""

from __future__ import annotations

import ast
import multiprocessing
import os
import signal
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hwkm.scsi.emulator
from hwkm.errors import ConfigError, DeviceError
from hwkm.keys import SecretBytes
from hwkm.scsi.commands import security_protocol_out, write_block
from hwkm.scsi.devices import open_device
from hwkm.scsi.emulator import PROFILES, Drive, EmulatorTransport, create
from hwkm.scsi.transport import CheckConditionError, Command, DeviceAccessError
from tests.scsi.emulator.host import KEY, Host, code, page

if TYPE_CHECKING:
    from collections.abc import Callable

FORK = multiprocessing.get_context("fork")


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    drive = create(tmp_path / "drive", "ibm-lto-5")
    assert stat.S_IMODE(drive.path.stat().st_mode) == 0o600
    assert drive.name == f"emulator:{tmp_path}/drive"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("Dear Sir,")
    with pytest.raises(DeviceAccessError, match="File exists"):
        create(tmp_path / "letter")
    assert (tmp_path / "letter").read_text() == "Dear Sir,"


@pytest.mark.parametrize(("profile", "quirks"), [("vhs", []), ("ibm-lto-5", ["odd"])])
def test_what_there_is_not(tmp_path: Path, profile: str, quirks: list[str]) -> None:
    with pytest.raises(ConfigError, match="no emulated drive") as caught:
        create(tmp_path / "drive", profile, quirks=quirks)
    assert all(name in caught.value.hint for name in PROFILES)
    assert not (tmp_path / "drive").exists()


def test_files_that_are_no_drive(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no drive at all")
    sqlite3.connect(tmp_path / "other").close()
    for name in ("missing", "text", "other", "."):
        with pytest.raises(DeviceAccessError, match="can't be used as an emulated") as caught:
            EmulatorTransport(tmp_path / name)
        assert "hwkm emulator create" in caught.value.hint
    assert not (tmp_path / "missing").exists()


def test_by_its_name(host: Host) -> None:
    ready = Command("TEST UNIT READY", bytes(6))
    port = open_device(f"emulator:{host.path}")
    assert port.execute(ready) == b""
    port.close()
    with pytest.raises(DeviceAccessError, match="is closed"):
        port.execute(ready)


def test_its_own_serial_number(tmp_path: Path) -> None:
    create(tmp_path / "drive", "hp-lto-4", serial="MINE")
    assert Host(tmp_path / "drive").good("12 01 80 00 FC 00")[4:] == b"      MINE"


def test_cartridges_that_do_not_fit(host: Host) -> None:
    with pytest.raises(DeviceError, match="does not take a cartridge lto-5"):
        host.drive.insert("HWK001L5", kind="lto-5")
    with pytest.raises(ConfigError, match="no cartridge 'dat'"):
        host.drive.insert("HWK001", kind="dat")
    with pytest.raises(ConfigError, match="is no barcode"):
        host.drive.insert("")
    assert [one.barcode for one in host.drive.cartridges()] == ["HWK001L8"]
    with pytest.raises(DeviceError, match="no cartridge GONE"):
        host.drive.give("GONE", host.drive)


def test_what_is_shown_holds_no_key(host: Host) -> None:
    assert code(host.set(page())) == "good"
    assert code(Host(host.path, "host-2").set(page(scope=0x20))) == "good"
    shown = repr(host.drive.state())
    assert KEY.hex() not in shown
    assert "wrapping_key" not in shown
    assert host.drive.state()["shared"]["key"] is True


def test_data_longer_than_there_is_room_for_is_cut(host: Host) -> None:
    host.write(b"block")
    host.rewind()
    assert host.run("08 00 00 00 05 00", room=2).data == b"bl"


def _write_many(path: Path, nexus: str, count: int) -> None:
    transport = EmulatorTransport(path, nexus)
    for number in range(count):
        transport.execute(write_block(f"{nexus} {number}".encode()))


def test_two_processes_take_turns(host: Host) -> None:
    writers = [FORK.Process(target=_write_many, args=(host.path, name, 50)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    blocks = [one.data.decode() for one in host.drive.blocks("HWK001L8")]
    assert len(blocks) == 100
    for name in "ab":
        assert [one for one in blocks if one[0] == name] == [f"{name} {n}" for n in range(50)]


def _set_for_ever(path: Path) -> None:
    transport = EmulatorTransport(path)
    while True:
        transport.execute(security_protocol_out(0x20, 0x10, SecretBytes(page())))
        transport.execute(write_block(b"block"))


@pytest.mark.parametrize("seconds", [0.005, 0.01, 0.02, 0.04])
def test_a_killed_process_leaves_whole_commands(host: Host, seconds: float) -> None:
    writer = FORK.Process(target=_set_for_ever, args=(host.path,))
    writer.start()
    writer.join(seconds)
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    state = host.drive.state()
    assert state["position"] == len(host.drive.blocks("HWK001L8"))
    assert state["counter"] - state["position"] in (0, 1)
    assert code(host.ready()) == "good"


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cdb=st.one_of(
        st.binary(min_size=6, max_size=16),
        st.tuples(
            st.sampled_from(
                [(code, size) for size, codes in {
                    6: "00 01 03 08 0A 10 11 12 16 17 19 1A 1B", 10: "2B 34 4D 5A 5E 5F",
                    12: "A2 B5", 16: "8C 8D 92",
                }.items() for code in bytes.fromhex(codes)]
            ),
            st.binary(min_size=15, max_size=15),
        ).map(lambda drawn: bytes(drawn[0][:1]) + drawn[1][: drawn[0][1] - 1]),
    ),
    data=st.binary(max_size=100),
)  # fmt: skip
def test_any_command_ends_with_a_status(host: Host, cdb: bytes, data: bytes) -> None:
    host.run(cdb, data)
    host.drive.forget_attentions()
    host.good("03 00 00 00 12 00")


def test_errors_name_the_drive(host: Host) -> None:
    host.drive.eject()
    with pytest.raises(CheckConditionError, match=r"emulator:.*2/3A/00"):
        host.transport.execute(Command("TEST UNIT READY", bytes(6)))


def test_it_shares_no_code_with_what_it_checks() -> None:
    """Only the ways to devices and their errors: neither hwkm's pages nor its commands."""
    allowed = {"completion", "transport", "sense", "emulator"}
    sender = "stream.py"  # which is a host, and no drive
    for path in Path(hwkm.scsi.emulator.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hwkm.scsi."):
                part = str(node.module).split(".")[2]
                assert part in allowed or (path.name, part) == (sender, "commands")


def test_a_cartridge_goes_to_another_drive(make: Callable[..., Host], tmp_path: Path) -> None:
    host = make()
    assert code(host.set(page())) == "good"
    host.write(b"block")
    other = create(tmp_path / "other", "ibm-lto-8")
    host.drive.give("HWK001L8", other)
    assert code(host.ready()) == "2/3A/00"
    assert Drive(host.path).cartridges() == ()
    other.insert("HWK001L8")
    other.forget_attentions()
    there = Host(other.path)
    assert code(there.set(page())) == "good"
    assert there.read().data == b"block"
