"""pyscsi's own SCSI class on hwkm's transports: the emulator's drives, and a changer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pyscsi.pyscsi.scsi import SCSI
from pyscsi.pyscsi.scsi_cdb_inquiry import Inquiry
from pyscsi.pyscsi.scsi_cdb_testunitready import TestUnitReady as Ready
from pyscsi.pyscsi.scsi_enum_command import smc, spc, ssc
from pyscsi.pyscsi.scsi_enum_readelementstatus import ELEMENT_TYPE

from hwkm.scsi import emulator
from hwkm.scsi.completion import Completion, Port
from hwkm.scsi.devices import open_device
from hwkm.scsi.pyscsi_adapter import PyscsiDevice
from hwkm.scsi.transport import CheckConditionError, Command, CommandTimeoutError
from hwkm.scsi.worker import WorkerTransport
from tests.scsi.changers import NOT_THERE, Changer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Port]:
    emulator.create(tmp_path / "drive.db", "ibm-lto-8", serial="0013AABBCC")
    port = open_device(f"emulator:{tmp_path}/drive.db")
    yield port
    port.close()


class Fixed(Port):
    """Ends every command in one way."""

    name = "fixed"

    def __init__(self, end: Completion) -> None:
        self.end = end
        self.commands: list[Command] = []

    def close(self) -> None:
        return

    def complete(self, command: Command) -> Completion:
        self.commands.append(command)
        return self.end


def test_pyscsi_asks_a_drive(drive: Port) -> None:
    device = PyscsiDevice(drive)
    scsi = SCSI(device)
    assert device.devicetype == 1
    assert device.opcodes is ssc
    found = scsi.inquiry().result
    assert bytes(found["t10_vendor_identification"]) == b"IBM     "
    assert bytes(found["product_identification"]).startswith(b"ULT")
    serial = scsi.inquiry(evpd=1, page_code=0x80).result
    assert b"0013AABBCC" in bytes(serial["unit_serial_number"])


def test_pyscsi_asks_a_drive_in_a_worker(tmp_path: Path) -> None:
    emulator.create(tmp_path / "drive.db", "hp-lto-6")
    port = WorkerTransport(f"emulator:{tmp_path}/drive.db")
    assert port.name == f"emulator:{tmp_path}/drive.db"
    found = SCSI(PyscsiDevice(port)).inquiry().result
    assert bytes(found["t10_vendor_identification"]) == b"HP      "
    port.close()


def test_a_refusal_of_the_emulator_is_raised(drive: Port) -> None:
    scsi = SCSI(PyscsiDevice(drive))
    with pytest.raises(CheckConditionError) as caught:
        scsi.inquiry(evpd=1, page_code=0xEE)
    assert caught.value.sense.code == (5, 0x24, 0)


def test_pyscsi_asks_a_changer() -> None:
    changer = Changer()
    with SCSI(PyscsiDevice(changer)) as scsi:
        assert scsi.device.opcodes is smc
        assert (
            scsi.modesense10(page_code=0x1D).result["mode_pages"][0]["num_storage_elements"] == 40
        )
        status = scsi.readelementstatus(
            0, 0xFFFF, element_type=ELEMENT_TYPE.DATA_TRANSFER, voltag=1
        )
        (drives,) = status.result["element_status_pages"]
        assert [found["element_address"] for found in drives["element_descriptors"]] == [256, 257]
        scsi.movemedium(0, 0x0402, 0x0100)
    assert changer.moves == [(0x0402, 0x0100)]
    assert changer.closed


def test_a_refused_move_is_raised() -> None:
    """pyscsi's own device class lets this pass for a success."""
    scsi = SCSI(PyscsiDevice(Changer()))
    with pytest.raises(CheckConditionError) as caught:
        scsi.movemedium(0, 0x0403, 0x0100)
    assert caught.value.sense.code == (5, 0x3B, 0x0E)


def test_sense_is_left_with_the_command() -> None:
    refusal = Fixed(Completion(status=2, driver_status=8, sense=NOT_THERE))
    for raw in (False, True):
        command = Inquiry(spc.INQUIRY)
        with pytest.raises(CheckConditionError):
            PyscsiDevice(refusal).execute(command, en_raw_sense=raw)
        assert bytes(command.sense) == NOT_THERE
        assert getattr(command, "raw_sense_data", None) == (NOT_THERE if raw else None)


def test_errors_without_sense_are_hwkms() -> None:
    with pytest.raises(CommandTimeoutError):
        PyscsiDevice(Fixed(Completion(host_status=3))).execute(Ready(spc.TEST_UNIT_READY))


def test_data_keeps_its_length_with_zeros_behind() -> None:
    command = Inquiry(spc.INQUIRY)
    command.datain = bytearray(b"\xee" * 96)
    PyscsiDevice(Fixed(Completion(data=b"\x08\x80"))).execute(command)
    assert command.datain == bytearray(b"\x08\x80".ljust(96, b"\0"))


def test_what_goes_to_the_transport() -> None:
    port = Fixed(Completion())
    PyscsiDevice(port).execute(Inquiry(spc.INQUIRY, evpd=1, page_code=0x83, alloclen=252))
    (command,) = port.commands
    assert (command.name, command.cdb) == ("INQUIRY", bytes.fromhex("12 01 83 00 fc 00"))
    assert (command.allocation, command.seconds, command.is_secret) == (252, 60, False)
