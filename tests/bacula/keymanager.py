"""hwkm as it is installed in the chroot: set up, asked, and put out of order on purpose."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from .chroot import BASE_ENV, STORAGE, STORAGE_ENV

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .chroot import Chroot
    from .volume import Label

HWKM = "/opt/hwkm/bin/hwkm"
HOME = "/var/lib/hwkm"
SHELF = "/srv/shelf"  # where files are while they are taken away


def command(home: str, device: str = "%a") -> str:
    """Return the Encryption Command of the installation in ``home``."""
    return f"{HWKM} --config {home}/config.toml getkey --device {device} --job %i"


CALLS = "/srv/calls.jsonl"
RECORDER = "/srv/record"
# Writes down how it was called, without any key, and becomes the command in its arguments.
RECORDER_SCRIPT = f"""#!/usr/bin/python3
import json, os, sys
umask = os.umask(0)
os.umask(umask)
names = ("OPERATION", "VOLUME_NAME", "HOME", "LD_LIBRARY_PATH")
call = {{name: os.environ.get(name) for name in names}}
call["lengths"] = [len(os.environ[name]) for name in ("ENC_CIPHER_KEY", "MASTER_KEYID")]
call["process"] = [os.getuid(), os.getgid(), os.getcwd(), umask]
call["arguments"] = sys.argv[1:]
line = json.dumps(call) + "\\n"
file = os.open("{CALLS}", os.O_WRONLY | os.O_APPEND)
os.write(file, line.encode())
os.close(file)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What ``hwkm getkey`` printed, line by line."""

    fields: dict[str, str]

    @property
    def key(self) -> bytes:
        """Return the volume key."""
        assert "error" not in self.fields, self.fields["error"]
        return base64.b64decode(self.fields["cipher_key"], validate=True)


class KeyManager:
    """A private installation of hwkm on SoftHSM, owned by the Storage Daemon's user.

    ``device`` stands for the drive that :meth:`getkey` names.
    """

    owner = "bacula"

    def __init__(self, chroot: Chroot, home: str = HOME, device: str = "/srv/none") -> None:
        self.chroot = chroot
        self.home = home
        self.device = device

    @property
    def command(self) -> str:
        """The Encryption Command."""
        return command(self.home)

    def init(self, home: str = "") -> str:
        """Set up hwkm as an administrator would; return what that printed."""
        where = home or self.home
        return self.chroot.run([HWKM, "init", "--home", where, "--softhsm", "--owner", self.owner])

    def reload(self) -> None:
        """Have whatever of hwkm runs all the time take on the files as they are; here nothing."""

    def path(self, name: str = "", home: str = "") -> Path:
        """Return where a file of the installation lies for this process."""
        return self.chroot.path(f"{home or self.home}/{name}")

    def argv(self, *words: str) -> list[str]:
        """Return a command of hwkm on this installation."""
        return [HWKM, "--config", f"{self.home}/config.toml", *words]

    def run(self, *words: str) -> str:
        """Run a command as root, which goes well; return what it printed."""
        return self.chroot.run(self.argv(*words))

    def call(self, *words: str) -> tuple[int, str]:
        """Run a command as root, which may fail; return its status and all that it printed."""
        argv = self.chroot.argv(self.argv(*words))
        run = subprocess.run(
            argv, env=BASE_ENV, capture_output=True, text=True, timeout=60, check=False
        )
        return run.returncode, run.stdout + run.stderr

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Read the keystore."""
        file = self.path("keystore.db")
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as keystore:
            return keystore.execute(sql, values).fetchall()

    def getkey(self, operation: str, volume: str, label: Label | None = None) -> Answer:
        """Ask for a key just as the Storage Daemon does."""
        env = STORAGE_ENV | {
            "OPERATION": operation,
            "VOLUME_NAME": volume,
            "ENC_CIPHER_KEY": base64.b64encode(label.wrapped_key).decode() if label else "",
            "MASTER_KEYID": base64.b64encode(label.master_id).decode() if label else "",
        }
        argv = self.command.replace("%a", self.device).replace("%i", "0").split()
        output = self.chroot.run(argv, user=STORAGE, env=env)
        return Answer(dict(line.split(": ", 1) for line in output.splitlines()))

    def generations(self, volume: str) -> list[dict[str, Any]]:
        """Return what ``hwkm volume show`` tells of a volume, oldest generation first."""
        shown = json.loads(self.run("volume", "show", volume, "--json"))
        assert shown["volume"] == volume
        return sorted(shown["generations"], key=lambda one: int(one["generation"]))

    @contextmanager
    def without(self, *patterns: str) -> Iterator[None]:
        """Take files of the installation away; put them back, and say so to whatever runs."""
        with self.taken_away(*patterns):
            yield
        self.reload()

    @contextmanager
    def taken_away(self, *patterns: str) -> Iterator[None]:
        """Take files of the installation away; put them back as they were."""
        shelf = self.chroot.path(SHELF)
        shelf.mkdir(mode=0o700)
        moved = [file.rename(shelf / file.name) for file in self._files(patterns)]
        assert len(moved) >= len(patterns), f"{self.home} lacks one of {patterns}"
        try:
            yield
        finally:
            for file in self._files(patterns):
                shutil.rmtree(file) if file.is_dir() else file.unlink()
            for file in moved:
                file.rename(self.path(file.name))
            shelf.rmdir()

    def _files(self, patterns: Iterable[str]) -> list[Path]:
        return [file for pattern in patterns for file in self.path().glob(pattern)]

    @contextmanager
    def other_token(self, *, named_by_serial: bool) -> Iterator[None]:
        """Put another token of the same label, and its PIN, in the place of the right one.

        hwkm is then told its label only, or (as by ``hwkm init``) its serial number too.
        """
        other = f"{self.home}-other"
        if not self.path(home=other).exists():
            self.init(other)
        with self.without("tokens", "user-pin", "config.toml"):
            for name in ("tokens", "user-pin"):
                self.chroot.run(["cp", "-a", f"{other}/{name}", self.home])
            text = self.chroot.path(f"{SHELF}/config.toml").read_text()
            assert re.search(r";serial=\w+", text), text
            self.path("config.toml").write_text(
                text if named_by_serial else re.sub(r";serial=\w+", "", text)
            )
            self.reload()
            yield

    # --- the recorder ----------------------------------------------------------------------

    def install_recorder(self) -> str:
        """Put the recorder into the chroot; return the command that records hwkm's calls."""
        self.chroot.path(RECORDER).write_text(RECORDER_SCRIPT)
        self.chroot.path(RECORDER).chmod(0o755)
        self.chroot.path(CALLS).touch()
        self.chroot.path(CALLS).chmod(0o666)
        return f"{RECORDER} {self.command}"

    def take_calls(self) -> list[dict[str, Any]]:
        """Return the calls recorded since the last time."""
        lines = self.chroot.path(CALLS).read_text().splitlines()
        self.chroot.path(CALLS).write_text("")
        return [json.loads(line) for line in lines]


class Syslog:
    """Stands at the chroot's /dev/log and keeps what is sent there. A context manager."""

    def __init__(self, chroot: Chroot) -> None:
        self._path = chroot.path("/dev/log")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._messages: list[bytes] = []

    def __enter__(self) -> Self:
        folder = os.open(self._path.parent, os.O_PATH)
        self._socket.bind(f"/proc/self/fd/{folder}/log")  # a socket's path must be short
        os.close(folder)
        self._path.chmod(0o666)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while message := self._socket.recv(65536):
            self._messages.append(message)

    @property
    def text(self) -> str:
        """Return all messages so far, one a line."""
        return b"\n".join(self._messages).decode(errors="replace")
