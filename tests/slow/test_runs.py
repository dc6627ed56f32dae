"""Runs in processes of their own: real kills, two that train together, an output that closes."""

import os
import signal
import subprocess
import sys
import unittest
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import crash_test
import forked
import tiny
from crash_test import curves, on_step, stop
from tiny import NUM_TRAIN, InFolder

from inputs.checkpoints import read_checkpoint
from runs import folders

ROOT = Path(__file__).resolve().parent.parent.parent


def kill_other() -> None:
    """Kills the training process that Lightning has started beside this one."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    for child in map(int, children):
        if b"tiny.py" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(child, signal.SIGKILL)


def train_by_two(arguments: list[str], end: Callable[[], None] | None) -> None:
    """For a process of its own: it starts a second one, and calls `end` in its third step."""
    sys.argv = [tiny.__file__, *arguments]  # what Lightning starts again
    with on_step(3 if end else 0, end):
        tiny.main(arguments)


class TestTwoProcesses(InFolder):
    def test_a_kill_or_sigterm_ends_both_in_one_line_and_both_go_on_with_one_model(self):
        logs = ["--log_dir", str(self.folder)]
        options = ["--num_filters", "2", "--z_dim", "2", "--batch_size", "30", "--epochs", "3"]
        options += ["--accelerator", "cpu", "--devices", "2"]
        for arguments, end, codes in (
            (options, kill_other, (1, 143, -signal.SIGKILL)),
            (["--resume"], stop, (143,)),
        ):
            code, _, said = forked.run(train_by_two, [*arguments, *logs], end)
            self.assertIn(code, codes, said)
            if code != -signal.SIGKILL:  # Lightning's, which looks for dead ones every 5 seconds
                self.assertIn("continue with: python train_pl.py --resume", said.splitlines()[-1])
            self.assertNotRegex(said, "(?i)traceback|warn|deprecat")
        code, printed, said = forked.run(train_by_two, ["--resume", *logs], None)
        self.assertEqual(code, 0, said)
        self.assertNotRegex(said, "(?i)warn|deprecat")
        for once in ("epoch 3/3", "Test of the best checkpoint"):
            self.assertEqual(printed.count(once), 1)
        (run,) = self.folder.iterdir()
        last = read_checkpoint(run / "checkpoints" / folders.LAST)
        self.assertEqual(last["global_step"], 3 * NUM_TRAIN // 60)
        self.assertEqual([step for step, _ in curves(run)["bpd/val"]], [1, 3, 5])


class TestKills(unittest.TestCase):
    def test_kills_one_in_a_write_change_nothing_with_loader_processes_too(self):
        with redirect_stdout(StringIO()):
            self.assertEqual(crash_test.crash_test(kills=2, epochs=3, seed=0, workers=2), [])


class TestOutput(InFolder):
    def test_an_output_that_nobody_reads_ends_with_one_line(self):
        code = "from inputs.command_line import OneLineParser, run_main\n"
        code += (
            "run_main(OneLineParser(prog='x'), lambda args: [print('a' * 99) for _ in range(9**6)])"
        )
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes) as program:
            program.stdout.readline()
            program.stdout.close()
            said = program.stderr.read()
        self.assert_ends((program.returncode, said), 1, "nobody reads")
