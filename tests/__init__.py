"""The tests, one file per room or command. Each runs on its own, as a file or by its name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # as `python tests/test_x.py` does itself
