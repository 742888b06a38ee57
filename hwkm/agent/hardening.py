"""What a process that lives long, and has keys passing through it, takes from itself.

A forked child keeps all of this but the locked memory; a new user id may make a process open to
others again. So call :func:`harden` in each process, after it has become who it stays.
"""

from __future__ import annotations

import ctypes
import os

from hwkm import supervise

# From <linux/prctl.h> and <sys/mman.h>.
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_MCL_CURRENT = 1
_MCL_FUTURE = 2


def harden() -> list[str]:
    """Protect this process; return what could not be had, in words for the log.

    Nobody but root can look into it or trace it, it leaves no core dump, is not swapped out, gains
    no rights by what it starts, and writes only private files.

    :raises ConfigError: as :func:`hwkm.supervise.protect` does.
    """
    supervise.protect()
    libc = ctypes.CDLL(None, use_errno=True)
    notes = [
        _prctl(libc, _PR_SET_DUMPABLE, 0, "others can look into this process"),
        _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1, "programs that it starts can gain rights"),
        _lock_memory(libc),
    ]
    return [note for note in notes if note]


def _prctl(libc: ctypes.CDLL, option: int, value: int, otherwise: str) -> str:
    # Its arguments are unsigned long, and the kernel looks at all of them.
    words = (ctypes.c_ulong(word) for word in (value, 0, 0, 0))
    if libc.prctl(option, *words) == 0:
        return ""
    return f"{otherwise}: {os.strerror(ctypes.get_errno())}"


def _lock_memory(libc: ctypes.CDLL) -> str:
    # With MCL_FUTURE every new page counts: below a limit, memory would run out at some later time.
    if not supervise.may_lock_memory():
        return "memory may be swapped out: it may not all be locked (LimitMEMLOCK=infinity allows)"
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) == 0:
        return ""
    return f"memory may be swapped out: {os.strerror(ctypes.get_errno())}"
