"""A PostgreSQL server of the tests' own: private, in a temporary folder, on a unix socket only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from tests.modules.processes import BASE_ENV

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSIONS = Path("/usr/lib/postgresql")
USER = "postgres"
ROLE = "hwkm"
TOOL_SECONDS = 60
SETTINGS = (
    "listen_addresses=",
    # The machine itself does not crash here; the server does, and then must not lose a commit
    # of hwkm's, whatever it was told about those of others.
    "fsync=off",
    "synchronous_commit=off",
)


@dataclass(slots=True)
class Server:
    """A server whose files are all in ``folder``."""

    folder: Path
    tools: Path
    _numbers: Iterator[int] = field(default_factory=count)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def run(self, tool: str, *arguments: str) -> str:
        """Run one of PostgreSQL's own tools as the server's user, and return what it prints.

        :raises RuntimeError: with all its output, if it fails.
        """
        done = subprocess.run(
            [*_as_user("--no-new-privs"), str(self.tools / tool), *arguments],
            cwd=self.folder,
            env={**BASE_ENV, "PGHOST": str(self.folder), "PGUSER": ROLE},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TOOL_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{tool}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self) -> None:
        """Start the server; it ends when this process does."""
        settings = (*SETTINGS, f"unix_socket_directories={self.folder}")
        options = [word for setting in settings for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_user("--pdeathsig=QUIT"), self.tools / "postgres", "-D", self.data, *options],
                cwd=self.folder,
                env=BASE_ENV,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + TOOL_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self.folder / "log").read_text(errors="replace"))
            time.sleep(0.02)

    def crash(self) -> None:
        """Stop the server at once, if it runs, without bringing anything in order."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(TOOL_SECONDS)

    def own(self, path: Path) -> None:
        """Give ``path`` to the server's user."""
        if os.geteuid() == 0:
            shutil.chown(path, USER, USER)

    def new_database(self, place: Path | None = None) -> str:
        """Make an empty database, with its tables in ``place``; return its SQLAlchemy URL."""
        name = f"keystore{next(self._numbers)}"
        if place is None:
            self._execute(f"CREATE DATABASE {name}")
        else:
            self._execute(f"CREATE TABLESPACE {name} LOCATION '{place}'")
            self._execute(f"CREATE DATABASE {name} TABLESPACE {name}")
        return f"postgresql+psycopg://{ROLE}@/{name}?host={self.folder}"

    def initialize(self) -> None:
        options = ("--auth", "trust", "--username", ROLE, "--encoding", "UTF8", "--no-sync")
        self.run("initdb", "--pgdata", str(self.data), "--locale", "C.UTF-8", *options)

    def _answers(self) -> bool:
        try:
            self._execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _execute(self, statement: str) -> None:
        place = f"host={self.folder} user={ROLE} dbname=postgres"
        with psycopg.connect(place, autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def running() -> Iterator[Server]:
    """Yield a new server, started; stop it and remove it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="hwkm-postgres-"))
    server = Server(folder, _tools())
    try:
        server.own(folder)
        server.initialize()
        server.start()
        try:
            yield server
        finally:
            server.crash()
    finally:
        shutil.rmtree(folder)


def _tools() -> Path:
    found = sorted(VERSIONS.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise RuntimeError("packages are missing: apt-get install postgresql")
    return found[-1].parent


def _as_user(*options: str) -> list[str]:
    """Return what starts a command as the server's user; the server refuses to run as root."""
    user = [f"--reuid={USER}", f"--regid={USER}", "--init-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *user, *options, "--"]
