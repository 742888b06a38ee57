"""A unit's sandbox without systemd: what this kernel lets root do to a process itself.

``python sandbox.py UNIT COMMAND...``, run below ``unshare --mount --net``, becomes COMMAND with the
settings of the unit: user, groups, capabilities, limits, read-only mounts, /proc, system calls,
address families, no writable code. Not done: devices, PrivateTmp, ProtectHome, and the kernel's
files that the other Protect...= settings hide. The filters are made as systemd.exec(5) words them.
"""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import pwd
import re
import resource
import shlex
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_SET_MDWE = 38, 22, 65
PR_CAPBSET_DROP, LAST_CAPABILITY = 24, 40
SECCOMP_MODE_FILTER = 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LOAD, AND, IF_EQUAL, RETURN = 0x20, 0x54, 0x15, 0x06
ARGUMENTS = 16
"""Where the arguments begin in struct seccomp_data."""
PROT_WRITE, PROT_EXEC, SHM_EXEC = 2, 4, 0o100000

Instruction = tuple[int, int, int, int]
libc = ctypes.CDLL(None, use_errno=True)


class Unit:
    """The settings of a unit, each with all its values in order."""

    def __init__(self, text: str) -> None:
        lines = (line for line in text.splitlines() if line and line[0] not in "#[;")
        self.settings = [tuple(line.split("=", 1)) for line in lines]

    def all(self, name: str) -> list[str]:
        """Return every value of a setting."""
        return [value for key, value in self.settings if key == name]

    def words(self, name: str) -> list[str]:
        """Return the words of all values of a setting."""
        return [word for value in self.all(name) for word in shlex.split(value)]

    def one(self, name: str) -> str:
        """Return the value of a setting that must be there."""
        (value,) = self.all(name)
        return value


# --- mounts ---


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def mount_points() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4].encode().decode("unicode_escape") for line in lines]


def make_read_only(unit: Unit) -> None:
    """Do as ProtectSystem=strict with ReadWritePaths=, ReadOnlyPaths= and InaccessiblePaths=."""
    assert unit.one("ProtectSystem") == "strict"
    writable = unit.words("ReadWritePaths")
    for path in writable:
        mount("--bind", path, path)
    for point in mount_points():
        if not point.startswith(("/proc", "/sys", "/dev", *writable)):
            mount("-o", "remount,bind,ro", point)
    for path in unit.words("ReadOnlyPaths"):
        mount("--bind", path.removeprefix("-"), path.removeprefix("-"))
        mount("-o", "remount,bind,ro", path.removeprefix("-"))
    for path in unit.words("InaccessiblePaths"):
        mount("--bind", "/dev/null", path.removeprefix("-"))
    subset = "pid" if unit.one("ProcSubset") == "pid" else ""
    options = f"hidepid={unit.one('ProtectProc')},subset={subset}"
    mount("-t", "proc", "-o", options, "proc", "/proc")


# --- system calls ---


def numbers() -> dict[str, int]:
    """Return the system calls of this machine, as its C headers number them."""
    command = ["gcc", "-dM", "-E", "-include", "sys/syscall.h", "-x", "c", "/dev/null"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.findall(r"__NR_(\w+) (\d+)$", text, re.MULTILINE)
    return {name: int(number) for name, number in found}


def members(name: str) -> set[str]:
    """Return the system calls of one of systemd's groups."""
    if not name.startswith("@"):
        return {name}
    command = ["systemd-analyze", "syscall-filter", "--no-pager", name]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    words = (line.strip() for line in text.splitlines() if line.startswith("    "))
    return {call for word in words if not word.startswith("#") for call in members(word)}


def allowed_calls(unit: Unit) -> set[str]:
    """Return what SystemCallFilter= allows; the first line makes it a list of what is."""
    allowed: set[str] = set()
    for value in unit.all("SystemCallFilter"):
        calls = {call for word in value.lstrip("~").split() for call in members(word)}
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    # systemd adds what it and every program need to get as far as the program.
    return allowed | members("@default") | {"execve"}


def refused(code: int) -> Instruction:
    return (RETURN, 0, 0, ERRNO | code)


def unless_bits(number: int, argument: int, bits: int) -> list[Instruction]:
    """Refuse a call with all of these bits in an argument."""
    return [
        (LOAD, 0, 0, 0),
        (IF_EQUAL, 0, 4, number),
        (LOAD, 0, 0, ARGUMENTS + 8 * argument),
        (AND, 0, 0, bits),
        (IF_EQUAL, 0, 1, bits),
        refused(errno.EPERM),
    ]


def families(number: int, allowed: list[int]) -> list[Instruction]:
    """Refuse sockets of other families."""
    checks = [(IF_EQUAL, len(allowed) - at, 0, one) for at, one in enumerate(allowed)]
    return [
        (LOAD, 0, 0, 0),
        (IF_EQUAL, 0, len(checks) + 2, number),
        (LOAD, 0, 0, ARGUMENTS),
        *checks,
        refused(errno.EAFNOSUPPORT),
    ]


def program(unit: Unit) -> list[Instruction]:
    """Return the whole filter."""
    known, code = numbers(), list[Instruction]()
    if unit.one("MemoryDenyWriteExecute") == "yes":
        code += unless_bits(known["mmap"], 2, PROT_WRITE | PROT_EXEC)
        for name in ("mprotect", "pkey_mprotect"):
            code += unless_bits(known[name], 2, PROT_EXEC)
        code += unless_bits(known["shmat"], 2, SHM_EXEC)
    code += families(
        known["socket"], [getattr(socket, name) for name in unit.words("RestrictAddressFamilies")]
    )
    code.append((LOAD, 0, 0, 0))
    for number in sorted(known[name] for name in allowed_calls(unit) & known.keys()):
        code += [(IF_EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    code.append(refused(getattr(errno, unit.one("SystemCallErrorNumber"))))
    return code


def install(code: list[Instruction]) -> None:
    packed = b"".join(struct.pack("=HBBI", *one) for one in code)
    buffer = ctypes.create_string_buffer(packed, len(packed))
    header = struct.pack("@HP", len(code), ctypes.addressof(buffer))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header)


def prctl(option: int, value: int, data: bytes | None = None) -> None:
    words = (ctypes.c_ulong(value), data or ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    if libc.prctl(option, *words) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


# --- the process ---


def become(unit: Unit) -> None:
    """Become the unit's user, without any capability that could ever come back."""
    assert unit.all("CapabilityBoundingSet") == [""]
    assert unit.one("NoNewPrivileges") == "yes"
    groups = [grp.getgrnam(name).gr_gid for name in unit.words("SupplementaryGroups")]
    user, group = pwd.getpwnam(unit.one("User")), grp.getgrnam(unit.one("Group")).gr_gid
    for number in range(LAST_CAPABILITY + 1):
        prctl(PR_CAPBSET_DROP, number)
    os.setgroups([*os.getgrouplist(user.pw_name, group), *groups])
    os.setresgid(group, group, group)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    core = int(unit.one("LimitCORE"))
    resource.setrlimit(resource.RLIMIT_CORE, (core, core))
    os.umask(int(unit.one("UMask"), 8))


def main() -> None:
    unit, command = Unit(Path(sys.argv[1]).read_text()), sys.argv[2:]
    code = program(unit)
    make_read_only(unit)
    become(unit)
    if unit.one("MemoryDenyWriteExecute") == "yes":
        with suppress(OSError):  # Linux before 6.3; the filter does it there
            prctl(PR_SET_MDWE, 1)
    install(code)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
