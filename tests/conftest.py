"""What holds for every test."""

from __future__ import annotations

import os

import pytest

# The first run of a module would write its bytecode, and the tests that kill a program at the
# n-th system call count those calls in one run for the next.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what names the drive for tests/drive; see docs/testing-drives.md."""
    group = parser.getgroup("drive", "tests/drive on a real tape drive, overwriting its cartridge")
    group.addoption("--drive", metavar="DEVICE", help="its node, as /dev/sg3 or /dev/nst0")
    group.addoption("--serial", metavar="SERIAL", help="its serial number, which must match")
    group.addoption(
        "--may-unload",
        action="store_true",
        help="the cartridge may be unloaded and loaded again, to see what becomes of the key",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Let no device be named without its serial number.

    :raises pytest.UsageError: if one of both is missing.
    """
    if bool(config.getoption("--drive")) != bool(config.getoption("--serial")):
        raise pytest.UsageError(
            "--drive and --serial go together: the cartridge in that drive is overwritten, and "
            "numbers of /dev nodes change; the serial number says which drive is meant"
        )
