"""The configuration files of Bacula's four programs, written from a few facts."""

from __future__ import annotations

import re
import secrets
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field

DATA = "/srv/data"
VOLUMES = "/srv/volumes"
MEETING = "/srv/meeting"
MEET = "/srv/meet"  # MEET_SCRIPT, with the job's number as its argument
MEET_SCRIPT = f"""#!/bin/sh
touch {MEETING}/$1
for _ in $(seq 600); do
    [ $(ls {MEETING} | wc -l) -ge 2 ] && exit 0
    sleep 0.05
done
exit 1
"""
MAX_COMMAND = 127  # bytes that Bacula takes for its Encryption Command


@dataclass(frozen=True, slots=True)
class Lane:
    """One test's own way through Bacula: a device, its storage, a pool and two jobs.

    Volumes are labelled by the jobs themselves, as NAME-0001 and so on. ``drives`` above one makes
    an autochanger of that many virtual disk drives, whose jobs run in pairs: each waits until the
    other is under way too. ``jobs_per_volume`` and ``volume_bytes`` close a volume early.
    """

    name: str
    encrypted: bool = True
    drives: int = 1
    volumes: int = 0
    jobs_per_volume: int = 0
    volume_bytes: int = 0

    @property
    def devices(self) -> list[str]:
        """Return the names of the Storage Daemon's devices."""
        return [f"{self.name}-drive{number}" for number in range(self.drives)]


@dataclass(frozen=True, slots=True)
class Ports:
    """A free TCP port for each daemon."""

    director: int
    storage: int
    client: int

    @classmethod
    def free(cls) -> Ports:
        """Let the system choose three ports that nobody listens on."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
            for one in sockets:
                one.bind(("127.0.0.1", 0))
            return cls(*(one.getsockname()[1] for one in sockets))


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything that the configuration files are made from."""

    command: str
    lanes: tuple[Lane, ...]
    ports: Ports = field(default_factory=Ports.free)
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def __post_init__(self) -> None:
        assert len(self.command) <= MAX_COMMAND, f"too long for Bacula: {self.command}"
        assert '"' not in self.command


def quoted(value: object) -> str:
    """Return a setting's value in quotes; Bacula takes numbers and addresses only without."""
    text = str(value)
    return text if re.fullmatch(r"[0-9.]+", text) else f'"{text}"'


def resource(kind: str, *lines: str, **settings: object) -> str:
    """Return one resource; settings are quoted, lines stay as they are."""
    pairs = [f"{name} = {quoted(value)}" for name, value in settings.items()]
    return "\n  ".join([f"{kind} {{", *pairs, *lines]) + "\n}\n"


def daemon(**ports: int) -> dict[str, object]:
    """Return the settings that each daemon's own resource has."""
    return {
        "WorkingDirectory": "/var/lib/bacula",
        "PidDirectory": "/run/bacula",
        "MaximumConcurrentJobs": 20,
        **ports,
    }


def director(setup: Setup) -> str:
    """Return bacula-dir.conf."""
    fd = {"Address": "127.0.0.1", "FDPort": setup.ports.client, "Password": setup.password}
    log = "/var/log/bacula/bacula.log"
    ports = daemon(DirPort=setup.ports.director)
    own = {"QueryFile": "/dev/null", "Password": setup.password, "DirAddress": "127.0.0.1"}
    parts = [
        resource("Director", Name="test-dir", Messages="All", **own, **ports),
        resource("Messages", "Catalog = all", f"Append = {log} = all", Name="All"),
        resource("Catalog", 'dbuser = ""', 'dbpassword = ""', Name="Catalog", dbname="bacula"),
        resource("Client", Name="test-fd", Catalog="Catalog", MaximumConcurrentJobs=20, **fd),
        resource(
            "FileSet",
            f"Include {{ Options {{ Signature = SHA256 }}\n  File = {DATA} }}",
            Name="Data",
        ),
    ]
    return "\n".join(parts + [part for lane in setup.lanes for part in way(setup, lane)])


def way(setup: Setup, lane: Lane) -> list[str]:
    """Return the Director's part of a lane."""
    changer = {"Autochanger": "yes"} if lane.drives > 1 else {}
    meet = {"ClientRunBeforeJob": f"{MEET} %i"} if lane.drives > 1 else {}
    common: dict[str, object] = {
        "Client": "test-fd",
        "FileSet": "Data",
        "Storage": lane.name,
        "Pool": lane.name,
        "Messages": "All",
        "MaximumConcurrentJobs": 5,
        **meet,
    }
    return [
        resource(
            "Storage",
            Name=lane.name,
            Address="127.0.0.1",
            Password=setup.password,
            SDPort=setup.ports.storage,
            Device=lane.name if lane.drives > 1 else lane.devices[0],
            MediaType=lane.name,
            MaximumConcurrentJobs=10,
            **changer,
        ),
        resource(
            "Pool",
            Name=lane.name,
            PoolType="Backup",
            LabelFormat=f"{lane.name}-",
            AutoPrune="no",
            Recycle="yes",
            VolumeRetention=365 * 86400,
            MaximumVolumes=lane.volumes,
            MaximumVolumeJobs=lane.jobs_per_volume,
            MaximumVolumeBytes=lane.volume_bytes,
        ),
        resource("Job", Name=f"save-{lane.name}", Type="Backup", Level="Full", **common),
        resource("Job", Name=f"back-{lane.name}", Type="Restore", Where="/srv/back", **common),
    ]


def storage(setup: Setup) -> str:
    """Return bacula-sd.conf."""
    parts = [
        resource(
            "Storage",
            Name="test-sd",
            SDAddress="127.0.0.1",
            EncryptionCommand=setup.command,
            **daemon(SDPort=setup.ports.storage),
        ),
        resource("Director", Name="test-dir", Password=setup.password),
        resource("Messages", "Director = test-dir = all", Name="All"),
    ]
    return "\n".join(parts + [part for lane in setup.lanes for part in drives(lane)])


def drives(lane: Lane) -> list[str]:
    """Return the Storage Daemon's part of a lane."""
    settings = {
        "MediaType": lane.name,
        "DeviceType": "File",
        "ArchiveDevice": f"{VOLUMES}/{lane.name}",
        "VolumeEncryption": "strong" if lane.encrypted else "no",
        "LabelMedia": "yes",
        "RandomAccess": "yes",
        "AutomaticMount": "yes",
        "RemovableMedia": "no",
        "AlwaysOpen": "no",
        # One job for each drive of a changer, so that two jobs need two drives.
        "MaximumConcurrentJobs": 1 if lane.drives > 1 else 5,
    }
    parts = [resource("Device", Name=name, **settings) for name in lane.devices]
    if lane.drives > 1:
        members = f"Device = {', '.join(lane.devices)}"
        changer = {"ChangerCommand": "", "ChangerDevice": "/dev/null"}
        parts.append(resource("Autochanger", members, Name=lane.name, **changer))
    return parts


def client(setup: Setup) -> str:
    """Return bacula-fd.conf."""
    ports = daemon(FDPort=setup.ports.client)
    return "\n".join(
        [
            resource("FileDaemon", Name="test-fd", FDAddress="127.0.0.1", **ports),
            resource("Director", Name="test-dir", Password=setup.password),
            resource("Messages", "Director = test-dir = all", Name="All"),
        ]
    )


def console(setup: Setup) -> str:
    """Return bconsole.conf."""
    local = {"Address": "127.0.0.1", "Password": setup.password, "DirPort": setup.ports.director}
    return resource("Director", Name="test-dir", **local)


def files(setup: Setup) -> dict[str, str]:
    """Return each configuration file's name in /etc/bacula and its text."""
    return {
        "bacula-dir.conf": director(setup),
        "bacula-sd.conf": storage(setup),
        "bacula-fd.conf": client(setup),
        "bconsole.conf": console(setup),
    }
