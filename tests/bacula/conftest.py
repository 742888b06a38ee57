"""One Bacula with hwkm for all tests here; each test goes its own way through it (a lane)."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from . import dataset
from .bacula import Bacula
from .chroot import Chroot
from .config import DATA, Lane, Setup
from .install import install_hwkm
from .keymanager import KeyManager, Syslog

if TYPE_CHECKING:
    from collections.abc import Iterator

LANES = (
    Lane("Basic"),
    Lane("Append"),
    Lane("Recycle", volumes=1, jobs_per_volume=1),
    Lane("Relabel", jobs_per_volume=1),
    Lane("Hand"),
    Lane("Drives", drives=2, jobs_per_volume=1),
    Lane("WrongToken"),
    Lane("NoToken"),
    Lane("NoBackup"),
    Lane("NoStore"),
    Lane("Calls", volumes=1),
    Lane("Leaks"),
    Lane("Clear", encrypted=False),
)
# What the tests of drives use, whose Encryption Command is another installation's.
DRIVE_LANES = (
    Lane("Tape"),
    Lane("TapeAgain", volumes=1, jobs_per_volume=1),
    Lane("TapeLies"),
    Lane("TapeOnly"),
    Lane("TapeNone"),
)
# What the tests of the agent use. By the same names as those above, for the tests that both run.
AGENT_LANES = {lane.name: replace(lane, name=f"Agent{lane.name}") for lane in LANES} | {
    name: Lane(f"Agent{name}", volume_bytes=2_500_000) for name in ("Front", "Alone", "Token")
}
AGENT_LANES["Away"] = Lane("AgentAway")


@pytest.fixture(scope="session")
def lanes() -> dict[str, Lane]:
    return {lane.name: lane for lane in LANES}


@pytest.fixture(scope="session")
def agent_lanes() -> dict[str, Lane]:
    return AGENT_LANES


@pytest.fixture(scope="session")
def drive_lanes() -> dict[str, Lane]:
    return {lane.name: lane for lane in DRIVE_LANES}


@pytest.fixture(scope="session")
def chroot() -> Iterator[Chroot]:
    umask = os.umask(0o022)
    try:
        with Chroot() as made:
            install_hwkm(made)
            dataset.create(made.path(DATA))
            yield made
    finally:
        os.umask(umask)


@pytest.fixture(scope="session")
def data(chroot: Chroot) -> dict[str, str]:
    """What a restore must bring back."""
    return dataset.contents(chroot.path(DATA))


@pytest.fixture(scope="session")
def syslog(chroot: Chroot) -> Iterator[Syslog]:
    with Syslog(chroot) as sink:
        yield sink


@pytest.fixture(scope="session")
def one_shot(chroot: Chroot, syslog: Syslog) -> KeyManager:
    """hwkm without an agent."""
    manager = KeyManager(chroot)
    manager.init()
    return manager


@pytest.fixture(scope="session")
def daemons(chroot: Chroot, one_shot: KeyManager) -> Iterator[Bacula]:
    """Bacula, which asks ``one_shot`` for keys."""
    every = (*LANES, *DRIVE_LANES, *AGENT_LANES.values())
    with Bacula(chroot, Setup(one_shot.command, every)) as running:
        yield running


# What the tests of the main job ask for. Those of the agent have them too, each of their own.


@pytest.fixture(scope="session")
def hwkm(one_shot: KeyManager) -> KeyManager:
    return one_shot


@pytest.fixture(scope="session")
def bacula(daemons: Bacula) -> Bacula:
    return daemons


@pytest.fixture(autouse=True)
def no_job_stays(bacula: Bacula) -> Iterator[None]:
    yield
    bacula.cancel_all()
