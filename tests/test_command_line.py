"""The command line, as a user meets it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import forked
import tiny

import fmnist
import train_pl

ROOT = Path(__file__).resolve().parent.parent
NOWHERE = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")


class TestCommandLine(tiny.InFolder):
    def python(self, *command: object) -> subprocess.CompletedProcess:
        """Runs Python in an empty folder, with no way to any other machine."""
        return subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=self.folder,
            env={**os.environ, **NOWHERE},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def forked(self, main: Callable, *arguments: object, **env: str) -> tuple[int, str]:
        """Exit code and complaints of a program in an empty folder, with no way out either."""
        how = {"cwd": self.folder, "env": {**NOWHERE, **env}}
        code, _, complaints = forked.run(main, [*map(str, arguments)], **how)
        return code, complaints

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
        with redirect_stdout(StringIO()) as said, self.assertRaises(SystemExit) as stop:
            train_pl.main(["--help"])
        self.assertFalse(stop.exception.code)
        words = " ".join(said.getvalue().split())
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
        broken = {"PATH": str(self.folder), "TORCHINDUCTOR_CACHE_DIR": str(cache)}
        ending = self.forked(tiny.main, "--compile", "--accelerator", "cpu", **broken)
        self.assert_refused(ending, "--compile", "C++ compiler")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_signal_ends_a_process_that_waits_for_another_node_within_seconds(self):
        def ending(number: signal.Signals) -> tuple[int | None, str, str]:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                address = free.getsockname()
            nodes = {"MASTER_ADDR": address[0], "MASTER_PORT": str(address[1]), "NODE_RANK": "0"}
            command = ["--num_nodes", "2", "--accelerator", "cpu", "--devices", "1"]
            with forked.Forked(tiny.main, command, cwd=self.folder, env=nodes) as waiting:
                while True:  # until it waits for the other node
                    time.sleep(0.1)
                    with socket.socket() as other:
                        if other.connect_ex(address) == 0:
                            break
                waiting.stop(number)
                return waiting.ending(30)

        forked.start_server()
        with ThreadPoolExecutor() as threads:
            endings = threads.map(ending, (signal.SIGTERM, signal.SIGINT))
        for code, (ended, _, said) in zip((143, 130), endings, strict=True):
            self.assertEqual(ended, code, said)
            self.assertIn("stopped before the run began", said)
            self.assertNotIn("Traceback", said)

    def test_a_log_directory_that_cannot_be_written_is_refused(self):
        file = self.folder / "file"
        file.touch()
        self.assert_refused(self.refusal("--log_dir", file / "logs"), "--log_dir", str(file))

    def test_missing_data_without_network_ends_with_one_line_and_no_traceback(self):
        ending = self.forked(train_pl.main, "--data_dir", "nowhere", "--accelerator", "cpu")
        said = ("nowhere", "train-images-idx3-ubyte.gz is missing", "network", "--data_dir")
        self.assert_refused(ending, *said)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_altered_data_is_refused_by_the_files_name(self):
        raw = self.folder / "data" / "MNIST" / "raw"
        shutil.copytree(fmnist.DATA_DIR, self.folder / "data")
        with open(raw / "t10k-images-idx3-ubyte.gz", "r+b") as archive:
            archive.truncate(1000)
        ending = self.forked(train_pl.main, "--data_dir", "data", "--accelerator", "cpu")
        self.assert_refused(ending, "t10k-images-idx3-ubyte.gz")
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

    def test_missing_data_ends_two_processes_with_one_line_too(self):
        ddp = ("--accelerator", "cpu", "--devices", 2, "--strategy", "ddp")
        result = self.python(ROOT / "train_pl.py", "--data_dir", "nowhere", *ddp)
        self.assert_refused((result.returncode, result.stderr), "nowhere", "--data_dir")

    def test_a_default_run_prints_no_warning(self):
        self.assertEqual(self.forked(tiny.main, "--epochs", 2, "--num_filters", 4), (0, ""))
