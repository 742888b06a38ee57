"""Parses transcripts, runs their commands and compares what came out."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WILDCARDS = {
    "hex": r"[0-9a-f]+",
    "base64": r"[A-Za-z0-9+/]+={0,2}",
    "time": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|\+00:00| UTC)?",
    "int": r"\d+",
    "size": r"\d[\d,.]* [KMGT]?i?B",
    "path": r"(?:/|\$HOME_DIR)\S*",
    "any": r".*",
}
_WILDCARD = re.compile(r"\{(" + "|".join(WILDCARDS) + r")\}")

# What a document shows of one real run and differs in the next, or what it cuts short with "...".
_VOLATILE = re.compile(
    rf"(?P<any>[\w+/=]*(?:\.\.\.|…))|(?P<time>{WILDCARDS['time']})|(?P<size>\b{WILDCARDS['size']}\b)"
    r"|(?P<hex>\b[0-9a-f]{8,}\b)"
    r"|(?P<base64>(?<![\w/+])(?:[A-Za-z0-9+/]{16,}={1,2}|[A-Za-z0-9+/]{40,}))"
)


@dataclass(frozen=True)
class Step:
    """One command and the lines that it is expected to print."""

    line: int
    command: str
    expected: tuple[str, ...]


def parse(text: str) -> list[Step]:
    """Return the steps of a transcript.

    Raises ValueError when output stands before the first command.
    """
    chunks: list[tuple[int, list[str]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("$ "):
            chunks.append((number, [line[2:]]))
        elif chunks and not line.startswith("#"):
            chunks[-1][1].append(line)
        elif line.strip() and not line.startswith("#"):
            raise ValueError(f"line {number} stands before the first command: {line!r}")
    return [_step(number, lines) for number, lines in chunks]


def _step(number: int, lines: list[str]) -> Step:
    command_lines = 1
    while lines[command_lines - 1].endswith("\\") and command_lines < len(lines):
        command_lines += 1
    expected = lines[command_lines:]
    while expected and not expected[-1].strip():
        expected.pop()
    return Step(number, "\n".join(lines[:command_lines]), tuple(expected))


def generalise(text: str) -> str:
    """Return a document's output with wildcards for what differs from run to run."""
    return _VOLATILE.sub(lambda match: f"{{{match.lastgroup}}}", text)


def blocks(document: str, kind: str) -> list[tuple[str, str]]:
    """Return name and text of the fenced blocks that follow a comment ``<!-- kind: name -->``."""
    block = rf"^<!-- {kind}: (.+?) -->\n+```\w*\n(.*?)^```$"
    return re.findall(block, document, re.MULTILINE | re.DOTALL)


def difference(expected: Sequence[str], actual: Sequence[str], title: str) -> str:
    """Return a unified diff of two outputs, empty if the first matches the second."""
    settled = _settle(expected, actual)
    diff = difflib.unified_diff(settled, actual, f"{title}: expected", "got", lineterm="")
    return "\n".join(diff)


def _settle(expected: Sequence[str], actual: Sequence[str]) -> list[str]:
    """Return the expected lines, those that match a later actual line replaced by it."""
    settled, position = [], 0
    for line in expected:
        pattern = _pattern(line)
        later = range(position, len(actual))
        found = next((i for i in later if pattern.fullmatch(actual[i])), None)
        settled.append(line if found is None else actual[found])
        position = position if found is None else found + 1
    return settled


def _pattern(line: str) -> re.Pattern[str]:
    parts = _WILDCARD.split(line)  # text and names of wildcards in turn
    pairs = zip(parts[::2], [*parts[1::2], ""], strict=True)
    return re.compile("".join(re.escape(text) + WILDCARDS.get(name, "") for text, name in pairs))


_REMEMBERING = """\
set -a
[ ! -e "$SHELL_STATE" ] || . "$SHELL_STATE"
{command}
status=$?
export -p >"$SHELL_STATE"
exit $status
"""


class Shell:
    """Runs commands in a directory of their own, with an environment that hides the user's."""

    def __init__(self, home: Path) -> None:
        self.home = home
        bin_dir = Path(sys.executable).parent
        self.environment = {
            "PATH": f"{bin_dir}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(home),
            "HOME_DIR": str(home),
            "SOFTHSM2_CONF": str(_make_softhsm(home)),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            "TERM": "dumb",
            "COLUMNS": "100",
            "SHELL_STATE": f"{home}.state",
        }

    def run(self, command: str) -> list[str]:
        """Return what a command printed, as the lines of a transcript.

        Each has a shell of its own, but the variables that earlier ones have set.
        """
        done = subprocess.run(
            ["/bin/sh", "-c", _REMEMBERING.format(command=command)],
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        lines = self._lines(done.stdout) + [f"2> {line}" for line in self._lines(done.stderr)]
        return lines + ([f"[exit {done.returncode}]"] if done.returncode else [])

    def _lines(self, output: str) -> list[str]:
        shown = output.replace(str(self.home), "$HOME_DIR")
        return [line.rstrip() for line in shown.splitlines()]

    def check(self, transcript: str, title: str) -> str:
        """Return the differences between a transcript and what its commands print now."""
        found = []
        for step in parse(transcript):
            place = f"{title}:{step.line}: $ {step.command}"
            found.append(difference(step.expected, _trim(self.run(step.command)), place))
        return "\n\n".join(filter(None, found))


def _trim(lines: list[str]) -> list[str]:
    """Return lines without the blank ones at the end, which a transcript can't show."""
    kept = len(lines)
    while kept and not lines[kept - 1]:
        kept -= 1
    return lines[:kept]


def _make_softhsm(home: Path) -> Path:
    tokens = home / "softhsm" / "tokens"
    tokens.mkdir(parents=True)
    settings = home / "softhsm" / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {tokens}\nlog.level = ERROR\n")
    return settings


@contextmanager
def shell() -> Iterator[Shell]:
    """Yield a shell whose home has a path of constant length, so that lines wrap alike."""
    folder = Path(tempfile.mkdtemp(prefix="hwkm-", dir="/tmp"))
    home = folder / "home"
    home.mkdir()
    try:
        yield Shell(home)
    finally:
        shutil.rmtree(folder)


def write_home(document: str, home: str) -> str:
    """Return a document's text with the placeholder in place of the home that it shows."""
    return document.replace(home + os.sep, "$HOME_DIR/")
