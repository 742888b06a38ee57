"""tests/drive/test_chip.py on mhvtl's drives."""

from tests.drive.test_chip import *  # noqa: F403
