"""Which sg node belongs to a tape drive's other names; found in sysfs, without opening anything.

Opening /dev/stN and closing it rewinds the tape, and opening /dev/nstN of a drive that hangs can't
be interrupted; opening /dev/sgN does nothing to the drive.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from hwkm.scsi.transport import DeviceAccessError, NoTapeDriveError

SYSFS = Path("/sys")
DEVICES = Path("/dev")

TAPE_TYPE = 0x01
CHANGER_TYPE = 0x08
"""Peripheral device types (SPC-5, INQUIRY)."""

TAPE_MODULES = ("st", "lin_tape")
"""The kernel's modules whose nodes programs read and write tapes through."""

_SG = re.compile(r"sg\d+")
_ST = re.compile(r"n?st\d+[alm]?")
_NON_REWINDING = re.compile(r"nst\d+")
_LIN_TAPE = re.compile(r"IBM(tape|changer)\d+n?")
_GIVE = "Give /dev/sgN, /dev/nstN or a name in /dev/tape/by-id; lsscsi -g lists them"


@dataclass(frozen=True, slots=True)
class TapeNode:
    """A tape drive or changer that the kernel knows.

    ``tape`` is the drive's non-rewinding node, None for a changer or without the st driver;
    ``driver`` is the kernel's driver of it: ``st``, ``ch``, ``lin_tape``, or "".
    """

    sg: Path
    tape: Path | None
    vendor: str
    product: str
    changer: bool
    driver: str


def sg_node(path: Path, sysfs: Path = SYSFS) -> Path:
    """Return the sg node of the device that ``path`` names, beside the node it leads to.

    :raises DeviceAccessError: if there is none, or the node is lin_tape's.
    """
    node = Path(os.path.realpath(path))
    if not node.exists():
        raise NoTapeDriveError(f"{path}: there is no such device", hint=_GIVE)
    if _LIN_TAPE.fullmatch(node.name):
        raise DeviceAccessError(
            f"{path} is a node of IBM's driver lin_tape, which hwkm does not use",
            hint="Give the same drive's /dev/sgN; lsscsi -g lists it",
        )
    if _SG.fullmatch(node.name):
        return node
    if not _ST.fullmatch(node.name):
        raise NoTapeDriveError(f"{path} is no tape drive's node", hint=_GIVE)
    return node.with_name(_generic(path, sysfs / "class" / "scsi_tape" / node.name / "device"))


def tapes_in_use(sysfs: Path = SYSFS) -> bool:
    """Return whether any program has a tape's node open, as far as that can be told.

    Each open node is one reference to its driver's module, whoever opened it. True too where the
    driver is built into the kernel, which counts nothing.
    """
    counts = (_references(sysfs / "module" / name) for name in TAPE_MODULES)
    return any(count != 0 for count in counts)


def list_tape_devices(sysfs: Path = SYSFS) -> list[TapeNode]:
    """Return every tape drive and changer, by the number of its sg node."""
    nodes = [path for path in sysfs.glob("class/scsi_generic/*") if _SG.fullmatch(path.name)]
    found = [_describe(path) for path in sorted(nodes, key=lambda path: int(path.name[2:]))]
    return [node for node in found if node]


def _references(module: Path) -> int | None:
    """Return how often a module is in use; None if that is not counted."""
    if not module.exists():
        return 0
    count = _word(module / "refcnt")
    return int(count) if count.isdecimal() else None


def _generic(path: Path, device: Path) -> str:
    names = [entry.name for entry in device.glob("scsi_generic/*") if _SG.fullmatch(entry.name)]
    if len(names) != 1:
        raise DeviceAccessError(
            f"{path} has no sg node",
            hint="Load the kernel's module sg: modprobe sg",
        )
    return names[0]


def _describe(node: Path) -> TapeNode | None:
    device = node / "device"
    device_type = _word(device / "type")
    if device_type not in (str(TAPE_TYPE), str(CHANGER_TYPE)):
        return None
    tapes = [
        entry.name for entry in device.glob("scsi_tape/*") if _NON_REWINDING.fullmatch(entry.name)
    ]
    return TapeNode(
        sg=DEVICES / node.name,
        tape=DEVICES / tapes[0] if tapes else None,
        vendor=_word(device / "vendor"),
        product=_word(device / "model"),
        changer=device_type == str(CHANGER_TYPE),
        driver=_driver(device),
    )


def _driver(device: Path) -> str:
    link = device / "driver"
    return link.resolve().name if link.exists() else ""


def _word(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:  # the device may go while it is looked at
        return ""
