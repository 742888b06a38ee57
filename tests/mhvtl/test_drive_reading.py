"""tests/drive/test_reading.py on mhvtl's drives."""

from tests.drive.test_reading import *  # noqa: F403
