"""mhvtl's changer, for drives that are empty, and for taking cartridges out and putting them in."""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyscsi.pyscsi.scsi_cdb_readelementstatus import ReadElementStatus
from pyscsi.pyscsi.scsi_enum_command import smc
from pyscsi.pyscsi.scsi_enum_readelementstatus import ELEMENT_TYPE

from hwkm.errors import HwkmError
from hwkm.scsi.changer import move_medium, read_drives
from hwkm.scsi.pyscsi_adapter import PyscsiDevice
from hwkm.scsi.worker import WorkerTransport

if TYPE_CHECKING:
    from hwkm.scsi.changer import DriveElement
    from hwkm.scsi.transport import Transport
    from tests.mhvtl.find import Unit

ELEMENT_BYTES = 65535
MAX_TRIES = 12
CLEANING = "CLN"
SUFFIXES = {"ULT3580-TD": "L", "ULT3580-HH": "L", "Ultrium ": "L"}


@dataclass(frozen=True)
class Slot:
    address: int
    barcode: str


@dataclass
class Library:
    """The changers that were found; ``borrowed`` is what was loaded and is to be taken back."""

    changers: list[Unit]
    borrowed: list[tuple[Unit, int, int]] = field(default_factory=list)

    def load(self, drive: Unit) -> bool:
        """Load a cartridge that the drive takes; return whether there is one."""
        for changer, element, transport in self._places(drive):
            with closing(transport):
                if element.loaded:
                    return True
                for slot in _candidates(transport, drive)[:MAX_TRIES]:
                    # One that the drive can't load stays, or goes back, where it was.
                    with suppress(HwkmError):
                        move_medium(transport, slot.address, element.address)
                        self.borrowed.append((changer, element.address, slot.address))
                        return True
        return False

    def reload(self, drive: Unit) -> None:
        """Take the cartridge out of the drive, and put it in again."""
        for _, element, transport in self._places(drive):
            with closing(transport):
                home = element.source
                if home is None:
                    home = next(one.address for one in _slots(transport) if not one.barcode)
                move_medium(transport, element.address, home)
                move_medium(transport, home, element.address)
                return
        raise AssertionError("the drive is in no library")

    def has(self, drive: Unit) -> bool:
        """Return whether a changer knows the drive."""
        for _, _, transport in self._places(drive):
            transport.close()
            return True
        return False

    def give_back(self) -> None:
        """Take back what was loaded."""
        for changer, element, slot in self.borrowed:
            with suppress(HwkmError), closing(WorkerTransport(str(changer.node.sg))) as transport:
                move_medium(transport, element, slot)
        self.borrowed.clear()

    def _places(self, drive: Unit) -> list[tuple[Unit, DriveElement, Transport]]:
        """Return the changer that has the drive, found by its serial number; at most one."""
        for changer in self.changers:
            transport = WorkerTransport(str(changer.node.sg))
            try:
                for element in read_drives(transport):
                    if element.serial and element.serial == drive.identity.serial:
                        return [(changer, element, transport)]
            except HwkmError:
                pass
            transport.close()
        return []


def _candidates(transport: Transport, drive: Unit) -> list[Slot]:
    """Return the slots with a cartridge, those of the drive's own generation first."""
    suffix = _suffix(drive.identity.product)
    full = [one for one in _slots(transport) if one.barcode and not _is_cleaning(one)]
    return sorted(full, key=lambda one: not (suffix and one.barcode.endswith(suffix)))


def _is_cleaning(slot: Slot) -> bool:
    return slot.barcode.startswith(CLEANING)


def _suffix(product: str) -> str:
    """Return what the barcodes of an LTO drive's own cartridges end with; "" for other drives."""
    for head, letter in SUFFIXES.items():
        if product.startswith(head):
            return letter + product[len(head) : len(head) + 1]
    return ""


def _slots(transport: Transport) -> list[Slot]:
    command = ReadElementStatus(
        smc.READ_ELEMENT_STATUS,
        start=0,
        num=0xFFFF,
        element_type=ELEMENT_TYPE.STORAGE,
        voltag=1,
        curdata=0,
        dvcid=0,
        alloclen=ELEMENT_BYTES,
    )
    data = PyscsiDevice(transport).transferred(command)
    pages = ReadElementStatus.unmarshall_datain(bytearray(data))["element_status_pages"]
    return [_slot(one) for page in pages for one in page["element_descriptors"]]


def _slot(fields: dict[str, object]) -> Slot:
    tag = fields.get("primary_volume_tag", b"")
    text = bytes(tag)[:32].decode("ascii", "replace").strip(" \0") if fields["full"] else ""  # type: ignore[call-overload]
    address = fields["element_address"]
    assert isinstance(address, int)
    return Slot(address, text)
