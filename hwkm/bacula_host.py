"""What the machine of a Bacula Storage Daemon tells: programs, disks and processes.

Nothing here knows of configuration directives. ``root`` is the folder where the machine's files
begin, ``/`` for the machine this runs on.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a service finds programs: the PATH that systemd gives it (systemd.exec(5))."""

_STARTERS = (
    "etc/default/bacula-sd",
    "etc/sysconfig/bacula-sd",
    "etc/init.d/bacula-sd",
    *(
        f"{folder}/systemd/system/bacula-sd.service{files}"
        for folder in ("etc", "run", "usr/lib")
        for files in ("", ".d/*.conf")
    ),
)
_CONNECT = """
import sys
from _socket import AF_UNIX, SOCK_STREAM, socket
try:
    made = socket(AF_UNIX, SOCK_STREAM)
    made.settimeout(5)
    made.connect(sys.argv[1])
except OSError as error:
    print(error.strerror or error)
"""
_DEBUG_OPTION = re.compile(r"(?:^|[\s\"'=])-[fmpPstTv?]*d\s*([0-9]{1,9})", re.MULTILINE)


def find_program(program: str) -> str | None:
    """Return the full path of a program, searched for as execvp does for a service.

    None means that it is not there. A path that this process may not look into is returned:
    only the user in question can tell.
    """
    try:
        if "/" not in program:
            return shutil.which(program, path=SERVICE_PATH)
        path = Path("/", program)  # a relative path starts where services run
        path.stat()
    except PermissionError:
        return str(path)
    except (OSError, ValueError):
        return None
    return str(path)


def can_run(program: str, user: str) -> bool | None:
    """Try, as a user and with that user's groups, whether it may run a program.

    ``program`` is a full path. None means that this can't be tried: there is no such user, or
    this process is neither root nor that user.
    """
    try:
        tried = run_as(user, ["/usr/bin/test", "-f", program, "-a", "-x", program])
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return None if tried is None else tried.returncode == 0


def trouble_connecting(socket: Path, user: str, python: str) -> str | None:
    """Try, as a user, to connect to a Unix socket; return what hinders it, "" if nothing does.

    ``python`` is the interpreter that tries, so that user must be able to run it too. None means
    as it does for :func:`can_run`.
    """
    try:
        tried = run_as(user, [python, "-I", "-S", "-c", _CONNECT, str(socket)])
    except OSError as error:
        return f"{python} can't be run: {error.strerror}"
    except (ValueError, subprocess.SubprocessError) as error:
        return f"{python} did not end well: {type(error).__name__}"
    if tried is None:
        return None
    if tried.returncode:
        return f"{python} ends with status {tried.returncode}"
    return tried.stdout.strip()


def run_as(user: str, command: list[str]) -> subprocess.CompletedProcess[str] | None:
    """Run a command as a user and with that user's groups, in an empty environment.

    None means that this can't be done: there is no such user, or this process is neither root nor
    that user.

    :raises OSError: if the command can't be started.
    """
    try:
        account = pwd.getpwnam(user)
    except (KeyError, ValueError):
        return None
    become: dict[str, Any] = {}
    if os.geteuid() != account.pw_uid:
        if os.geteuid() != 0:
            return None
        groups = os.getgrouplist(user, account.pw_gid)
        become = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, cwd="/", env={}, timeout=10, **become
    )


def is_safe_at_rest(folder: str, root: Path) -> bool:
    """Return whether what is written into a folder is encrypted (dm-crypt) or only in memory.

    False also if that can't be told: a file system of several devices, or one over the network.
    Source: proc_pid_mountinfo(5), and dm/uuid and slaves in the kernel's sysfs.
    """
    try:
        number = Path(folder).stat().st_dev
        device = f"{os.major(number)}:{os.minor(number)}"
        mounts = (root / "proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except (OSError, ValueError):
        return False
    # The third field is the device; the type follows a lone hyphen.
    in_memory = any(
        line.split()[2:3] == [device] and line.partition(" - ")[2].startswith(("tmpfs ", "ramfs "))
        for line in mounts
    )
    return in_memory or _is_crypt(root / "sys/dev/block" / device, levels=8)


def _is_crypt(block: Path, *, levels: int) -> bool:
    # Encrypted itself, or wholly on what is encrypted: LVM or RAID over LUKS.
    try:
        if (block / "dm/uuid").read_text("ascii").startswith(("CRYPT-LUKS", "CRYPT-PLAIN")):
            return True
    except (OSError, ValueError):
        pass
    below = list((block / "slaves").glob("*")) if levels else []
    return bool(below) and all(_is_crypt(lower, levels=levels - 1) for lower in below)


def debug_levels(root: Path) -> Iterator[tuple[str, int]]:
    """Yield where a Storage Daemon has, or will be given, a debug level (``-d``), and which.

    Looks at the running processes, the service's units with their drop-ins, and its defaults. A
    level set later (``setdebug`` in bconsole) shows only in the trace file.
    """
    yield from _running_levels(root / "proc")
    for pattern in _STARTERS:
        for path in sorted(root.glob(pattern)):
            yield from ((str(path), level) for level in _levels(_uncommented(path)))


def _running_levels(proc: Path) -> Iterator[tuple[str, int]]:
    for process in sorted(proc.glob("[0-9]*")):
        try:
            if (process / "comm").read_text("utf-8", "replace").strip() != "bacula-sd":
                continue
            options = (process / "cmdline").read_text("utf-8", "replace").replace("\0", " ")
        except OSError:
            continue  # it has ended, or is not ours to see
        yield from ((f"process {process.name}", level) for level in _levels(options))


def _uncommented(path: Path) -> str:
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return "\n".join(line for line in lines if not line.lstrip().startswith(("#", ";")))


def _levels(options: str) -> list[int]:
    return [int(level) for level in _DEBUG_OPTION.findall(options)]
