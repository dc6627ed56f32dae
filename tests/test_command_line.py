"""The command line, as a user meets it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from unittest import mock

import tiny
import torch

import fmnist
import train_pl

ROOT = Path(__file__).resolve().parent.parent


class TestCommandLine(tiny.InFolder):
    def python(self, *command: object) -> subprocess.CompletedProcess:
        """Runs Python in an empty folder, with no way to any other machine."""
        nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
        return subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=self.folder,
            env={**os.environ, **nowhere},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def assert_refused(self, result: tuple[int, str], *said: str) -> None:
        code, error = result
        self.assertEqual(code, 2, error)
        self.assertEqual(len(error.splitlines()), 1, error)
        for words in said:
            self.assertIn(words, error)

    def refusal(self, *arguments: object) -> tuple[int, str]:
        with redirect_stderr(StringIO()) as error, self.assertRaises(SystemExit) as stop:
            train_pl.main(["--log_dir", str(self.folder / "logs"), *map(str, arguments)])
        self.assertFalse((self.folder / "logs").exists())
        return stop.exception.code, error.getvalue()

    def test_help_names_every_option_with_its_default(self):
        result = self.python(ROOT / "train_pl.py", "--help")
        self.assertEqual(result.returncode, 0)
        words = " ".join(result.stdout.split())
        for action in train_pl.make_parser()._actions[1:]:
            self.assertIn(f"{action.option_strings[0]}", words)
            self.assertIn(f"(default: {action.default})", words)

    def test_values_that_make_no_sense_are_refused_by_name(self):
        for name, value in [
            ("--z_dim", 0),
            ("--num_filters", -1),
            ("--lr", "nan"),
            ("--lr", "0"),
            ("--lr", "fast"),
            ("--epochs", -3),
            ("--epochs", "2.5"),
            ("--batch_size", 0),
            ("--num_workers", -2),
            ("--num_nodes", 0),
            ("--seed", -1),
            ("--seed", 2**32),
            ("--dataset", "EMNIST"),
            ("--accelerator", "abacus"),
            ("--devices", "none"),
            ("--strategy", "luck"),
            ("--precision", "7"),
        ]:
            with self.subTest(name=name, value=value):
                self.assert_refused(self.refusal(name, value), name, str(value))

    def test_a_link_to_nothing_is_no_log_directory(self):
        link = self.folder / "link"
        link.symlink_to(self.folder / "nowhere")
        self.assert_refused(self.refusal("--log_dir", link), "--log_dir", str(link))
        self.assert_refused(self.refusal("--log_dir", link / "logs"), "--log_dir", str(link))

    def test_without_a_compiler_compile_is_refused(self):
        cache = self.folder.with_name(f"{self.folder.name}-cache")
        self.addCleanup(shutil.rmtree, cache, ignore_errors=True)
        broken = {**os.environ, "CXX": "nowhere-g++", "TORCHINDUCTOR_CACHE_DIR": str(cache)}
        with mock.patch.dict(os.environ, broken):
            result = self.python(ROOT / "tests" / "tiny.py", "--compile", "--accelerator", "cpu")
        self.assert_refused((result.returncode, result.stderr), "--compile", "C++ compiler")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_signal_ends_a_process_that_waits_for_another_node_within_seconds(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = free.getsockname()
        nodes = {"MASTER_ADDR": address[0], "MASTER_PORT": str(address[1]), "NODE_RANK": "0"}
        command = [sys.executable, ROOT / "tests" / "tiny.py", "--num_nodes", "2"]
        options = ["--accelerator", "cpu", "--devices", "1", "--log_dir", self.folder / "logs"]
        for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
            pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
            with subprocess.Popen(
                [*command, *options], env={**os.environ, **nodes}, **pipes
            ) as waiting:
                while True:  # until it waits for the other node
                    time.sleep(0.1)
                    with socket.socket() as other:
                        if other.connect_ex(address) == 0:
                            break
                waiting.send_signal(number)
                _, said = waiting.communicate(timeout=30)
            self.assertEqual(waiting.returncode, code, said)
            self.assertIn("stopped before the run began", said)
            self.assertNotIn("Traceback", said)

    def test_a_log_directory_that_cannot_be_written_is_refused(self):
        file = self.folder / "file"
        file.touch()
        self.assert_refused(self.refusal("--log_dir", file / "logs"), "--log_dir", str(file))

    def test_missing_data_without_network_ends_with_one_line_and_no_traceback(self):
        result = self.python(ROOT / "train_pl.py", "--data_dir", "nowhere", "--accelerator", "cpu")
        said = ("nowhere", "train-images-idx3-ubyte.gz is missing", "network", "--data_dir")
        self.assert_refused((result.returncode, result.stderr), *said)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_altered_data_is_refused_by_the_files_name(self):
        raw = self.folder / "data" / "MNIST" / "raw"
        shutil.copytree(fmnist.DATA_DIR, self.folder / "data")
        with open(raw / "t10k-images-idx3-ubyte.gz", "r+b") as archive:
            archive.truncate(1000)
        result = self.python(ROOT / "train_pl.py", "--data_dir", "data", "--accelerator", "cpu")
        self.assert_refused((result.returncode, result.stderr), "t10k-images-idx3-ubyte.gz")
        self.assertFalse((self.folder / "VAE_logs").exists())

    def test_a_run_from_another_folder_with_a_progress_bar_and_no_warning(self):
        result = self.python(
            *(ROOT / "tests" / "tiny.py", "--epochs", 1, "--num_filters", 4, "--progress_bar"),
            *("--accelerator", "cpu", "--devices", 1, "--precision", "bf16-mixed"),
            *("--batch_size", 50, "--num_workers", 1, "--lr", 0.001, "--seed", 3),
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("Test of the best checkpoint", result.stdout)
        self.assertIn("Epoch 0", result.stdout + result.stderr)
        self.assertNotRegex(result.stderr, "(?i)warn|deprecat")
        self.assertTrue((self.folder / "VAE_logs" / "version_0" / "epoch_1_samples.png").exists())

    def test_two_processes_train_one_model_and_write_one_run(self):
        result = self.python(
            *(ROOT / "tests" / "tiny.py", "--epochs", 2, "--num_filters", 4, "--batch_size", 50),
            *("--accelerator", "cpu", "--devices", 2, "--strategy", "ddp"),
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout.count("Test of the best checkpoint"), 1)
        self.assertEqual(result.stdout.count("epoch   2/2"), 1)
        self.assertNotRegex(result.stderr, "(?i)warn|deprecat")
        (run,) = (self.folder / "VAE_logs").iterdir()
        last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        self.assertEqual(last["global_step"], 2 * tiny.NUM_TRAIN / 50 / 2)

    def test_missing_data_ends_two_processes_with_one_line_too(self):
        ddp = ("--accelerator", "cpu", "--devices", 2, "--strategy", "ddp")
        result = self.python(ROOT / "train_pl.py", "--data_dir", "nowhere", *ddp)
        self.assert_refused((result.returncode, result.stderr), "nowhere", "--data_dir")

    def test_a_default_run_prints_no_warning(self):
        result = self.python(ROOT / "tests" / "tiny.py", "--epochs", 2, "--num_filters", 4)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
