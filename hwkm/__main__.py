"""The entry point: the Encryption Command at once, everything else through the command line."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run hwkm with the process's arguments."""
    arguments = sys.argv[1:]
    if _is_getkey(arguments):
        sys.exit(_getkey(arguments))
    from hwkm.cli import main as command_line

    command_line()


def _getkey(arguments: list[str]) -> int:
    try:
        from hwkm import supervise

        supervise.silence()  # before any library can warn about something
        from hwkm import getkey

        return getkey.main(arguments)
    except Exception as error:  # noqa: BLE001  # whatever is missing, there is an answer
        # Bacula shows nothing of a command that fails, and everything of a line like this.
        os.write(1, f"error: hwkm is not installed completely ({type(error).__name__})\n".encode())
        return 0


def _is_getkey(arguments: list[str]) -> bool:
    """Return whether this is the Encryption Command, and not a call for its help.

    The command line's framework alone takes longer to import than the Encryption Command to run.
    """
    at = next((i for i, word in enumerate(arguments) if word == "getkey"), -1)
    before = arguments[:at] if at >= 0 else []
    options_only = all(
        word.startswith("-") or before[max(0, i - 1)] == "--config" for i, word in enumerate(before)
    )
    return at >= 0 and options_only and "--help" not in arguments


if __name__ == "__main__":
    main()
