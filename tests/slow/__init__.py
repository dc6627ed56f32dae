"""Real processes, kills, compilers, a browser, a notebook: python -m unittest tests.slow

Everything else is in tests/, and in the user's command, python -m unittest unittests.py.
"""

import os
import unittest
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that these tests start
FOLDER = Path(__file__).resolve().parent


def load_tests(loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None):
    """unittest's own hook: takes in the files of this folder."""
    names = (f"{__name__}.{file.stem}" for file in sorted(FOLDER.glob("test_*.py")))
    tests.addTests(loader.loadTestsFromName(name) for name in names)
    return tests
