"""A syslog of the tests' own, seen as /dev/log by the processes that are started with it alone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONGEST = 65536
# A mount namespace, which ends with the process, in which /dev is a folder of ours.
SCRIPT = """
for name in null zero full random urandom; do
    touch "$0/$name" && mount --bind "/dev/$name" "$0/$name" || exit 99
done
mount --rbind "$0" /dev && exec "$@"
"""


@cache
def why_not() -> str:
    """Return why processes can't have a /dev/log of their own here, or "" if they can."""
    if os.geteuid() != 0:
        return "only root can give a process a /dev/log of its own"
    if shutil.which("unshare") is None:
        return "needs unshare"
    trial = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/dev"]
    done = subprocess.run(trial, capture_output=True, check=False)
    return "mounting is not allowed here" if done.returncode else ""


class DevLog:
    """A folder that stands for /dev. ``prefix`` goes in front of a command that is to see it."""

    def __init__(self, folder: Path) -> None:
        self.prefix = ("unshare", "--mount", "sh", "-c", SCRIPT, str(folder))
        self.messages: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "log"))
        (folder / "log").chmod(0o666)
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def listen(self) -> None:
        """Begin to take messages; until then they pile up, and then their senders wait."""
        self._thread.start()

    def fill(self) -> int:
        """Send messages until no more are taken; return how many were."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(self._socket.getsockname())
            sender.setblocking(False)
            for count in range(100_000):
                try:
                    sender.send(b"filled")
                except BlockingIOError:
                    return count
        raise AssertionError("this socket takes everything")

    def close(self) -> None:
        """Take what has come, and end."""
        self._socket.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while message := self._socket.recv(LONGEST):
            self.messages.append(message)


@contextmanager
def syslog(folder: Path) -> Iterator[DevLog]:
    """Yield a /dev/log in ``folder``, which is made, for the time of a block."""
    folder.mkdir()
    folder.chmod(0o755)
    made = DevLog(folder)
    try:
        yield made
    finally:
        made.close()
