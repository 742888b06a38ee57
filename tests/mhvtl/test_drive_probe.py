"""tests/drive/test_probe.py on mhvtl's drives."""

from tests.drive.test_probe import *  # noqa: F403
