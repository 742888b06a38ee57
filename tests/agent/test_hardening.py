"""What a process takes from itself, read back from the kernel in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.getkey import process

if TYPE_CHECKING:
    from collections.abc import Sequence

NOT_AS_ANOTHER = process.why_not_as_another()
as_root = pytest.mark.skipif(not process.IS_ROOT, reason="only root has the right to lock memory")
as_nobody = pytest.mark.skipif(bool(NOT_AS_ANOTHER), reason=NOT_AS_ANOTHER)
MEBIBYTE = 2**20
BOUNDED = 8 * MEBIBYTE

LOOK = """
import ctypes, json, os, resource, sys
from hwkm.agent.hardening import harden

def look():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return {
        "dumpable": ctypes.CDLL(None).prctl(3),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "new_privileges": int(status["NoNewPrivs"]) == 0,
        "umask": int(status["Umask"], 8),
        "locked_kib": int(status["VmLck"].split()[0]),
        "owner_of_proc": os.stat("/proc/self/mem").st_uid,
    }

before = look()
notes = harden()
more = bytearray(4 * 2**20)
again = harden()
after = look()
child = os.fork()
if child == 0:
    print(json.dumps({"before": before, "after": after, "forked": look(), "notes": [notes, again]}))
    sys.exit()
os.waitpid(child, 0)
"""


@dataclass(frozen=True)
class Seen:
    """What the process saw of itself before and after, and what a child of it saw."""

    before: dict[str, Any]
    after: dict[str, Any]
    forked: dict[str, Any]
    notes: list[list[str]]


def hardened(user: process.User, lockable: int, *rights: str) -> Seen:
    """Harden a process of ``user`` with ``rights`` that may lock ``lockable`` bytes of memory."""
    limits = ("prlimit", f"--memlock={_limit(lockable)}", "--core=0:")
    done = python(user, LOOK, before=limits, rights=rights)
    assert done.returncode == 0, done.stderr
    return Seen(**json.loads(done.stdout))


def _limit(number: int) -> str:
    return "unlimited" if number == resource.RLIM_INFINITY else str(number)


def may_be_unlimited() -> bool:
    """Return whether a process of root may lock as much as it likes."""
    raised = ("prlimit", "--memlock=unlimited", "true")
    return subprocess.run(raised, capture_output=True, check=False).returncode == 0


def python(
    user: process.User, script: str, before: Sequence[str] = (), rights: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Let Python run a script as ``user``; the command ``before`` becomes it."""
    found = process.command()
    become = (f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", *rights)
    as_user = () if user == process.ME else ("setpriv", *become)
    return subprocess.run(
        [*before, *as_user, found.interpreter, "-c", script],
        env={"PATH": "/usr/bin:/bin", **(found.env or {"PYTHONPATH": str(process.PROJECT)})},
        cwd="/",
        umask=0o022,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def users() -> list[Any]:
    """Return this user, and another where there can be one."""
    return [process.ME, pytest.param(process.User.named("nobody"), marks=as_nobody)]


@pytest.mark.parametrize("user", users(), ids=lambda user: user.name)
def test_what_every_user_gets(user: process.User) -> None:
    seen = hardened(user, BOUNDED)
    assert seen.before["dumpable"] == 1
    assert seen.before["umask"] == 0o022
    for now in (seen.after, seen.forked):
        assert now["dumpable"] == 0
        assert now["core"][0] <= 1
        assert now["core"][1] <= 1
        assert not now["new_privileges"]
        assert now["umask"] == 0o077
        assert now["owner_of_proc"] == 0  # what ptrace_may_access() goes by


@as_root
def test_memory_is_locked_by_root_whatever_the_limit() -> None:
    check_locked(hardened(process.ME, BOUNDED))


@as_nobody
def test_memory_is_locked_by_who_has_the_right_to() -> None:
    right = ("--inh-caps=+ipc_lock", "--ambient-caps=+ipc_lock")
    check_locked(hardened(process.User.named("nobody"), BOUNDED, *right))


@as_nobody
@pytest.mark.skipif(not may_be_unlimited(), reason="RLIMIT_MEMLOCK can't be raised here")
def test_memory_is_locked_where_there_is_no_limit() -> None:
    check_locked(hardened(process.User.named("nobody"), resource.RLIM_INFINITY))


def check_locked(seen: Seen) -> None:
    assert seen.notes == [[], []]
    assert seen.before["locked_kib"] == 0
    assert seen.after["locked_kib"] > (BOUNDED + 4 * MEBIBYTE) // 1024
    assert seen.forked["locked_kib"] == 0  # so a child must lock its own


@as_nobody
@pytest.mark.parametrize("limit", [0, BOUNDED])
def test_memory_is_not_locked_below_a_limit(limit: int) -> None:
    seen = hardened(process.User.named("nobody"), limit)
    ((note,), again) = seen.notes
    assert again == [note]
    assert "LimitMEMLOCK=infinity" in note
    assert seen.after["locked_kib"] == 0


def test_a_process_of_the_same_user_can_not_look_into_it() -> None:
    if process.IS_ROOT and NOT_AS_ANOTHER:
        pytest.skip(NOT_AS_ANOTHER)
    user = process.User.named("nobody") if process.IS_ROOT else process.ME
    assert look_into(user, "pass") == "read\n"
    assert look_into(user, "harden()") == "Permission denied\n"


def look_into(user: process.User, prepare: str) -> str:
    """Let a process of ``user`` do ``prepare``, and another of the same user read its memory."""
    script = (
        "import os, sys\nfrom hwkm.agent.hardening import harden\n"
        "ready, told = os.pipe()\nend, ended = os.pipe()\nchild = os.fork()\n"
        "if child == 0:\n"
        f"    os.close(ended)\n    {prepare}\n    os.write(told, b'x')\n    os.read(end, 1)\n"
        "    os._exit(0)\n"
        "os.read(ready, 1)\n"
        "try:\n    open(f'/proc/{child}/maps').read(); print('read')\n"
        "except OSError as error:\n    print(error.strerror)\n"
        "os.close(ended)\nos.waitpid(child, 0)\n"
    )
    done = python(user, script)
    assert done.returncode == 0, done.stderr
    return done.stdout
