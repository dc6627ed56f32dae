"""The tests, one file per room or command. Each runs by its name: tests.test_prior."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's; see unittests.py for torch's

sys.path.insert(0, str(Path(__file__).resolve().parent))  # of tiny.py, forked.py
