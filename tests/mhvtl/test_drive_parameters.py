"""tests/drive/test_parameters.py on mhvtl's drives."""

from tests.drive.test_parameters import *  # noqa: F403
