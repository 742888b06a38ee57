"""The prompts of the real commands, at a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import termios
from typing import TYPE_CHECKING

import pytest

from hwkm.escrow import protect, unprotect
from hwkm.keys import SecretBytes
from tests.keystore import homes
from tests.keystore.homes import HWKM, ROOT

from .keys import CHEAP, PASSPHRASE, key, texts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.keystore.homes import Home

ONE, TWO, THREE = texts()
ID = key().recipient.recipient_id.hex()


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def talk(words: Sequence[str], lines: Sequence[tuple[str, str]]) -> tuple[int, str]:
    """Run hwkm at a terminal; type each line when its prompt was seen; return status and screen."""
    ours, theirs = pty.openpty()
    started = subprocess.Popen(
        [*HWKM, *words],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_own_terminal,
    )
    os.close(theirs)
    screen = ""
    for prompt, line in lines:
        seen = ""
        while prompt not in seen:
            seen += os.read(ours, 4096).decode()
        screen += seen
        os.write(ours, line.encode())
    try:
        while more := os.read(ours, 4096):
            screen += more.decode()
    except OSError:
        pass  # the terminal's other end was closed
    os.close(ours)
    return started.wait(homes.COMMAND_SECONDS), screen


def test_shares_until_there_are_enough() -> None:
    mistyped = THREE.replace(THREE.split()[9], "zzzz")
    status, screen = talk(
        ["--config", "/nonexistent", "escrow", "open"],
        [
            ("Words of share 1, in one line: ", ONE + "\n"),
            ("Words of share 2, in one line: ", mistyped + "\n"),
            ("Words of share 2, in one line: ", ONE.upper() + "\n"),
            ("Words of share 3, in one line: ", THREE + "\n"),
        ],
    )
    assert status == 0, screen
    assert f"escrow key: {ID}" in screen
    assert "its word 10 is none of SLIP-39's" in screen


def test_the_end_before_there_are_enough() -> None:
    lines = [("share 1, in one line: ", ONE + "\n"), ("share 2, in one line: ", "\x04")]
    status, screen = talk(["--config", "/nonexistent", "escrow", "open"], lines)
    assert status == 1
    assert "2 different shares are needed" in screen


def test_the_passphrase_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(protect(key(), PASSPHRASE, CHEAP))
    typed = PASSPHRASE.expose().decode() + "\n"
    words = ["--config", "/nonexistent", "escrow", "open", "--file", str(tmp_path / "whole")]
    status, screen = talk(words, [("Passphrase of the escrow key: ", typed)])
    assert status == 0, screen
    assert f"escrow key: {ID}" in screen
    assert typed.strip() not in screen


@pytest.mark.parametrize("again", ["correct horse battery", "correct horse batteries"])
def test_a_new_passphrase_is_asked_for_twice(home: Home, tmp_path: Path, again: str) -> None:
    path = tmp_path / "whole"
    typed = "correct horse battery"
    status, screen = talk(
        ["--config", str(home.config_path), "escrow", "new", "--file", str(path)],
        [("Passphrase of the escrow key: ", typed + "\n"), ("Once more: ", again + "\n")],
    )
    assert typed not in screen
    if again == typed:
        assert status == 0, screen
        assert len(unprotect(path.read_bytes(), SecretBytes(typed.encode())).seed) == 32
    else:
        assert status == 2
        assert not path.exists()
