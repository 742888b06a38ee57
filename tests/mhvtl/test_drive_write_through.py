"""tests/drive/test_write_through.py on mhvtl's drives."""

from tests.drive.test_write_through import *  # noqa: F403
