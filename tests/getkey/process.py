"""Running hwkm as another program does: which command, which user, and what is left behind."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import hwkm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SCRIPT = Path(sysconfig.get_path("scripts")) / "hwkm"
PROJECT = Path(hwkm.__file__).parent.parent
IMPORTS = "import hwkm.cli, hwkm.getkey, hwkm.keystore.migrate"
RUN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class User:
    """Somebody on this machine."""

    name: str
    uid: int
    gid: int

    @classmethod
    def named(cls, name: str) -> User:
        """Return the user called ``name``."""
        found = pwd.getpwnam(name)
        return cls(name, found.pw_uid, found.pw_gid)


ME = User(pwd.getpwuid(os.geteuid()).pw_name, os.geteuid(), os.getegid())
IS_ROOT = ME.uid == 0


@dataclass(frozen=True, slots=True)
class Command:
    """How hwkm is started here, and what has to be added to the environment for it."""

    words: tuple[str, ...]
    python_path: str = ""

    @property
    def env(self) -> dict[str, str]:
        """What the environment needs."""
        return {"PYTHONPATH": self.python_path} if self.python_path else {}

    @property
    def interpreter(self) -> str:
        """Return the interpreter that hwkm runs in."""
        return self.words[0] if len(self.words) > 1 else sys.executable


@dataclass(frozen=True, slots=True)
class Run:
    """How a process ended. ``left`` are the processes of its session that outlived it."""

    out: bytes
    err: bytes
    status: int
    seconds: float
    left: tuple[int, ...]


@cache
def command() -> Command:
    """Return a command that starts hwkm for this user, and for others if there is one.

    An interpreter under /root, as version managers install them, is out of everybody's reach; then
    the system's own of the same version does.
    """
    found = _commands()
    user = "nobody" if IS_ROOT else ME.name
    return next((one for one in found if _works_for(one, user)), found[0])


def why_not_as_another() -> str:
    """Return why hwkm can't be started as another user, or "" if it can."""
    if not IS_ROOT:
        return "only root can start a process as another user"
    if not _works_for(command(), "nobody"):
        return f"{sys.executable} or {PROJECT} is out of reach for the user nobody"
    return ""


@cache
def _works_for(candidate: Command, user: str) -> bool:
    other = None if user == ME.name else User.named(user)
    with suppress(PermissionError):
        done = subprocess.run(
            [candidate.interpreter, "-c", IMPORTS],
            env={"PATH": os.defpath, **candidate.env},
            cwd="/",
            user=None if other is None else other.uid,
            group=None if other is None else other.gid,
            extra_groups=None if other is None else [],
            capture_output=True,
            check=False,
        )
        return done.returncode == 0 and (len(candidate.words) > 1 or SCRIPT.exists())
    return False


def _commands() -> list[Command]:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    system = shutil.which(version, path="/usr/local/bin:/usr/bin:/bin")
    found = [Command((str(SCRIPT),))]
    if system is not None:
        paths = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(PROJECT))
        found.append(Command((system, "-m", "hwkm"), os.pathsep.join(dict.fromkeys(paths))))
    return found


def start(
    words: Sequence[str],
    env: Mapping[str, str | bytes],
    *,
    user: User = ME,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    cwd: str | Path = "/",
    prefix: Sequence[str] = (),
    prepare: Callable[[], object] | None = None,
) -> subprocess.Popen[bytes]:
    """Start hwkm with ``words`` in a session of its own, as Bacula does.

    ``prefix`` is a command that becomes it, ``prepare`` is called in the new process.
    """
    found = command()
    other = user != ME
    return subprocess.Popen(
        [*prefix, *found.words, *words],
        env={**found.env, **env},
        cwd=cwd,
        umask=0o022,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        user=user.uid if other else None,
        group=user.gid if other else None,
        extra_groups=[] if other else None,
        preexec_fn=prepare,
    )


def finish(process: subprocess.Popen[bytes], timeout: float = RUN_SECONDS) -> Run:
    """Wait for a process, and end whatever of its session outlives it."""
    started = time.monotonic()
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        end_session(process.pid)
        process.communicate()
        raise
    seconds = time.monotonic() - started
    left = session(process.pid)
    end_session(process.pid)
    return Run(out or b"", err or b"", process.returncode, seconds, left)


def session(leader: int) -> tuple[int, ...]:
    """Return the living processes of a session."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] not in "ZX":
                found.append(int(entry.name))
    return tuple(found)


def end_session(leader: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal, the one that ends them, to every process of a session."""
    for pid in session(leader):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is so; return whether it came to be in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
