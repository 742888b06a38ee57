"""Initialising a token through its vendor's tool, since python-pkcs11 has no C_InitToken.

The tools take PINs as arguments, where every user of the machine can read them, or ask for them
on a terminal. So they are given a terminal of their own, and their questions are answered there.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import termios
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hwkm.errors import TokenError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hwkm.keys import SecretBytes

_CHUNK = 4096
_SILENT_SECONDS = 60
"""How long a tool may take between two of its lines; initialising a smart card takes seconds."""
_HIDING_SECONDS = 30
_POLL_SECONDS = 0.005
_TIMES = 2
"""How often a tool asks for a PIN: once more to be sure. It goes on for ever if it dislikes it."""
SOFTHSM_TOOL = "softhsm2-util"
OPENSC_TOOL = "pkcs11-tool"


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token to be: its slot, its label, and its PINs."""

    slot_id: int
    label: str
    so_pin: SecretBytes
    user_pin: SecretBytes


def initialize(module_path: str, environment: Mapping[str, str], new: NewToken) -> None:
    """Initialise the token in a slot; whatever it held is gone.

    SoftHSM's tool sets the user PIN too, OpenSC's leaves that to the caller.

    :raises TokenError: if the tool is not installed, or fails.
    """
    tool = SOFTHSM_TOOL if "softhsm" in module_path else OPENSC_TOOL
    command = [tool, "--module", module_path, "--init-token"]
    place = ["--slot", str(new.slot_id), "--label", new.label]
    answers = {b"SO PIN": new.so_pin, b"user PIN": new.user_pin}
    answer_questions([*command, *place], environment, answers)


def answer_questions(
    command: Sequence[str],
    environment: Mapping[str, str],
    answers: Mapping[bytes, SecretBytes],
) -> None:
    """Run ``command`` and answer each of its prompts by the words that stand in it.

    :raises TokenError: if it is not installed or does not end well; the text has what it said,
        which does not include what it was told.
    """
    if any(byte < 0x20 or byte == 0x7F for pin in answers.values() for byte in pin.expose()):
        raise TokenError("a PIN with control characters can't be typed on a terminal")
    if shutil.which(command[0]) is None:
        raise TokenError(
            f"the program {command[0]} is not installed",
            hint="apt install softhsm2 (softhsm2-util) or opensc (pkcs11-tool)",
        )
    try:
        ours, theirs = os.openpty()
    except OSError as error:
        raise TokenError(
            f"there is no terminal to run {command[0]} on: {error.strerror}",
            hint="Mount devpts at /dev/pts",
        ) from error
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, **environment, "LC_ALL": "C"},
    )
    os.close(theirs)
    try:
        said = _converse(ours, answers)
    except BaseException:
        process.kill()
        raise
    finally:
        os.close(ours)
        status = process.wait()
    if status != 0:
        words = " ".join(said.decode("utf-8", "replace").split())[-300:]
        raise TokenError(f"{command[0]} failed with status {status}: {words}")


def _converse(terminal: int, answers: Mapping[bytes, SecretBytes]) -> bytes:
    said = b""
    line = b""
    asked = dict.fromkeys(answers, 0)
    while data := _read(terminal):
        said += data
        line = (line + data).rpartition(b"\n")[2]
        words = next((words for words in answers if words in line), None)
        if words is not None and line.rstrip().endswith(b":"):
            asked[words] += 1
            if asked[words] > _TIMES:
                raise TokenError(
                    f"the token does not take the {words.decode()} that it is to get",
                    hint="Most tokens take 4 to 255 characters, some 8 at most",
                )
            _wait_until_hidden(terminal)
            os.write(terminal, answers[words].expose() + b"\n")
            line = b""
    return said


def _wait_until_hidden(terminal: int) -> None:
    """Wait until the tool has turned off the echo: it may throw away what was typed before."""
    deadline = time.monotonic() + _HIDING_SECONDS
    while termios.tcgetattr(terminal)[3] & termios.ECHO:
        if time.monotonic() > deadline:
            raise TokenError("the tool does not hide the PIN that it asks for; it was given none")
        time.sleep(_POLL_SECONDS)


def _read(terminal: int) -> bytes:
    poll = select.poll()
    poll.register(terminal, select.POLLIN)
    if not poll.poll(1000 * _SILENT_SECONDS):
        raise TokenError(
            f"the vendor's tool has said nothing for {_SILENT_SECONDS} seconds; it was ended",
            hint="Run it by hand to see what it waits for",
        )
    try:
        return os.read(terminal, _CHUNK)
    except OSError:  # EIO: the other side is closed
        return b""
