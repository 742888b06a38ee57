"""A key that a crash left in a drive is taken out when the agent starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hwkm.agent import strays
from hwkm.scsi import emulator
from tests.getkey.tape import StorageDaemon

from .agents import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.getkey.home import Home

    from .agents import Agent


def station(home: Home, tmp_path: Path, *more: str) -> StorageDaemon:
    """Return a drive that keeps its key over an unload, with a key in it."""
    path = tmp_path / "drive"
    emulator.create(path, "ibm-lto-5", cartridge="L50001L5", quirks=("no-ckod",))
    drives = ", ".join(f'"{device}"' for device in (f"emulator:{path}", *more))
    home.edit('delivery = "software"', 'delivery = "auto"')
    with home.config.open("a") as file:
        file.write(f"\n[agent]\ndrives = [{drives}]\n")
    daemon = StorageDaemon(home, path, "Tape-0001")
    assert daemon.label().given.cipher == "NULL"
    return daemon


def test_a_key_whose_cartridge_is_gone(
    home: Home, tmp_path: Path, start_agent: Callable[..., Agent]
) -> None:
    daemon = station(home, tmp_path)
    daemon.drive.eject()
    daemon.drive.insert("L50002L5")
    assert daemon.held() is not None
    start_agent(home)
    until(lambda: daemon.held() is None)
    until(lambda: "held the key of a cartridge that is not in it: taken out" in home.log[-1])
    assert daemon.proofs()[-1][:2] == ("clear", 0)


def test_a_key_whose_cartridge_is_there(
    home: Home, tmp_path: Path, start_agent: Callable[..., Agent]
) -> None:
    """It stays, and a drive that is not there keeps nobody from starting."""
    daemon = station(home, tmp_path, "emulator:/nowhere")
    agent: Any = start_agent(home)
    until(lambda: any("emulator:/nowhere was not looked at" in line for line in home.log))
    wrapped = daemon.label_on_tape().wrapped_key
    words = ("--device", daemon.device, "--job", "7")
    assert b"cipher: NULL" in agent.getkey("READ", daemon.volume, wrapped, *words)
    assert daemon.held() == daemon.key_ids()[-1]
    assert [kind for kind, *_ in daemon.proofs()] == ["load", "hold"]


def test_a_reset_that_the_agent_is_told_of(
    home: Home, tmp_path: Path, start_agent: Callable[..., Agent]
) -> None:
    """Nobody else is told, so it says so aloud."""
    daemon = station(home, tmp_path)
    daemon.drive.reset()
    start_agent(home)
    until(lambda: any("took the key of volume" in line for line in home.log))


def test_the_policy_wants_no_drives_any_more(
    home: Home, tmp_path: Path, start_agent: Callable[..., Agent]
) -> None:
    daemon = station(home, tmp_path)
    daemon.drive.eject()
    daemon.drive.insert("L50002L5")
    home.edit('delivery = "auto"', 'delivery = "software"')
    start_agent(home)
    until(lambda: daemon.held() is None)


@pytest.mark.parametrize(
    ("in_use", "looked_at"), [(True, ["emulator:/a"]), (False, ["emulator:/a", "/dev/sg9"])]
)
def test_no_drive_is_looked_at_while_a_tape_is_in_use(
    monkeypatch: pytest.MonkeyPatch, in_use: bool, looked_at: list[str]
) -> None:
    """What the drive reports is for whoever uses it; an emulated drive has no other users."""
    monkeypatch.setattr(strays, "tapes_in_use", lambda: in_use)
    assert strays.free(["emulator:/a", "/dev/sg9"]) == looked_at
