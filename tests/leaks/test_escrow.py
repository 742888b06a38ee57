"""The private half of an escrow key is where it was asked for, and nowhere else."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

from hwkm.escrow import join, unprotect
from hwkm.keys import SecretBytes
from tests.getkey import process
from tests.getkey.home import STORAGE_ENV

from .test_leaks import Watched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.getkey.home import Home

    from .gate import Gate

PASSPHRASE = "six words that nobody would guess"


@pytest.fixture
def watched(gate: Gate, shimmed: Home) -> Iterator[Watched]:
    yield Watched(gate, shimmed)
    gate.learn_pins(shimmed.path)
    gate.check()


@pytest.fixture
def paper(gate: Gate) -> Path:
    """A folder that the gate does not look into: what goes there was asked for."""
    folder = gate.cwd.parent / "paper"
    folder.mkdir()
    return folder


def words_on(page: str) -> str:
    cells = re.findall(r"<td>(\d+)</td><td>([a-z]+)</td>", page)
    return " ".join(word for _, word in sorted((int(place), word) for place, word in cells))


def learn_words(gate: Gate, words: str) -> None:
    """Take a share: its words in small letters and in capitals."""
    gate.learn("share", words.encode())
    gate.learn("share in capitals", words.upper().encode())


def learn(gate: Gate, pages: Path) -> list[str]:
    """Take what is on the pages, and the seed that they give."""
    shares = [words_on(path.read_text()) for path in sorted(pages.iterdir())]
    assert [len(words.split()) for words in shares] == [33] * 3
    for words in shares:
        learn_words(gate, words)
    gate.learn("seed", join(shares[:2]).seed.expose())
    return shares


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_pages_and_file(watched: Watched, paper: Path) -> None:
    gate, pages = watched.gate, paper / "pages"
    passphrase = write(paper / "passphrase", PASSPHRASE + "\n")
    protected = ["--file", str(paper / "whole"), "--passphrase-file", str(passphrase)]
    gate.learn("passphrase", PASSPHRASE.encode())
    assert watched.hwkm("escrow", "new", "--pages", str(pages), *protected).status == 0
    shares = learn(gate, pages)
    whole = unprotect((paper / "whole").read_bytes(), SecretBytes(PASSPHRASE.encode()))
    assert whole.seed.expose() in gate.secrets.values()

    watched.getkey("LABEL", "Vol-0002")
    watched.hwkm("volume", "check")
    watched.hwkm("volume", "show", "Vol-0002", "--json")
    watched.hwkm("escrow", "list")
    watched.hwkm("check")
    copy = str(shutil.copy(watched.home.path / "keystore.db", paper / "copy.db"))
    typed = ["--share", str(write(paper / "typed", f"{shares[0]}\n{shares[2]}\n"))]
    for way in (typed, protected):
        assert watched.hwkm("escrow", "open", *way, "--keystore", copy).status in (0, 1)
    assert watched.hwkm("master", "create", "--replace").status == 0
    assert watched.hwkm("escrow", "open", *typed, "--rewrap", "--volume", "Vol-0002").status == 0
    both = f"{shares[0]}\n\n{shares[1].upper()}\n".encode()
    assert watched.hwkm("escrow", "open", stdin=both).status == 0


def test_every_way_to_fail(watched: Watched, paper: Path) -> None:
    gate, pages = watched.gate, paper / "pages"
    passphrase = write(paper / "passphrase", PASSPHRASE)
    protected = ["--file", str(paper / "whole"), "--passphrase-file", str(passphrase)]
    gate.learn("passphrase", PASSPHRASE.encode())
    assert watched.hwkm("escrow", "new", "--pages", str(pages), *protected).status == 0
    one, two, _three = learn(gate, pages)
    words = one.split()
    # A share with one word exchanged is still nearly the share.
    wrong = " ".join([*words[:20], "zzzz", *words[21:]])
    swapped = " ".join([*words[:20], "academic", "academic", *words[22:]])
    for text in (
        one,
        f"{one}\n{wrong}",
        f"{one}\n{swapped}",
        f"{two} {one}",
        f"{two}\n\n{one[:90]}",
    ):
        watched.fail("escrow", "open", "--share", str(write(paper / "typed", text)))
    write(passphrase, PASSPHRASE + "?")
    watched.fail("escrow", "open", *protected)
    write(paper / "whole", (paper / "whole").read_text().replace("17", "16"))
    watched.fail("escrow", "open", *protected)
    watched.fail("escrow", "new", "--pages", str(pages))
    watched.fail("escrow", "new", "--pages", str(paper / "other"))  # there is one already
    learn(gate, paper / "other")
    typed = str(write(paper / "typed", f"{one}\n{two}"))
    watched.fail("escrow", "open", "--share", typed, "--rewrap", "--keystore", "/nonexistent")
    (watched.home.path / "keystore.db").write_bytes(b"no database at all\n" * 99)
    watched.fail("escrow", "open", "--share", typed, "--rewrap")


def test_words_are_on_the_terminal_alone(watched: Watched) -> None:
    gate, home = watched.gate, watched.home
    env = {"PATH": STORAGE_ENV["PATH"], "LC_ALL": "C.UTF-8", **gate.env}
    command = ["--config", str(home.config), "escrow", "new", "--words"]
    run = process.finish(process.start(command, env, cwd=gate.cwd))
    assert run.status == 0, run.err
    shares = re.findall(rb"^Share \d of 3:\n(.+)$", run.out, re.MULTILINE)
    for words in shares:
        learn_words(gate, words.decode())
    gate.learn("seed", join([words.decode() for words in shares[1:]]).seed.expose())
    gate.see("standard error", run.err)
    rest = run.out
    for words in shares:
        rest = rest.replace(words, b"")
    gate.see("standard output, but for the words", rest)
    watched.getkey("LABEL")


def test_the_gate_would_see_a_share(gate: Gate) -> None:
    words = " ".join(["academic", "zero", "browser"] * 11)
    learn_words(gate, words)
    gate.see("a log", b"share 2: " + words.upper().encode()[40:90])
    assert any("capitals" in line for line in gate.leaks())
