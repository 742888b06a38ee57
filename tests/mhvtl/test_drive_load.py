"""tests/drive/test_load.py on mhvtl's drives."""

from tests.drive.test_load import *  # noqa: F403
