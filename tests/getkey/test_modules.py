"""A PKCS#11 module that prints, hangs, crashes, exits, fails or leaves processes behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from . import process
from .home import OPTIONS, VOLUME, Answer, Home

if TYPE_CHECKING:
    from pathlib import Path

DEVICE_ERROR = "(CKR_DEVICE_ERROR, 0x30)"
GENERAL_ERROR = "(CKR_GENERAL_ERROR, 0x5)"


@pytest.mark.parametrize(
    ("function", "action"),
    [
        ("C_Initialize", "print"),
        ("C_Login", "print"),
        ("C_Decrypt", "print"),
        ("C_Finalize", "print"),
        ("C_Decrypt", "flood"),
    ],
)
def test_printing(shimmed: Home, function: str, action: str) -> None:
    expected = shimmed.getkey().given
    shimmed.plan(f"{function}:{action}")
    assert shimmed.getkey().given == expected
    warnings = [line for line in shimmed.log if " warning: " in line]
    assert len(warnings) == 1
    assert "printed by a library: " in warnings[0]
    if action == "print":
        assert "cipher: NULL error: printed by a module # no field" in warnings[0]


@pytest.mark.parametrize(
    ("function", "action", "name"),
    [
        ("C_Initialize", "crash", "SIGSEGV"),
        ("C_Login", "crash", "SIGSEGV"),
        ("C_Decrypt", "crash", "SIGSEGV"),
        ("C_Decrypt", "abort", "SIGABRT"),
        ("C_Finalize", "crash", "SIGSEGV"),
    ],
)
def test_crash(shimmed: Home, function: str, action: str, name: str) -> None:
    shimmed.plan(f"{function}:{action}")
    answer = shimmed.getkey()
    assert answer.error.startswith(f"the process crashed ({name})")
    assert "hwkm token probe" in answer.error
    assert (
        f"error: getkey (job 7, device /dev/nst0): the process crashed ({name})" in shimmed.log[-1]
    )
    _works_again(shimmed)


@pytest.mark.parametrize("status", [0, 3])
def test_exit(shimmed: Home, status: int) -> None:
    shimmed.plan(f"C_Decrypt:exit={status}")
    assert shimmed.getkey().error.startswith("the process ended without an answer")
    assert "ended without an answer" in shimmed.log[-1]
    _works_again(shimmed)


@pytest.mark.parametrize(
    ("operation", "step", "words"),
    [
        ("READ", "C_Initialize:error=5", GENERAL_ERROR),
        ("READ", "C_GetSlotList:error=0x30", DEVICE_ERROR),
        ("READ", "C_OpenSession:error=0x30@1", DEVICE_ERROR),
        ("READ", "C_Login:error=0x30", DEVICE_ERROR),
        ("READ", "C_FindObjectsInit:error=0x30", DEVICE_ERROR),
        ("READ", "C_Decrypt:error=0x30", DEVICE_ERROR),
        ("READ", "C_Decrypt:error=5", GENERAL_ERROR),
        ("LABEL", "C_GenerateRandom:error=0x30", DEVICE_ERROR),
        ("LABEL", "C_Encrypt:error=0x30", DEVICE_ERROR),
        ("LABEL", "C_Encrypt:error=0x80000001", "0x80000001"),
        ("LABEL", "C_Decrypt:error=0x30", DEVICE_ERROR),
    ],
)
def test_error_codes(shimmed: Home, operation: str, step: str, words: str) -> None:
    before = shimmed.getkey().given
    shimmed.plan(step)
    answer = shimmed.getkey(operation)
    assert words in answer.error
    assert (
        f"error: {operation} {VOLUME} (job 7, device /dev/nst0): no key given: " in shimmed.log[-1]
    )
    assert shimmed.events()[-1] == (operation.lower(), "failed", VOLUME, "7")
    shimmed.plan("")
    assert shimmed.getkey().given == before, "the volume's own key must still be the last given"
    assert shimmed.query("SELECT count(*) FROM generation") == [(1,)]


@pytest.mark.parametrize("operation", ["READ", "LABEL"])
@pytest.mark.parametrize("step", ["C_Decrypt:error=0x40@1", "C_Decrypt:error=0xB3@1"])
def test_an_error_that_passes(shimmed: Home, operation: str, step: str) -> None:
    """The canary opens, so it is tried again before the wrapped key is called bad."""
    shimmed.plan(step)
    given = shimmed.getkey(operation).given
    shimmed.plan("")
    assert shimmed.getkey().given.key == given.key


def test_no_key_when_the_token_opens_it_to_nothing(shimmed: Home) -> None:
    """C_Decrypt that claims to have worked with an error before: nothing is guessed."""
    shimmed.plan("C_Decrypt:error=0x30@1 C_Decrypt:error=0x30@2 C_Decrypt:error=0x30@3")
    assert shimmed.getkey().reply is None
    _works_again(shimmed)


@pytest.mark.parametrize("operation", ["READ", "LABEL"])
@pytest.mark.parametrize("function", ["C_Initialize", "C_Decrypt"])
def test_a_process_left_behind_holds_nothing_up(
    shimmed: Home, operation: str, function: str
) -> None:
    shimmed.plan(f"{function}:grandchild")
    run = process.finish(shimmed.start(operation))
    assert len(run.left) >= 1, "the module left no process behind: the test shows nothing"
    assert run.seconds < 5
    answer = Answer.of(process.Run(run.out, run.err, run.status, run.seconds, ()))
    assert answer.reply is not None, answer.error


def test_a_module_that_is_none(shimmed: Home) -> None:
    shimmed.edit("libsofthsm2.so", "libno.so")
    assert GENERAL_ERROR in shimmed.getkey().error


def test_a_file_that_is_no_module(home: Home, base: Path) -> None:
    text = base / "text.so"
    text.write_text("no ELF\n")
    found = home.config.read_text().partition("module-path=")[2].partition("&")[0]
    home.edit(found, str(text))
    assert "loading the PKCS#11 module" in home.getkey().error
    home.edit(str(text), "/nonexistent.so")
    assert "there is no PKCS#11 module /nonexistent.so" in home.getkey().error


def _works_again(home: Home) -> None:
    home.plan("")
    assert home.getkey().reply is not None
    assert home.getkey("LABEL", options=OPTIONS).reply is not None
