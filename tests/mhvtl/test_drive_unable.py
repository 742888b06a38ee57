"""tests/drive/test_unable.py on mhvtl's drives."""

from tests.drive.test_unable import *  # noqa: F403
