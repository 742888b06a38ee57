"""``hwkm drive status``: whose key a drive holds, and whether anybody has set another one since."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from hwkm.keys import SecretBytes
from hwkm.scsi import emulator
from hwkm.scsi.commands import security_protocol_out
from tests.drivers.bench import OTHER_HOSTS_KEY
from tests.getkey.home import Home

if TYPE_CHECKING:
    from pathlib import Path

OFF = "00 10 00 10 40 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home.create(tmp_path_factory.mktemp("status") / "home")
    home.edit('delivery = "software"', 'delivery = "auto"')
    return home


@pytest.fixture
def drive(home: Home, tmp_path: Path) -> Path:
    path = tmp_path / "drive"
    # Each has a serial number of its own: hwkm remembers a drive's wrapping key by it.
    emulator.create(path, "hpe-lto-9", cartridge="L90001L9", serial=tmp_path.name[-10:])
    return path


def run(home: Home, drive: Path, verb: str, *words: str) -> dict[str, Any]:
    done = home.hwkm("drive", verb, f"emulator:{drive}", *words, "--json")
    assert done.status == 0, done
    found: dict[str, Any] = json.loads(done.out)
    return found


def set_by_another(drive: Path, page: str) -> None:
    with closing(emulator.EmulatorTransport(drive, "another-host")) as port:
        data = SecretBytes(bytes.fromhex(page))
        port.execute(security_protocol_out(0x20, 0x0010, data))


def test_the_key_is_whose_it_is(home: Home, drive: Path) -> None:
    run(home, drive, "load", "--volume", "Vol-1", "--create")
    found = run(home, drive, "status")
    assert (found["volume"], found["generation"], found["changed_by_others"]) == ("Vol-1", 1, False)


def test_a_drive_that_was_never_used(home: Home, drive: Path) -> None:
    found = run(home, drive, "status")
    assert (found["volume"], found["changed_by_others"]) == (None, None)


@pytest.mark.parametrize("page", [OTHER_HOSTS_KEY, OFF])
@pytest.mark.parametrize("cleared", [False, True])
def test_another_host(home: Home, drive: Path, page: str, cleared: bool) -> None:
    run(home, drive, "load", "--volume", "Vol-2", "--create")
    if cleared:
        run(home, drive, "clear")
    assert run(home, drive, "status")["changed_by_others"] is False
    set_by_another(drive, page)
    done = home.hwkm("drive", "status", "--json", f"emulator:{drive}")
    found = json.loads(done.out)
    assert (found["volume"], found["changed_by_others"]) == (None, True)
    # A key that was counted on is gone, and nobody but hwkm was told.
    assert (b"took the key of volume 'Vol-2' out of the drive" in done.err) is not cleared
    assert done.status == (0 if cleared else 5)


def test_a_drive_that_knows_no_encryption(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "old"
    emulator.create(path, "ibm-lto-3", cartridge="L30001L3")
    found = run(home, path, "status")
    assert (found["encryption_mode"], found["kads"]) == (None, [])
    assert found["cartridge"]["barcode"] == "L30001L3"
    for verb in ("auto", "prove"):
        done = home.hwkm("drive", verb, f"emulator:{path}")
        assert done.status in (1, 5)
        assert b"Traceback" not in done.err
        assert b"no tape data encryption" in done.err or b"holds no key" in done.err, done.err


def test_a_load_for_another_cartridge(home: Home, drive: Path) -> None:
    words = ("drive", "load", f"emulator:{drive}", "--volume", "Vol-3", "--create", "--barcode")
    done = home.hwkm(*words, "NOT001L9")
    assert done.status == 5
    assert b"instead of NOT001L9" in done.err
    assert run(home, drive, "status")["encryption_mode"] == "disable"
    assert home.hwkm(*words, "L90001L9").status == 0
