"""Files that are damaged or meant to do harm: one line is all that may come of them."""

import argparse
import io
import random
import shutil
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import torch
from tiny import InFolder

import fmnist
import train_pl
from boundary.command_line import InputError, to_argv
from runs.folders import cut_logs, finished_logs
from runs.run import read_state

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
        run = {"logs": {}, "seconds": 9.0, "step": 3, "unlogged": {"epoch": 0.0}, "processes": 1}
        self.checkpoint = {
            "state_dict": dict(model.state_dict()),
            "hyper_parameters": dict(model.hparams),
            "run": {**run, "argv": to_argv({**model.hparams, "epochs": 3})},
        }
        self.whole = saved(self.checkpoint)

    def read(self) -> object:
        train_pl.load_model(self.path)
        return read_state(self.path, train_pl.make_parser())[1]

    def test_the_whole_one_is_read(self):
        self.path.write_bytes(self.whole)
        self.assertEqual(self.read()["step"], 3)

    def test_values_of_other_kinds_are_refused_in_one_line(self):
        run = self.checkpoint["run"]
        for wrong in (
            {"hyper_parameters": {**self.checkpoint["hyper_parameters"], "lr": 10**400}},
            {"state_dict": {**self.checkpoint["state_dict"], 7: torch.zeros(1)}},
            {"run": {name: value for name, value in run.items() if name != "processes"}},
            {"run": {name: value for name, value in run.items() if name != "argv"}},
            {"run": {**run, "argv": ["--help"]}},
            {"run": {**run, "argv": ["--resume"]}},
            {"run": {**run, "argv": [3]}},
            {"run": {**run, "argv": None}},
            {"run": {**run, "logs": {"events.out.tfevents.1": 1.5}}},
            {"run": {**run, "step": -1}},
            {"run": {**run, "unlogged": {3: 0.5}}},
            {"run": {**run, "unlogged": [("epoch", 0.5)]}},
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

    def test_a_result_of_brackets_in_brackets_is_refused(self):
        (self.folder / "result.json").write_text("[" * 200_000)
        self.assertIsNone(self.one_line_or_result(finished_logs, self.folder))

    def test_names_in_a_checkpoint_touch_no_file_outside_its_run(self):
        outside = self.folder / "outside"
        outside.write_bytes(b"important")
        log = self.folder / "run" / "events.out.tfevents.1"
        log.parent.mkdir()
        log.write_bytes(b"0123456789")
        (log.parent / "events.out.tfevents.2").symlink_to(outside)
        lengths = {"../outside": 1, str(outside): 0, log.name: 4, "events.out.tfevents.2": 4}
        cut_logs(log.parent, lengths)
        self.assertEqual((outside.read_bytes(), log.read_bytes()), (b"important", b"0123"))


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
