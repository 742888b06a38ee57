"""Where drives under test come from: one emulated for each profile, or the one that is named."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hwkm.errors import HwkmError
from hwkm.scsi.commands import inquiry, load_unload
from hwkm.scsi.devices import EMULATOR, open_device
from hwkm.scsi.emulator import PROFILES, EmulatorTransport, create
from hwkm.scsi.inquiry import Inquiry
from hwkm.scsi.inventory import identify_drive
from hwkm.scsi.nodes import list_tape_devices, sg_node
from hwkm.scsi.worker import WorkerTransport
from tests.drive.station import Station

if TYPE_CHECKING:
    from collections.abc import Iterator

DRIVE, SERIAL, MAY_UNLOAD = "--drive", "--serial", "--may-unload"
BARCODE = "HWK001L8"


@dataclass(frozen=True)
class Source:
    """A drive that tests can be run on: a profile, or the device of a real one."""

    name: str
    device: str = ""
    serial: str = ""
    may_unload: bool = False

    @property
    def sort(self) -> str:
        return "real" if self.device else "emulated"

    @contextmanager
    def station(self, templates: Path, folder: Path) -> Iterator[Station]:
        runtime = folder / "run"
        runtime.mkdir()
        if self.device:
            with self._real(runtime) as station:
                yield station
            return
        file = folder / "drive"
        file.write_bytes((templates / self.name).read_bytes())
        file.chmod(0o600)
        with closing(WorkerTransport(f"emulator:{file}")) as transport:
            yield Station(
                name=self.name,
                sort=self.sort,
                serial=PROFILES[self.name].serial,
                transport=transport,
                runtime=runtime,
                other_host=lambda: EmulatorTransport(file, "host-2"),
                reopen=lambda: EmulatorTransport(file),
                reload=take_out_and_in,
            )

    @contextmanager
    def _real(self, runtime: Path) -> Iterator[Station]:
        with closing(WorkerTransport(self.device)) as transport:
            yield Station(
                name=self.name,
                sort=self.sort,
                serial=self.serial,
                transport=transport,
                runtime=runtime,
                tape=st_node(self.device),
                reopen=lambda: open_device(self.device),
                reload=take_out_and_in if self.may_unload else None,
            )


def sources(config: pytest.Config) -> list[Source]:
    """Return the drives that this run is for."""
    device, serial = config.getoption(DRIVE), config.getoption(SERIAL)
    if device:
        return [Source(f"{device}-{serial}", device, serial, config.getoption(MAY_UNLOAD))]
    return [Source(name) for name in PROFILES]


def check_serial(source: Source) -> None:
    """See that it is the drive that was named; only INQUIRY is sent.

    :raises pytest.UsageError: if it is not, or can't be found out.
    """
    try:
        with closing(WorkerTransport(source.device)) as transport:
            is_tape = Inquiry.parse(transport.execute(inquiry())).is_tape
            found = identify_drive(transport).serial
    except HwkmError as error:
        raise pytest.UsageError(f"{DRIVE} {source.device}: {error}") from error
    if not is_tape:
        raise pytest.UsageError(f"{DRIVE} {source.device} is no tape drive")
    if found != source.serial:
        raise pytest.UsageError(
            f"{DRIVE} {source.device} has the serial number {found or '(none)'} and not "
            f"{source.serial}: nothing was done to it"
        )


def st_node(device: str) -> Path | None:
    """Return the /dev/nstN of a real drive, None without one."""
    if device.startswith(EMULATOR):
        return None
    sg = sg_node(Path(device))
    return next((one.tape for one in list_tape_devices() if one.sg == sg), None)


def make_templates(folder: Path) -> None:
    """Make an emulated drive of each kind, with a cartridge in it."""
    for name in PROFILES:
        create(folder / name, name, cartridge=BARCODE)


def take_out_and_in(station: Station) -> None:
    """Unload the cartridge, and load it again."""
    with station.session.any_cartridge():
        station.session.transport.execute(load_unload(load=False))
        station.session.transport.execute(load_unload(load=True))
        assert station.session.is_ready()
