"""Waiting for a lock on a file that other processes take too, for a limited time."""

from __future__ import annotations

import fcntl
import time


def wait_exclusive(descriptor: int, seconds: float, pause: float) -> bool:
    """Take the exclusive lock on an open file; return whether it was free in time.

    The kernel's own wait has no limit, and an alarm to end it would be the whole process's.

    :param seconds: how long to wait for other holders; it is tried once in any case.
    :param pause: how long to sleep between two tries.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(pause)
        else:
            return True
