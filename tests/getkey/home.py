"""An installation in a folder of its own, asked for keys as the Storage Daemon asks."""

from __future__ import annotations

import base64
import os
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import process
from .process import ME, Run, User
from .replies import RefusedError, Reply, read_reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

# What Debian's unit gives the Storage Daemon and its children, less what only the tests need.
STORAGE_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
    "LANG": "C.UTF-8",
    "HOME": "/var/lib/bacula",
    "USER": "bacula",
    "LOGNAME": "bacula",
    "SHELL": "/usr/sbin/nologin",
    "CONFIG": "/etc/bacula/bacula-sd.conf",
    "LD_LIBRARY_PATH": "/usr/lib/bacula",
}
OPTIONS = ("--device", "/dev/nst0", "--job", "7")
VOLUME = "Vol-0001"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call answered: a reply, or the text of its ``error:`` line."""

    out: bytes
    reply: Reply | None
    error: str

    @classmethod
    def of(cls, run: Run) -> Answer:
        """Check what must hold for every call, and read its answer by Bacula's rules."""
        assert run.status == 0, run
        assert run.err == b"", run
        assert run.left == (), run
        assert run.out.endswith(b"\n"), run
        try:
            reply, refusal = read_reply(run.out), ""
        except RefusedError as refused:
            reply, refusal = None, str(refused)
        if reply is not None:
            assert run.out.count(b"\n") == 5, run
            return cls(run.out, reply, "")
        found = re.fullmatch(rb"error: ([^\r\n]+)\n", run.out)
        assert found is not None, (refusal, run)
        return cls(run.out, None, found[1].decode())

    @property
    def given(self) -> Reply:
        """The reply; there must be one."""
        assert self.reply is not None, self.error
        return self.reply


@dataclass(frozen=True, slots=True)
class Home:
    """A folder that ``hwkm init`` made, and the user that it is for."""

    path: Path
    user: User = ME

    @classmethod
    def create(cls, path: Path, user: User = ME) -> Home:
        """Let ``hwkm init`` make an installation for ``user``; it logs to a file."""
        words = ["init", "--home", str(path), "--softhsm"]
        owner = [] if user == ME else ["--owner", user.name]
        run = process.finish(process.start([*words, *owner], {"PATH": STORAGE_ENV["PATH"]}))
        assert run.status == 0, run
        home = cls(path, user)
        home.edit('log = "syslog"', f'log = "{home.log_file}"')
        return home

    def copy(self, path: Path) -> Home:
        """Return a copy of this installation in another folder, for the same user."""
        shutil.copytree(self.path, path)
        other = Home(path, self.user)
        for name in ("config.toml", "softhsm2.conf"):
            file = path / name
            file.write_text(file.read_text().replace(str(self.path), str(path)))
        for file in (path, *path.rglob("*")):
            os.chown(file, self.user.uid, self.user.gid)
        return other

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.path / "config.toml"

    @property
    def log_file(self) -> Path:
        """Where hwkm logs to."""
        return self.path / "hwkm.log"

    @property
    def log(self) -> list[str]:
        """The log's lines so far."""
        return self.log_file.read_text().splitlines() if self.log_file.exists() else []

    def edit(self, old: str, new: str) -> None:
        """Replace text in the configuration."""
        text = self.config.read_text()
        assert old in text, (old, text)
        self.config.write_text(text.replace(old, new))

    def use_shim(self, module: Path) -> None:
        """Put the misbehaving module between hwkm and SoftHSM."""
        text = self.config.read_text()
        found = re.search(r"module-path=([^&\"]+)", text)
        assert found is not None, text
        text = text.replace(found[0], f"module-path={module}")
        names = f'SHIM_MODULE = "{found[1]}", SHIM_SECONDS = "30", SHIM_PLAN = "", '
        self.config.write_text(text.replace("environment = { ", "environment = { " + names))

    def plan(self, plan: str) -> None:
        """Say what the misbehaving module is to do from now on."""
        text = self.config.read_text()
        assert "SHIM_PLAN" in text, text
        self.config.write_text(re.sub(r'SHIM_PLAN = "[^"]*"', f'SHIM_PLAN = "{plan}"', text))

    def start(
        self,
        operation: str | bytes | None = "READ",
        volume: str | bytes | None = VOLUME,
        wrapped: str | bytes = b"",
        *,
        options: Sequence[str] = OPTIONS,
        before: Sequence[str] | None = None,
        env: Mapping[str, str | bytes] | None = None,
        user: User | None = None,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        cwd: str | Path = "/",
        prefix: Sequence[str] = (),
        prepare: Callable[[], object] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start ``hwkm getkey``. ``before`` takes the place of ``--config FILE``."""
        request: dict[str, str | bytes] = {"MASTER_KEYID": ""}
        text = wrapped if isinstance(wrapped, str) else base64.b64encode(wrapped)
        request |= {"ENC_CIPHER_KEY": text}
        request |= {} if operation is None else {"OPERATION": operation}
        request |= {} if volume is None else {"VOLUME_NAME": volume}
        words = ["--config", str(self.config)] if before is None else before
        return process.start(
            [*words, "getkey", *options],
            {**STORAGE_ENV, **request, **(env or {})},
            user=user or self.user,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            prefix=prefix,
            prepare=prepare,
        )

    def getkey(
        self,
        operation: str | bytes | None = "READ",
        volume: str | bytes | None = VOLUME,
        wrapped: str | bytes = b"",
        **how: Any,
    ) -> Answer:
        """Ask for a key as :meth:`start` does, and return the answer of a call that went well."""
        return Answer.of(process.finish(self.start(operation, volume, wrapped, **how)))

    def hwkm(self, *words: str, user: User | None = None) -> Run:
        """Run another command of hwkm on this installation."""
        env = {"PATH": STORAGE_ENV["PATH"], "LC_ALL": "C.UTF-8"}
        started = process.start(["--config", str(self.config), *words], env, user=user or self.user)
        return process.finish(started)

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Return what the keystore answers to an SQL statement."""
        with closing(sqlite3.connect(self.path / "keystore.db")) as connection:
            rows: list[tuple[Any, ...]] = connection.execute(statement, values).fetchall()
        return rows

    def events(self) -> list[tuple[Any, ...]]:
        """Return operation, outcome, volume and job of all events."""
        return self.query("SELECT operation, outcome, volume, job FROM event ORDER BY event_id")

    def owners(self) -> set[int]:
        """Return the ids of all users who own anything here."""
        return {file.lstat().st_uid for file in (self.path, *self.path.rglob("*"))}
