"""Finding mhvtl's drives among others, and nothing but them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hwkm.scsi.commands import log_sense
from hwkm.scsi.logs import LogPage, parse_tape_alert
from tests.mhvtl.conftest import NONE_HERE, found_in
from tests.mhvtl.find import mhvtls_nodes

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.scsi.nodes import TapeNode

TAPE, CHANGER = 1, 8


def plug(sysfs: Path, host: str, driver: str, number: int, kind: int = TAPE) -> None:
    """Put a device on a SCSI host, as the kernel shows it."""
    about = sysfs / "class" / "scsi_host" / host
    about.mkdir(parents=True, exist_ok=True)
    (about / "proc_name").write_text(f"{driver}\n")
    device = sysfs / "devices" / "adapter0" / host / "target" / f"0:0:{number}:0"
    device.mkdir(parents=True)
    for name, value in (("type", kind), ("vendor", "IBM"), ("model", "ULT3580-TD5")):
        (device / name).write_text(f"{value}\n")
    node = sysfs / "class" / "scsi_generic" / f"sg{number}"
    node.mkdir(parents=True)
    (node / "device").symlink_to(device)


def numbers(nodes: list[TapeNode]) -> list[str]:
    return [node.sg.name for node in nodes]


def never(node: TapeNode) -> bool:
    raise AssertionError(f"{node.sg} was asked")


def test_the_kernel_names_the_driver(tmp_path: Path) -> None:
    plug(tmp_path, "host0", "mpt3sas", 1)
    plug(tmp_path, "host3", "mhvtl", 2, CHANGER)
    plug(tmp_path, "host3", "mhvtl", 3)
    plug(tmp_path, "host4", "qla2xxx", 4)
    assert numbers(mhvtls_nodes(tmp_path, never)) == ["sg2", "sg3"]


@pytest.mark.parametrize("driver", ["", "<NULL>", "tcm_loopback"])
def test_a_driver_without_a_name_is_asked_for_a_mark(tmp_path: Path, driver: str) -> None:
    plug(tmp_path, "host0", driver, 1)
    plug(tmp_path, "host3", driver, 2, CHANGER)
    plug(tmp_path, "host3", driver, 3)
    plug(tmp_path, "host3", driver, 4)
    plug(tmp_path, "host4", "mpt3sas", 5)

    def marked(node: TapeNode) -> bool:
        assert node.sg.name != "sg5"
        return node.sg.name == "sg4"

    assert numbers(mhvtls_nodes(tmp_path, marked)) == ["sg2", "sg3", "sg4"]


def test_a_machine_without_any(tmp_path: Path) -> None:
    plug(tmp_path, "host0", "mpt3sas", 1)
    assert mhvtls_nodes(tmp_path, never) == []


def test_mhvtl_on_this_machine(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    found = found_in(pytestconfig)
    if not found:
        pytest.skip(NONE_HERE)
    serials = [one.unit.identity.serial for one in found]
    assert len(set(serials)) == len(serials)
    for number, one in enumerate(found):
        folder = tmp_path / str(number)
        folder.mkdir()
        with one.station(folder) as station:
            page = station.session.transport.execute(log_sense(LogPage.TAPE_ALERT))
            assert parse_tape_alert(page) <= frozenset(range(1, 65))
