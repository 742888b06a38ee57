"""What a backup program does: dd and tar on /dev/nstN, in processes of their own."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MTIOCTOP = 0x4008_6D01
"""``_IOW('m', 1, struct mtop)`` (Linux, include/uapi/linux/mtio.h)."""

MTIOCGET = 0x8030_6D02
"""``_IOR('m', 2, struct mtget)`` on 64-bit systems."""

STATE = struct.Struct("5l2i")
BLOCK_SIZE, BLOCK_SIZE_MASK = 2, 0xFF_FFFF
"""Where ``mt_dsreg`` stands, and its part that is the block size."""

REWIND, SET_BLOCK = 6, 20
BLOCK_BYTES = 32768
SECONDS = 240
IO_ERROR = os.strerror(errno.EIO)


@dataclass(frozen=True)
class Ended:
    status: int
    text: str

    @property
    def is_io_error(self) -> bool:
        """Whether it failed with errno EIO."""
        return self.status != 0 and IO_ERROR in self.text


@dataclass(frozen=True)
class St:
    """The st driver's non-rewinding node, with blocks of variable length."""

    node: Path

    def rewind(self) -> None:
        self._do(REWIND, 1)

    def variable_blocks(self) -> None:
        with self._opened() as descriptor:
            state = fcntl.ioctl(descriptor, MTIOCGET, bytes(STATE.size))
        if STATE.unpack(state)[BLOCK_SIZE] & BLOCK_SIZE_MASK:
            self._do(SET_BLOCK, 0)

    def dd_out(self, source: Path) -> Ended:
        return _run("dd", f"if={source}", f"of={self.node}", f"bs={BLOCK_BYTES}", "conv=notrunc")

    def dd_in(self, target: Path) -> Ended:
        return _run("dd", f"if={self.node}", f"of={target}", f"bs={BLOCK_BYTES}")

    def tar_out(self, folder: Path) -> Ended:
        factor = str(BLOCK_BYTES // 512)
        return _run("tar", "-b", factor, "-cf", str(self.node), "-C", str(folder), ".")

    def tar_in(self, folder: Path) -> Ended:
        factor = str(BLOCK_BYTES // 512)
        return _run("tar", "-b", factor, "-xf", str(self.node), "-C", str(folder))

    def _do(self, operation: int, count: int) -> None:
        with self._opened() as descriptor:
            fcntl.ioctl(descriptor, MTIOCTOP, struct.pack("hi", operation, count))

    @contextmanager
    def _opened(self) -> Iterator[int]:
        # Without O_NONBLOCK the kernel would wait minutes for a drive that is not ready.
        descriptor = os.open(self.node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _run(*words: str) -> Ended:
    done = subprocess.run(
        words,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=SECONDS,
    )
    return Ended(done.returncode, done.stderr.decode(errors="replace"))
