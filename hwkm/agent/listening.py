"""The agent's socket: one agent at a time, no stranger in between, and none left behind."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from hwkm.agent.peers import gid_of
from hwkm.errors import ConfigError, HwkmError

if TYPE_CHECKING:
    from pathlib import Path

    from hwkm.config import AgentSettings

LOCK = "agent.lock"
BACKLOG = 256
"""How many clients may wait to be connected; one more is told at once that it can't be."""


class AlreadyRunningError(HwkmError):
    """There is an agent already."""


def lock(runtime_dir: Path) -> int:
    """Become the only agent of an installation, as long as the descriptor returned is open.

    :raises AlreadyRunningError: if there is one.
    :raises ConfigError: if the lock can't be opened.
    """
    path = runtime_dir / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"the lock {path} can't be opened: {error.strerror}",
            hint="The runtime directory must exist and belong to the user that hwkm runs as",
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyRunningError(
            "an agent of this installation runs already", hint="hwkm agent status shows it"
        ) from None
    return descriptor


def listen(settings: AgentSettings, gid: int | None) -> socket.socket:
    """Return a socket that listens where ``settings`` say.

    It is made under another name, and appears under its own with its mode and the group ``gid``.

    :raises AlreadyRunningError: if somebody listens there.
    :raises ConfigError: if there can be no such socket.
    """
    _refuse_used(settings.socket)
    scratch = settings.socket.with_name(f".{os.getpid()}")  # not longer than it has to be
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        scratch.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            listener.bind(str(scratch))
        finally:
            os.umask(mask)
        listener.listen(BACKLOG)
        admit(settings, scratch, gid)
        scratch.rename(settings.socket)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"the socket {settings.socket} can't be made: {error.strerror or error}",
            hint="Its folder must exist and belong to the user that hwkm runs as",
        ) from error
    except BaseException:
        listener.close()
        raise
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
    return listener


def group_of(settings: AgentSettings) -> int | None:
    """Return the number of the group that the socket is to have; looked up.

    :raises ConfigError: if there is no such group.
    """
    return None if settings.group is None else gid_of("group", settings.group)


def admit(settings: AgentSettings, path: Path, gid: int | None) -> None:
    """Give the socket at ``path`` the group ``gid``, if any, and the mode of ``settings``.

    :raises ConfigError: if it can't be given to that group.
    """
    try:
        if gid is not None:
            os.chown(path, -1, gid)
        path.chmod(settings.mode)
    except OSError as error:
        raise ConfigError(
            f"the socket can't be given to the group {settings.group}: {error.strerror}",
            hint="The user that hwkm runs as must be in that group",
        ) from error


def _refuse_used(path: Path) -> None:
    """Refuse a name that is in use; a socket that nobody listens to was left by a crash."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"{path} is there, and is no socket", hint="Correct agent.socket")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"the socket {path} can't be made: {error.strerror}") from error
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
        except OSError:
            pass  # whoever does not take a connection in time is there all the same
    raise AlreadyRunningError(f"somebody listens at {path} already")
