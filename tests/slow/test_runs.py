"""Runs in processes of their own: real kills, two that train together, an output that closes."""

import os
import signal
import subprocess
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import crash_test
import forked
from crash_test import curves
from tiny import NUM_TRAIN, InFolder

from inputs.checkpoints import read_checkpoint
from runs import folders

TINY = Path(__file__).resolve().parent.parent / "tiny.py"
SMALL = ["--num_filters", "4", "--z_dim", "3", "--accelerator", "cpu"]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


class TestTwoProcesses(InFolder):
    def test_a_kill_or_sigterm_ends_both_in_one_line_and_both_go_on_with_one_model(self):
        command = [sys.executable, TINY, "--log_dir", self.folder]
        options = [*SMALL, "--batch_size", "6", "--epochs", "6", "--devices", "2"]

        def kill_other(run: subprocess.Popen) -> None:
            children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
            for child in map(int, children):
                if b"tiny.py" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(child, signal.SIGKILL)

        for arguments, epoch, end, codes in (
            (options, 2, kill_other, (1, 143)),
            (["--resume"], 4, subprocess.Popen.terminate, (143,)),
        ):
            with subprocess.Popen([*command, *arguments], **PIPES) as run:
                for line in run.stdout:
                    if line.startswith(f"epoch {epoch}"):
                        end(run)
                _, said = run.communicate(timeout=60)
            self.assertIn(run.returncode, codes, said)
            self.assertIn("continue with: python train_pl.py --resume", said.splitlines()[-1])
            self.assertNotRegex(said, "(?i)traceback|warn|deprecat")
        resumed = subprocess.run([*command, "--resume"], **PIPES, timeout=120)
        self.assertEqual(resumed.returncode, 0, resumed.stderr)
        self.assertNotRegex(resumed.stderr, "(?i)warn|deprecat")
        for once in ("epoch 6/6", "Test of the best checkpoint"):
            self.assertEqual(resumed.stdout.count(once), 1)
        (run,) = self.folder.iterdir()
        last = read_checkpoint(run / "checkpoints" / folders.LAST)
        self.assertEqual(last["global_step"], 6 * NUM_TRAIN // 12)
        self.assertEqual([step for step, _ in curves(run)["bpd/val"]], [9, 19, 29, 39, 49, 59])


class TestKills(unittest.TestCase):
    def test_kills_one_in_a_write_change_nothing_with_and_without_loader_processes(self):
        forked.start_server()
        kills, epochs, seeds, workers = (2, 1), (3, 3), (0, 0), (0, 2)
        with redirect_stdout(StringIO()), ThreadPoolExecutor() as both:
            found = both.map(crash_test.crash_test, kills, epochs, seeds, workers)
            self.assertEqual([*found], [[], []])


class TestOutput(InFolder):
    def test_an_output_that_nobody_reads_ends_with_one_line(self):
        program = [sys.executable, TINY, *SMALL, "--log_dir", self.folder, "--epochs", "30"]
        with subprocess.Popen(program, **PIPES) as run:
            while not run.stdout.readline().startswith("epoch"):
                pass
            run.stdout.close()
            said = run.stderr.read()
        self.assert_ends((run.returncode, said), 1, "nobody reads", "--resume")
