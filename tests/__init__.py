"""The tests, one file per room or command. Each runs by its name: tests.test_prior."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # of tiny.py, forked.py
