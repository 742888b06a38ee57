"""From a drive's other names to its sg node, on a copy of sysfs laid out as Linux 6.1 does.

Every node is a pipe that nobody writes to: opening one for reading would block, and os.open of
any but a sg node shows.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hwkm.errors import DeviceError
from hwkm.scsi import devices, nodes
from hwkm.scsi.devices import open_device
from hwkm.scsi.linux import SgTransport
from hwkm.scsi.nodes import list_tape_devices, sg_node
from hwkm.scsi.transport import DeviceAccessError

if TYPE_CHECKING:
    from collections.abc import Callable

MODES = ("st{}", "st{}a", "st{}l", "st{}m", "nst{}", "nst{}a", "nst{}l", "nst{}m")


class Machine:
    """A /sys and a /dev with the devices that are plugged in."""

    def __init__(self, root: Path) -> None:
        self.sys = root / "sys"
        self.dev = root / "dev"
        self.dev.mkdir(parents=True)
        (self.sys / "class" / "scsi_generic").mkdir(parents=True)
        (self.sys / "class" / "scsi_tape").mkdir()

    def plug(
        self, sg: int, kind: int, vendor: str, model: str, *, st: int | None = None, driver: str
    ) -> None:
        device = self.sys / "devices" / f"0:0:{sg}:0"
        device.mkdir(parents=True)
        (device / "type").write_text(f"{kind}\n")
        (device / "vendor").write_text(f"{vendor:8}\n")
        (device / "model").write_text(f"{model:16}\n")
        if driver:
            (self.sys / "bus" / "scsi" / "drivers" / driver).mkdir(parents=True, exist_ok=True)
            (device / "driver").symlink_to(self.sys / "bus" / "scsi" / "drivers" / driver)
        self._node(device, "scsi_generic", f"sg{sg}")
        for name in MODES if st is not None else ():
            self._node(device, "scsi_tape", name.format(st))

    def _node(self, device: Path, kind: str, name: str) -> None:
        (device / kind / name).mkdir(parents=True)
        (device / kind / name / "device").symlink_to(device)
        (self.sys / "class" / kind / name).symlink_to(device / kind / name)
        os.mkfifo(self.dev / name)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """The drives' numbers differ from their sg nodes', as they do wherever there is a changer."""
    made = Machine(tmp_path)
    made.plug(0, 8, "IBM", "03584L32", driver="ch")
    made.plug(1, 1, "IBM", "ULT3580-TD3", st=0, driver="st")
    made.plug(2, 0, "ATA", "Disk", driver="sd")
    made.plug(10, 1, "HP", "Ultrium 6-SCSI", st=1, driver="st")
    made.plug(11, 1, "IBM", "03592E08", driver="lin_tape")
    made.plug(9, 1, "QUANTUM", "ULTRIUM 4", driver="")
    return made


@pytest.fixture(autouse=True)
def _nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def checked(path: object, *arguments: int, **more: int) -> int:
        opened = Path(str(path))
        assert opened.name.startswith("sg") or not opened.is_fifo(), f"{path} was opened"
        return real(str(path), *arguments, **more)

    monkeypatch.setattr(os, "open", checked)


@pytest.mark.parametrize(
    ("name", "sg"),
    [
        *[(name.format(0), "sg1") for name in MODES],
        *[(name.format(1), "sg10") for name in MODES],
        ("sg1", "sg1"),
        ("sg0", "sg0"),
    ],
)
def test_every_name_of_a_drive(machine: Machine, name: str, sg: str) -> None:
    assert sg_node(machine.dev / name, machine.sys) == machine.dev / sg


@pytest.mark.parametrize("target", ["../../st1", "../../nst1", "../../sg10"])
def test_links_by_id(machine: Machine, target: str) -> None:
    link = machine.dev / "tape" / "by-id" / "scsi-35000e11156304003-nst"
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    assert sg_node(link, machine.sys) == machine.dev / "sg10"


@pytest.mark.parametrize("name", ["IBMtape0", "IBMtape12n", "IBMchanger3"])
def test_lin_tape_is_named(machine: Machine, name: str) -> None:
    os.mkfifo(machine.dev / name)
    (machine.dev / "link").symlink_to(name)
    for path in (machine.dev / name, machine.dev / "link"):
        with pytest.raises(DeviceAccessError, match="IBM's driver lin_tape") as caught:
            sg_node(path, machine.sys)
        assert "/dev/sgN" in caught.value.hint


@pytest.mark.parametrize("name", ["null", "nst", "st1x", "sg", "sgx", "tape", "sda"])
def test_other_nodes(machine: Machine, name: str) -> None:
    (machine.dev / name).touch()
    with pytest.raises(DeviceAccessError, match="no tape drive's node"):
        sg_node(machine.dev / name, machine.sys)


@pytest.mark.parametrize("name", ["nst7", "sg7", ""])
def test_nodes_that_are_not_there(machine: Machine, name: str) -> None:
    with pytest.raises(DeviceAccessError, match=r"no such device|no tape drive's node"):
        sg_node(machine.dev / name, machine.sys)


def test_a_link_to_itself(machine: Machine) -> None:
    (machine.dev / "nst9").symlink_to("nst9")
    with pytest.raises(DeviceAccessError, match="no such device"):
        sg_node(machine.dev / "nst9", machine.sys)


def test_a_drive_without_its_sg_node(machine: Machine) -> None:
    os.mkfifo(machine.dev / "nst5")
    with pytest.raises(DeviceAccessError, match="has no sg node") as caught:
        sg_node(machine.dev / "nst5", machine.sys)
    assert "modprobe sg" in caught.value.hint


def test_what_is_plugged_in(machine: Machine) -> None:
    found = [
        (node.sg.name, node.tape and node.tape.name, node.vendor, node.product, node.driver)
        for node in list_tape_devices(machine.sys)
    ]
    assert found == [
        ("sg0", None, "IBM", "03584L32", "ch"),
        ("sg1", "nst0", "IBM", "ULT3580-TD3", "st"),
        ("sg9", None, "QUANTUM", "ULTRIUM 4", ""),
        ("sg10", "nst1", "HP", "Ultrium 6-SCSI", "st"),
        ("sg11", None, "IBM", "03592E08", "lin_tape"),
    ]
    assert [node.changer for node in list_tape_devices(machine.sys)] == [True, *[False] * 4]


def test_a_device_that_goes_while_it_is_looked_at(machine: Machine) -> None:
    (machine.sys / "devices" / "0:0:10:0" / "type").unlink()
    (machine.sys / "devices" / "0:0:1:0" / "vendor").unlink()
    found = {node.sg.name: node.vendor for node in list_tape_devices(machine.sys)}
    assert found == {"sg0": "IBM", "sg1": "", "sg9": "QUANTUM", "sg11": "IBM"}


def test_no_sysfs(tmp_path: Path) -> None:
    assert list_tape_devices(tmp_path) == []


def test_this_machine() -> None:
    for node in list_tape_devices():
        assert node.sg.parent == Path("/dev")


def opening(name: str, sysfs: Path) -> Callable[[Path], Path]:
    return lambda path: sg_node(path, sysfs)


def test_a_drive_is_opened_by_its_sg_node(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "sg_node", opening("nst1", machine.sys))
    port = open_device(str(machine.dev / "nst1"))
    assert isinstance(port, SgTransport)
    assert port.name == str(machine.dev / "sg10")
    port.close()


def test_a_node_that_is_not_there_has_no_way() -> None:
    with pytest.raises(DeviceAccessError, match="no such device"):
        open_device("/dev/nst4711")


def test_iscsi_is_the_systems() -> None:
    with pytest.raises(DeviceError, match="does not speak iSCSI") as caught:
        open_device("iscsi://127.0.0.1/iqn.2026-01.example:tape/1")
    assert "/dev/sgN" in caught.value.hint
    assert caught.value.exit_code == 5


def test_types_are_the_standards() -> None:
    assert (nodes.TAPE_TYPE, nodes.CHANGER_TYPE) == (1, 8)


@pytest.mark.parametrize(
    ("counts", "in_use"),
    [
        ({}, False),
        ({"st": "0\n"}, False),
        ({"st": "2\n"}, True),
        ({"st": "0\n", "lin_tape": "1\n"}, True),
        ({"st": None}, True),  # built into the kernel, which does not count then
    ],
)
def test_tapes_in_use(tmp_path: Path, counts: dict[str, str | None], in_use: bool) -> None:
    for module, count in counts.items():
        (tmp_path / "module" / module).mkdir(parents=True)
        if count is not None:
            (tmp_path / "module" / module / "refcnt").write_text(count)
    assert nodes.tapes_in_use(tmp_path) is in_use
