"""Files that are damaged or meant to do harm: one line is all that may come of them."""

import argparse
import io
import random
import shutil
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import pytorch_lightning as pl
import torch
from tiny import InFolder

import fmnist
import train_pl
from boundary.command_line import InputError, to_argv
from runs.run import State, read_state

MAX_SECONDS = 40  # on two slow cores that others use too
ROOT = Path(__file__).resolve().parent.parent


class HostileTest(InFolder):
    def setUp(self):
        super().setUp()
        self.chance = random.Random(0)

    def one_line_or_result(self, read, *arguments: object) -> object:
        """What `read` returns, or None after an InputError; anything else fails the test."""
        start = time.monotonic()
        try:
            result = read(*arguments)
        except InputError as error:
            self.assertEqual(len(str(error).splitlines()), 1, error)
            result = None
        self.assertLess(time.monotonic() - start, MAX_SECONDS)
        return result


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


class TestCheckpoints(HostileTest):
    def setUp(self):
        super().setUp()
        self.path = self.folder / "checkpoints" / "last.ckpt"
        self.path.parent.mkdir()
        model = train_pl.VAE(num_filters=2, z_dim=2, lr=1e-3)
        self.checkpoint = {
            "state_dict": dict(model.state_dict()),
            "hyper_parameters": dict(model.hparams),
            "pytorch-lightning_version": pl.__version__,
            "run": asdict(State(argv=to_argv({"lr": 1e-3, "epochs": 3}), step=3)),
        }
        self.whole = saved(self.checkpoint)

    def read(self) -> object:
        train_pl.load_model(self.path)
        return asdict(read_state(self.path, train_pl.make_parser())[1])

    def test_the_whole_one_is_read(self):
        self.path.write_bytes(self.whole)
        self.assertEqual(self.read()["step"], 3)

    def test_values_of_other_kinds_are_refused_in_one_line(self):
        run = self.checkpoint["run"]
        for wrong in (
            {"hyper_parameters": {**self.checkpoint["hyper_parameters"], "lr": 10**400}},
            {"state_dict": {**self.checkpoint["state_dict"], 7: torch.zeros(1)}},
            {"run": {**run, "unknown": 1}},
            {"run": {**run, "argv": [3]}},
            {"run": {**run, "argv": None}},
        ):
            self.path.write_bytes(saved({**self.checkpoint, **wrong}))
            with self.subTest(wrong=list(wrong)):
                self.assertIsNone(self.one_line_or_result(self.read))

    def test_settings_that_make_no_sense_are_refused_by_name(self):
        for name, value in (
            ("epochs", -1),
            ("batch_size", 0),
            ("seed", -5),
            ("dataset", "EMNIST"),
            ("num_workers", 10**5),
            ("unknown", 1),
        ):
            wrong = {**self.checkpoint["run"], "argv": to_argv({name: value})}
            self.path.write_bytes(saved({**self.checkpoint, "run": wrong}))
            with self.subTest(name=name), self.assertRaisesRegex(InputError, "--resume.*last.ckpt"):
                self.read()


class TestResume(HostileTest):
    """Damage behind right checksums, as far as the trainer's own restoring and beyond."""

    def setUp(self):
        super().setUp()
        data = {train: fmnist.load(train=train).subset(torch.arange(90)) for train in (True, False)}
        for patch in (
            mock.patch.object(fmnist, "load", lambda root, name="", train=True: data[train]),
            mock.patch.multiple(fmnist, NUM_TRAIN=60, NUM_VAL=30),
            mock.patch.object(train_pl.GenerateCallback, "sample_and_save"),
            mock.patch.object(train_pl, "show_latents", return_value={}),
            redirect_stdout(io.StringIO()),
        ):
            patch.__enter__()
            self.addCleanup(patch.__exit__, None, None, None)
        options = {"num_filters": 2, "z_dim": 2, "batch_size": 30, "epochs": 1}
        (self.result,) = train_pl.train_vae(
            argparse.Namespace(**options, accelerator="cpu", devices="1", log_dir=self.folder)
        )
        self.run_folder = self.folder / "version_0"
        self.last = self.run_folder / "checkpoints" / "last.ckpt"
        self.good = torch.load(self.last, weights_only=True)

    def resume(self, checkpoint: dict) -> object:
        """The test result after one more epoch, or None where the checkpoint is refused."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            shutil.copytree(self.run_folder, f"{folder}/version_0")
            torch.save(checkpoint, f"{folder}/version_0/checkpoints/last.ckpt")
            args = argparse.Namespace(resume=f"{folder}/version_0", epochs=2)
            return self.one_line_or_result(train_pl.train_vae, args)

    def test_a_version_of_lightning_that_is_odd_or_missing_is_refused(self):
        for version in (None, 3, "", "x", "1.0.0.0.x"):
            with self.subTest(version=version):
                damaged = {**self.good, "pytorch-lightning_version": version}
                self.assertIsNone(self.resume(damaged))
        del damaged["pytorch-lightning_version"]
        self.assertIsNone(self.resume(damaged))
