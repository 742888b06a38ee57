"""tests/drive/test_deliveries.py on mhvtl's drives."""

from tests.drive.test_deliveries import *  # noqa: F403
