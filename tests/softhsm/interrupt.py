"""Killing a process at a chosen point: strace counts its system calls and sends SIGKILL at one."""

from __future__ import annotations

import re
import signal
import tempfile
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .commands import run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CHANGES = "pwrite64,fsync,fdatasync,rename,unlink,mkdir,rmdir,ftruncate,chmod"
"""Calls by which files change, but for write(): SoftHSM empties a token's file, then writes it,
and dies in between like any process. See hwkm.token.seal for what is done against that."""

ALL_CHANGES = f"{CHANGES},write"


@dataclass(frozen=True, slots=True)
class Point:
    """The ``number``-th time that a process makes ``call``, with what strace said of it."""

    call: str
    number: int
    line: str

    def __str__(self) -> str:
        return f"{self.call}-{self.number}"


def trace(command: Sequence[str], calls: str, *where: Path) -> list[Point]:
    """Run ``command`` to its end and return all its ``calls``, or those on paths, in order."""
    with tempfile.NamedTemporaryFile("r") as log:
        options = ("-y", "-o", log.name, "-e", f"trace={calls}", *_only(where))
        done = run("strace", *options, *command)
        assert done.returncode == 0, done
        lines = [(found[0], line) for line in log if (found := re.match(r"\w+(?=\()", line))]
    seen: Counter[str] = Counter()
    points = []
    for call, line in lines:
        seen[call] += 1
        points.append(Point(call, seen[call], line))
    return points


def kill(command: Sequence[str], point: Point, *where: Path) -> None:
    """Run ``command`` and kill it when it comes to ``point``."""
    inject = ("-e", f"trace={point.call}", "-e")
    when = f"inject={point.call}:signal=KILL:when={point.number}"
    done = run("strace", "-o", "/dev/null", *inject, when, *_only(where), *command)
    assert done.returncode == -signal.SIGKILL, (point, done)


def spread(points: Sequence[Point], wanted: int) -> list[Point]:
    """Return ``wanted`` of the ``points``, evenly spread, the ends among them."""
    last = len(points) - 1
    return [points[at] for at in sorted({round(n * last / (wanted - 1)) for n in range(wanted)})]


def _only(where: Sequence[Path]) -> list[str]:
    return [word for path in where for word in ("-P", str(path))]
