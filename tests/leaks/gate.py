"""Follows processes and keeps everything of them that could hold a secret."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.getkey import process
from tests.getkey.replies import RefusedError, read_reply

from .spellings import search

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable, Iterator

    from tests.getkey.process import Run

BLOCK = 65536
OVERLAP = 1024
"""Longer than any spelling of a piece of a secret."""
PAUSE_SECONDS = 0.02
PIN_FILES = re.compile(r".*pin(\.new)?")
TRANSIENT = ("keystore.db-*", "config.toml.new")

_KEY_LINE = re.compile(rb"^cipher_key: [A-Za-z0-9+/=]+\n", re.MULTILINE)


class Gate:
    """Processes run under it, secrets are told to it, and :meth:`check` finds one in the other.

    ``temporary`` and ``cwd`` are folders for the processes to use as TMPDIR and to stand in;
    whatever appears there is looked into. ``homes`` are installations, whose PIN files are the
    only ones that may hold a secret.
    """

    def __init__(self, folder: Path) -> None:
        self.temporary = folder / "tmp"
        self.cwd = folder / "cwd"
        for made in (self.temporary, self.cwd):
            made.mkdir()
            made.chmod(0o1777)
        self.homes: list[Path] = []
        self.secrets: dict[str, bytes] = {}
        self.samples = 0
        self._evidence: dict[bytes, tuple[str, bytes]] = {}

    @property
    def env(self) -> dict[str, str]:
        """What a process's environment needs for the gate to see its temporary files."""
        return {"TMPDIR": str(self.temporary)}

    def learn(self, name: str, secret: bytes) -> None:
        """Take a secret that must not be found anywhere from now on."""
        self.secrets[f"{name} {len(self.secrets)}"] = secret

    def learn_pins(self, home: Path) -> None:
        """Take every PIN that lies in an installation, and look into that at the end."""
        if home not in self.homes:
            self.homes.append(home)
        for file in sorted(home.iterdir()):
            pin = file.read_bytes().removesuffix(b"\n") if _is_pin_file(file) else b""
            if pin and pin not in self.secrets.values():
                self.learn(f"PIN of {file.name}", pin)

    def see(self, place: str, data: bytes) -> None:
        """Keep something to be looked through."""
        for at in range(0, len(data), BLOCK):
            block = data[at : at + BLOCK + OVERLAP]
            self._evidence.setdefault(hashlib.sha256(block).digest(), (place, block))

    def follow(self, started: subprocess.Popen[bytes], what: str = "") -> Run:
        """Look at a process, and at all that it starts, until it has ended."""
        name = what or Path(str(started.args[-1] if isinstance(started.args, list) else "")).name
        with self._sampling(started.pid, name):
            run = process.finish(started)
        self.see(f"standard output of {name}", run.out)
        self.see(f"standard error of {name}", run.err)
        return run

    def follow_getkey(self, started: subprocess.Popen[bytes], what: str) -> Run:
        """As :meth:`follow`; the key in the answer's one ``cipher_key`` line is a new secret."""
        with self._sampling(started.pid, what):
            run = process.finish(started)
        out = run.out
        with suppress(RefusedError):
            self.learn(f"key of {what}", read_reply(out).key)
            out, count = _KEY_LINE.subn(b"", out)
            assert count == 1, what
        self.see(f"answer of {what}", out)
        self.see(f"standard error of {what}", run.err)
        return run

    def check(self) -> None:
        """Look through everything.

        :raises AssertionError: that says what was found where, if anything was.
        """
        found = self.leaks()
        assert not found, "\n".join(found)

    def leaks(self) -> list[str]:
        """Return a line for each secret that was found; the secrets are not in it."""
        assert self.secrets, "there is nothing to look for"
        for folder in (*self.homes, self.temporary, self.cwd):
            self._see_files(folder)
        return sorted(
            f"{name} ({spelling}) in {place}"
            for place, block in self._evidence.values()
            for name, spelling in search(block, self.secrets)
        )

    def _see_files(self, folder: Path) -> None:
        for file in sorted(folder.rglob("*")):
            self.see("the name of a file", str(file).encode())
            if file.is_file() and not (folder in self.homes and _is_pin_file(file)):
                self._see_file(file)

    def _see_file(self, file: Path, name: str = "") -> None:
        with suppress(OSError):
            self.see(f"file {name or file.name}", file.read_bytes())

    @contextmanager
    def _sampling(self, leader: int, what: str) -> Iterator[None]:
        ended = threading.Event()
        strangers: set[str] = set()

        def sample() -> None:
            while not ended.wait(PAUSE_SECONDS):
                self._sample(_members(leader, strangers), what)

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _sample(self, members: Iterable[str], what: str) -> None:
        self.samples += 1
        for pid in members:
            for name in ("cmdline", "environ", "comm"):
                with suppress(OSError):
                    self.see(f"{name} of {what}", Path(f"/proc/{pid}/{name}").read_bytes())
            self._see_unlinked(Path(f"/proc/{pid}/fd"), what)
        for folder in (self.temporary, self.cwd):
            for file in folder.rglob("*"):
                self._see_file(file)
        for home in self.homes:
            for pattern in TRANSIENT:
                for file in home.glob(pattern):
                    self._see_file(file)

    def _see_unlinked(self, folder: Path, what: str) -> None:
        """Look into files that a process has open and that have no name."""
        with suppress(OSError):
            for link in list(folder.iterdir()):
                with suppress(OSError):
                    if "(deleted)" in str(link.readlink()) and link.is_file():
                        self._see_file(link, f"without a name, of {what}")


def _members(leader: int, strangers: set[str]) -> list[str]:
    """Return the processes of a session; ``strangers`` are not looked at again."""
    found = []
    for pid in {file.name for file in Path("/proc").glob("[0-9]*")} - strangers:
        try:
            session = os.getsid(int(pid))
        except OSError:
            continue
        if session == leader:
            found.append(pid)
        else:
            strangers.add(pid)
    return found


def _is_pin_file(file: Path) -> bool:
    return file.is_file() and PIN_FILES.fullmatch(file.name) is not None


def unprivileged_core_limit() -> None:
    """Let a process dump core if it does nothing against that itself."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    os.umask(0o022)
