"""The command ``hwkm emulator``, as people use it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from hwkm.cli.emulator import app
from hwkm.errors import HwkmError
from hwkm.scsi.transport import CheckConditionError
from tests.scsi.emulator.host import CLEAR, KEY, OTHER_KEY, Host, code, page

if TYPE_CHECKING:
    from pathlib import Path


def run(*words: str | Path, given: bytes = b"") -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words], input=given)
    if isinstance(result.exception, HwkmError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    file = tmp_path / "drive.db"
    made = run("create", file, "--profile", "hp-lto-4", "--cartridge", "HWK001L4")
    assert made.stdout == f"emulator:{file}: a hp-lto-4 drive\n"
    return file


def test_a_day_with_a_drive(file: Path) -> None:
    host = Host(file)
    assert code(host.set(page())) == "good"
    wrote = run("write", file, "--block-size", "7", given=b"twenty bytes of data")
    assert wrote.stderr == "3 blocks written\n"
    read = run("read", file, "--rewind")
    assert read.stdout_bytes == b"twenty bytes of data"
    assert b"twenty" not in file.read_bytes()
    assert run("read", file).stdout_bytes == b""
    run("insert", file, "HWK002L4")
    run("insert", file, "HWK001L4", "--write-protected")
    with pytest.raises(CheckConditionError, match="7/27/00"):
        run("write", file, given=b"x")
    run("eject", file)
    with pytest.raises(CheckConditionError, match="2/3A/00"):
        run("read", file)


@pytest.mark.parametrize(("now", "why"), [(page(OTHER_KEY), "7/74/03"), (CLEAR, "7/74/01")])
def test_a_tape_that_cant_be_read(file: Path, now: bytes, why: str) -> None:
    host = Host(file)
    assert code(host.set(page())) == "good"
    run("write", file, given=b"secret")
    assert code(host.set(now)) == "good"
    with pytest.raises(CheckConditionError, match=why):
        run("read", file, "--rewind")


def test_rewriting(file: Path) -> None:
    run("write", file, given=b"first")
    run("write", file, "--rewind", given=b"second")
    assert run("read", file, "--rewind").stdout_bytes == b"second"


def test_lies(file: Path) -> None:
    told = run("lie", file, "mode-ignored")
    assert told.stdout.startswith("mode-ignored: a key is taken with GOOD")
    assert "lies: mode-ignored" in run("show", file).stdout
    assert run("lie", file, "mode-ignored", "--off").stdout == "mode-ignored: off\n"
    assert "lies: -" in run("show", file).stdout


@pytest.mark.parametrize(("words", "attention"), [((), "6/29/03"), (("--power",), "6/29/01")])
def test_reset(file: Path, words: tuple[str, ...], attention: str) -> None:
    host = Host(file)
    assert code(host.set(page())) == "good"
    assert "holds a key: yes" in run("show", file).stdout
    run("reset", file, *words)
    assert code(host.ready()) == attention
    assert "holds a key: no" in run("show", file).stdout


def test_show(file: Path) -> None:
    assert code(Host(file).set(page())) == "good"
    shown = run("show", file, "--json")
    state = json.loads(shown.stdout)
    assert (state["profile"], state["inside"], state["counter"]) == ("hp-lto-4", "HWK001L4", 1)
    assert KEY.hex() not in shown.stdout
    plain = run("show", file).stdout
    assert "HWK001L4   lto-4" in plain
    assert "key instance counter: 1" in plain


def test_kinds_and_quirks(tmp_path: Path) -> None:
    file = tmp_path / "drive"
    run("create", file, "--profile", "ibm-lto-5", "--quirk", "no-ckod", "--serial", "S1")
    run("insert", file, "HWK001L4", "--kind", "lto-4", "--worm")
    shown = run("show", file).stdout
    assert "quirks: no-ckod" in shown
    assert "serial: S1" in shown
    assert code(Host(file).set(page(flags=4))) == "6/28/00"
    assert code(Host(file).set(page(flags=4))) == "5/26/00"
