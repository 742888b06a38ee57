"""What holds for every test."""

from __future__ import annotations

import os

# The first run of a module would write its bytecode, and the tests that kill a program at the
# n-th system call count those calls in one run for the next.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
