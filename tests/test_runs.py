"""Runs: killed, stopped, disturbed or resumed (tests/crash_test.py is the long version); what they
write about themselves: TensorBoard's pages, metrics.csv, result.json.
"""

import argparse
import csv
import json
import logging
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from importlib import metadata
from io import StringIO
from pathlib import Path
from unittest import mock

import crash_test
import forked
import numpy as np
import pytorch_lightning as pl
import torch
from crash_test import curves, differences
from matplotlib.colors import to_rgb
from PIL import Image
from pytorch_lightning.callbacks import Callback, LambdaCallback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tiny import NUM_TEST, NUM_TRAIN, InFolder, run_command, tiny_data, without_pictures

import fmnist
import train_pl
from inputs.checkpoints import read_checkpoint
from inputs.command_line import InputError, to_argv
from inputs.files import write_whole
from judging.samples import judge_run, load_classifier
from muon import warmup_and_line
from pictures.figures import CLASS_COLOURS, losses_figure
from runs import folders
from runs import run as run_module
from runs.checkpoints import find_checkpoint
from runs.folders import locked, new_run_folder, newest_unfinished
from runs.stopping import StopIfNotFinite
from runs.trainer import quiet_lightning
from train_pl import VAE, load_model, main, make_parser, train_vae

TESTS = Path(__file__).resolve().parent
TINY = {"num_filters": 4, "z_dim": 3, "accelerator": "cpu"}
SMALL = [*to_argv(TINY), "--batch_size", "50"]  # 6 steps in an epoch


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def column(table: list[dict[str, str]], name: str) -> list[float]:
    """The cells of a column that are not empty."""
    return [float(row[name]) for row in table if row[name]]


def stop(*_: object, number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def on_step(number: int, act: Callable[[], object] = stop) -> mock._patch:
    """Calls `act` in the training step of this number, counted from 1."""
    steps = iter(range(1, 10**6))
    step = VAE.training_step

    def training_step(self, batch, batch_idx):
        if next(steps) == number:
            act()
        return step(self, batch, batch_idx)

    return mock.patch.object(VAE, "training_step", training_step)


def own_trainer(**how: object) -> pl.Trainer:
    quiet_lightning()
    plain = {"accelerator": "cpu", "logger": False, "num_sanity_val_steps": 0}
    plain |= {"enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(**{**plain, **how})


@cache
def finished_run() -> Path:
    """A run of one epoch, made once: copy it."""
    logs = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(logs.cleanup)
    with tiny_data(), redirect_stdout(StringIO()):
        train_vae(argparse.Namespace(**TINY, batch_size=50, epochs=1, log_dir=logs.name))
    return Path(logs.name, "version_0")


class RunTest(InFolder):
    def setUp(self):
        super().setUp()
        self.logs = self.folder / "logs"
        self.run_folder = self.logs / "version_0"
        for number in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def train(self, *arguments: object) -> tuple[int, str]:
        """Runs the command line on the tiny data; returns exit code and complaints."""
        with tiny_data():
            code, _, said = run_command(main, *arguments, "--log_dir", self.logs)
        return code, said

    def train_vae(self, *more: Callback, **options: object) -> None:
        args = argparse.Namespace(log_dir=self.logs, **options)
        with tiny_data(), redirect_stdout(StringIO()):
            train_vae(args, more)

    def copy_finished(self) -> Path:
        return shutil.copytree(finished_run(), self.run_folder)

    def rows(self) -> list[dict[str, str]]:
        return rows(self.run_folder / "metrics.csv")


class BareTest(RunTest):
    def setUp(self):
        super().setUp()
        self.enterContext(without_pictures())


class TestStopAndResume(BareTest):
    def test_a_stopped_run_goes_on_as_if_nothing_had_been_and_its_settings_come_from_it(self):
        options = [*SMALL, "--epochs", 3, "--lr", 0.004]
        for arguments, number, code in (
            (options, signal.SIGINT, 130),
            (["--resume"], signal.SIGTERM, 143),
        ):
            with on_step(9, lambda number=number: stop(number=number)):
                ending = self.train(*arguments)
            self.assert_ends(ending, code, "continue with", "--resume", str(self.run_folder))
        self.assertEqual(self.train("--resume"), (0, ""))
        self.logs = self.folder / "alone"
        self.assertEqual(self.train(*options), (0, ""))
        self.assertEqual(differences(self.logs / "version_0", self.run_folder), [])

    def test_a_finished_run_is_resumed_for_more_epochs_only(self):
        run = self.copy_finished()
        self.assert_ends(self.train("--resume", run), 2, str(run), "finished", "--epochs")
        self.assert_ends(self.train("--resume"), 2, "no unfinished run", str(self.logs))
        before = vars(make_parser().parse_args(SMALL))
        for name, value in (
            ("z_dim", 4),
            ("num_filters", 5),
            ("lr", 0.5),
            ("batch_size", 49),
            ("seed", 7),
            ("dataset", "KMNIST"),
            ("precision", "bf16-mixed"),
        ):
            ending = self.train("--resume", run, f"--{name}", value)
            self.assert_ends(ending, 2, f"--{name}", f"{before[name]}", f"{value}")
        moved = run.rename(self.logs / "moved")  # a run is what is in its folder, wherever that is
        self.assertEqual(self.train("--resume", moved, "--epochs", 3), (0, ""))
        points = curves(moved)
        self.assertEqual([step for step, _ in points["val_bpd"]], [5, 11, 17])
        self.assertEqual(len(set(points["test_bpd"])), 1)
        seconds = column(rows(moved / "metrics.csv"), "seconds")
        self.assertEqual((len(seconds), seconds), (3, sorted(seconds)))
        self.assertIn("epochs: 3", (moved / folders.SETTINGS).read_text())
        self.assert_ends(self.train("--resume", moved, "--epochs", 2), 2, "--epochs", "3", "2")

    def test_an_interrupted_extension_keeps_the_result_until_a_further_epoch_is_saved(self):
        run = self.copy_finished()
        before = curves(run)
        self.assertIn("test_bpd", before)
        for _ in range(2):
            with on_step(2):
                self.assert_ends(self.train("--resume", run, "--epochs", 2), 143, "--epochs 2")
        after = curves(run)
        for tag, points in before.items():
            self.assertEqual(after[tag][: len(points)], points, tag)
        self.assert_ends(self.train("--resume"), 2, "no unfinished run")
        with on_step(8):  # an epoch more was saved
            self.train("--epochs", 3, "--resume", run)
        self.assertNotIn("test_bpd", curves(run))
        self.assertEqual(self.train("--resume"), (0, ""))
        self.assertEqual(len(set(curves(run)["test_bpd"])), 1)
        self.assertEqual(read_checkpoint(run / "checkpoints" / folders.LAST)["run"]["step"], 18)

    def test_the_first_step_of_an_extension_has_the_learning_rate_of_the_new_length(self):
        run, rates, step = self.copy_finished(), [], VAE.training_step

        def training_step(self, batch, batch_idx):
            rates.append(self.optimizers().param_groups[0]["lr"])
            return step(self, batch, batch_idx)

        with mock.patch.object(VAE, "training_step", training_step):
            self.assertEqual(self.train("--resume", run, "--epochs", 2), (0, ""))
        peak = make_parser().get_default("lr")
        expected = [peak * warmup_and_line(step, 12, 0.05) for step in range(6, 12)]
        self.assertEqual(rates, expected)

    def test_a_kill_between_the_best_and_the_last_checkpoint_leaves_neither_row_nor_model(self):
        run, save = self.copy_finished(), pl.Trainer.save_checkpoint
        before, (best,) = self.rows(), run.glob("checkpoints/best_*")

        def killed(trainer, path, *arguments, **more):
            if path.name == folders.LAST:
                shutil.copy(best, best.with_name("best_val_bpd_0.0001.ckpt"))
                raise RuntimeError("killed")
            save(trainer, path, *arguments, **more)

        with (
            mock.patch.object(pl.Trainer, "save_checkpoint", killed),
            self.assertRaisesRegex(RuntimeError, "killed"),
        ):
            self.train_vae(epochs=2, resume=run)
        self.assertEqual(self.rows(), before)
        self.assertEqual(self.train("--resume"), (0, ""))
        self.assertEqual((self.rows(), find_checkpoint(run)), (before, best))

    def test_a_run_that_a_caller_started_with_other_types_can_be_loaded_and_resumed(self):
        self.train_vae(
            **{"num_filters": np.int64(4), "z_dim": np.int32(3), "batch_size": np.uint8(50)},
            **{"accelerator": "cpu", "epochs": np.int64(1), "data_dir": train_pl.DATA_DIR},
            **{"lr": np.float64(1e-3), "devices": 1, "progress_bar": False},
        )
        given = {"num_filters": 4, "z_dim": 3, "lr": 1e-3}
        self.assertEqual(dict(load_model(self.run_folder).hparams), {**VAE().hparams, **given})
        self.assertEqual(self.train("--resume", self.run_folder, "--epochs", 2), (0, ""))

    def test_a_run_that_was_stopped_in_its_test_is_completed(self):
        with mock.patch.object(VAE, "test_step", stop):
            self.assert_ends(self.train(*SMALL, "--epochs", 1), 143, "--resume")
        self.assertEqual(self.train("--resume"), (0, ""))
        self.assertEqual(len(set(curves(self.run_folder)["test_bpd"])), 1)
        self.assertTrue((self.run_folder / folders.RESULT).exists())

    def test_a_run_is_read_while_nobody_else_can_be_locked_there(self):
        run, reads = self.copy_finished(), []

        def read(last):
            with ThreadPoolExecutor(1) as threads, self.assertRaises(InputError):
                threads.submit(locked, run).result()
            reads.append(last)
            return read_checkpoint(last)

        with mock.patch.object(run_module, "read_checkpoint", read):
            self.assert_ends(self.train("--resume", run), 2, "finished")
        self.assertEqual(len(reads), 1)

    def test_what_cannot_be_resumed_is_refused_with_a_remedy(self):
        empty = self.logs / "version_3"
        empty.mkdir(parents=True)
        self.assert_ends(self.train("--resume"), 2, "no unfinished run", "without --resume")
        self.assert_ends(self.train("--resume", empty), 2, "last.ckpt", "start a new run")
        self.assert_ends(self.train("--resume", self.logs / "none.ckpt"), 2, "none.ckpt")
        self.assert_ends(self.train("--resume", ""), 2, "--resume", "''")
        run = self.copy_finished()
        (run / folders.RESULT).unlink()
        (best,) = run.glob("checkpoints/best*")
        self.assert_ends(self.train("--resume", best), 2, best.name, "model only")
        with mock.patch.object(pl.Trainer, "world_size", 2):
            self.assert_ends(self.train("--resume"), 2, "--devices", "1 processes")
        hold = "with __import__('filelock').FileLock('.lock'): print(flush=True); input()"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", hold], cwd=run, **pipes) as other:
            other.stdout.readline()
            self.assert_ends(self.train("--resume", run), 2, "another process", str(run))
            self.assert_ends(self.train("--resume"), 2, "no unfinished run")
            other.communicate(b"\n")
        with locked(run), ThreadPoolExecutor(1) as threads:
            for _ in range(2):  # to be refused must not free it for the next
                with self.assertRaisesRegex(InputError, "another process or thread"):
                    threads.submit(locked, run).result()
        self.logs = self.logs / "elsewhere"
        self.assert_ends(self.train("--resume", run), 2, "--log_dir", str(run.parent), "elsewhere")
        self.logs = run.parent
        best.unlink()
        self.assert_ends(self.train("--resume", run), 2, best.name, "missing")


class TestCallers(BareTest):
    """What callers of `train_vae` bring along: callbacks, models, their process."""

    def test_an_epoch_that_a_callback_ends_early_has_its_own_figures_and_is_trained_anew(self):
        losses, elbo_terms = [], VAE.elbo_terms

        def recorded(model, imgs):
            terms = elbo_terms(model, imgs)
            if model.training:
                losses.append((terms[0] + terms[1]).mean().item())
            return terms

        self.train_vae(**TINY, batch_size=50, epochs=3)
        alone = self.run_folder
        for steps in (3, 15):  # of 6 in an epoch: within the first one, and within the third one
            self.logs = self.folder / f"{steps}"
            self.run_folder = self.logs / "version_0"

            def end(trainer, *step, steps=steps):
                trainer.should_stop = trainer.global_step == steps

            losses.clear()
            with mock.patch.object(VAE, "elbo_terms", recorded):
                early = LambdaCallback(on_train_batch_end=end)
                self.train_vae(early, **TINY, batch_size=50, epochs=3)
            last = self.rows()[-1]
            self.assertEqual((last["epoch"], last["step"]), (f"{steps // 6 + 1}", f"{steps - 1}"))
            mean = np.mean(losses[steps // 6 * 6 :])
            self.assertAlmostEqual(float(last["train_ELBO"]), mean, delta=1e-3 * mean)
            self.assertEqual(self.train("--resume", self.run_folder), (0, ""))
        self.assertEqual(differences(alone, self.run_folder), [])

    def test_a_callers_checkpoints_stay(self):
        name = "best_val_bpd_{epoch}_{val_bpd:.4f}"  # nearly as the run names its own
        keep = pl.callbacks.ModelCheckpoint(
            filename=name, auto_insert_metric_name=False, save_top_k=-1
        )
        self.train_vae(keep, **TINY, epochs=3)
        kept = {file.name for file in (self.run_folder / "checkpoints").iterdir()}
        self.assertEqual(len(kept), 3 + 2, kept)

    def test_other_schedules_go_on_as_they_were_saved(self):
        def cosine(optimizer):
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)

        def plateau(optimizer):
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
            return {"scheduler": schedule, "monitor": "val_bpd"}

        for make in (cosine, plateau):
            logs, rates = self.folder / make.__name__, []

            def configure_optimizers(model, make=make):
                optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
                return {"optimizer": optimizer, "lr_scheduler": make(optimizer)}

            rate = LambdaCallback(
                on_train_batch_start=lambda trainer, *_, rates=rates: rates.append(
                    trainer.optimizers[0].param_groups[0]["lr"]
                )
            )
            with mock.patch.object(VAE, "configure_optimizers", configure_optimizers):
                self.logs = logs
                self.train_vae(**TINY, batch_size=50, epochs=1)
                self.train_vae(rate, resume=logs / "version_0", epochs=2)
            self.assertEqual(rates, [rates[0]] * 6)  # they move between epochs only
            if make is cosine:
                self.assertAlmostEqual(rates[0], 1e-3 * (1 + math.cos(math.pi / 6)) / 2)

    def test_lightnings_tuner_finds_a_learning_rate(self):
        trainer = own_trainer(max_epochs=1, default_root_dir=self.folder)
        with tiny_data(), redirect_stderr(StringIO()):
            tuner, data = pl.tuner.Tuner(trainer), fmnist.MNISTDataModule(batch_size=5)
            found = tuner.lr_find(VAE(num_filters=4, z_dim=3), datamodule=data, num_training=30)
        self.assertTrue((np.diff(found.results["lr"]) > 0).all())

    def test_a_trainer_of_ones_own_goes_on_from_a_checkpoint_within_an_epoch(self):
        for epochs, path in ((1, None), (2, self.folder / "step=4.ckpt")):
            keep = pl.callbacks.ModelCheckpoint(self.folder, "{step}", every_n_train_steps=4)
            trainer = own_trainer(max_epochs=epochs, callbacks=[keep])
            model, data = VAE(num_filters=4, z_dim=3), fmnist.MNISTDataModule(batch_size=50)
            with tiny_data(), warnings.catch_warnings(action="ignore"):
                trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
        self.assertEqual(trainer.global_step, 12)
        self.assertTrue(trainer.callback_metrics["train_bpd"].isfinite())

    def test_the_process_is_left_as_it_was(self):
        logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")

        def state() -> list[object]:
            random = [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()]
            handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
            threads = {thread.name for thread in threading.enumerate()}
            of_python = [dict(os.environ), [*warnings.filters], logger.level, handlers, threads]
            return [*random, *of_python, threading.excepthook]

        before = state()
        self.train_vae(**TINY, batch_size=50, epochs=1, seed=7)
        self.assertEqual(state(), before)
        with on_step(2):
            self.assertEqual(self.train(*SMALL, "--epochs", 1)[0], 143)
        self.assertEqual(state(), before)
        self.assertEqual(self.train(*SMALL, "--epochs", 9, "--lr", 10)[0], 1)
        self.assertEqual(state(), before)


class TestFaults(BareTest):
    def last_epoch(self) -> int:
        load_model(self.run_folder / "checkpoints" / folders.LAST)
        return read_checkpoint(self.run_folder / "checkpoints" / folders.LAST)["epoch"]

    def test_a_lost_loss_ends_with_step_remedy_and_the_last_good_checkpoint(self):
        ending = self.train(*SMALL, "--epochs", 9, "--lr", 10)
        self.assert_ends(ending, 1, "epoch 1", "--lr", "last.ckpt")
        self.assertRegex(ending[1], r"step \d of 6")
        shutil.rmtree(self.logs)
        steps, loss = iter(range(1, 100)), VAE.training_step

        def lost(self, batch, batch_idx):
            return loss(self, batch, batch_idx) * (math.nan if next(steps) == 15 else 1)

        with mock.patch.object(VAE, "training_step", lost):
            ending = self.train(*SMALL, "--epochs", 4)
        self.assert_ends(ending, 1, "step 3 of 6", "epoch 3", "lower --lr")
        self.assertEqual(self.last_epoch(), 1)

    def test_an_accelerator_is_waited_for_every_fifty_steps_only(self):
        stop = StopIfNotFinite("val_bpd")
        module = argparse.Namespace(device=torch.device("meta"), hparams=argparse.Namespace(lr=1.0))
        trainer = mock.Mock(num_training_batches=100, current_epoch=0, lightning_module=module)
        loss = {"loss": torch.zeros((), device="meta")}  # which has no value to read
        for batch_idx in range(StopIfNotFinite.EVERY - 1):
            stop.on_train_batch_end(trainer, module, loss, None, batch_idx)
        self.assertFalse(trainer.strategy.reduce.called)
        trainer.strategy.reduce.return_value = torch.tensor(math.nan)
        with self.assertRaisesRegex(FloatingPointError, "step 50 of 100"):
            stop.on_train_batch_end(trainer, module, loss, None, StopIfNotFinite.EVERY - 1)

    def test_a_signal_before_the_run_begins_ends_with_one_line(self):
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            stop = mock.Mock(side_effect=lambda number=number: os.kill(os.getpid(), number))
            with mock.patch.object(fmnist.MNISTDataModule, "prepare_data", stop):
                self.assert_ends(self.train(*SMALL), code, "stopped before the run began")

    def test_an_output_that_nobody_reads_ends_with_one_line(self):
        program = [sys.executable, str(TESTS / "tiny.py"), *SMALL, "--log_dir", str(self.logs)]
        with subprocess.Popen(
            [*program, "--epochs", "30"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as run:
            run.stdout.readline()
            run.stdout.close()
            said = run.stderr.read()
        self.assert_ends((run.returncode, said), 1, "nobody reads", "--resume")

    def test_a_full_disk_ends_with_one_line_and_the_last_checkpoint_loads(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

        def full():
            size = (self.run_folder / "checkpoints" / folders.LAST).stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 100, hard))

        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))
        with on_step(9, full):
            ending = self.train(*SMALL, "--epochs", 3)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.assert_ends(ending, 1, "cannot write", str(self.logs), "--resume")
        self.assertEqual(self.last_epoch(), 0)
        self.assertEqual(self.train("--resume"), (0, ""))

    def test_a_log_directory_that_is_removed_ends_with_one_line(self):
        with on_step(9, lambda: shutil.rmtree(self.logs)):
            ending = self.train(*SMALL, "--epochs", 3)
        self.assert_ends(ending, 1, "cannot write", str(self.logs), "start again")

    def test_a_run_whose_latents_are_not_used_ends_with_a_hint(self):
        for active, times in ((0.0, 1), (2.0, 0)):
            latents = mock.Mock(return_value={"test_active_units": active})
            with tiny_data(), mock.patch.object(train_pl, "show_latents", latents):
                _, output, _ = run_command(main, *SMALL, "--epochs", 1, "--log_dir", self.logs)
            self.assertEqual(output.count("No latent is active"), times)

    def test_the_bar_is_gone_when_the_program_says_why_it_stops(self):
        with on_step(9, lambda: stop(number=signal.SIGINT)):
            code, said = self.train(*SMALL, "--epochs", 3, "--progress_bar")
        *bar, last = said.split("\r")
        self.assertEqual(code, 130)
        self.assertIn("epoch 2/3 |", said)
        self.assertRegex(last, rf"^stopped; continue with: .* --resume {self.run_folder}\n$")
        self.assertLessEqual(max(map(len, bar)), 80)

    def test_a_last_checkpoint_that_is_damaged_or_of_another_version_is_refused_in_one_line(self):
        last = self.copy_finished() / "checkpoints" / folders.LAST
        whole = read_checkpoint(last)
        states = [{"unknown": 1}, {"argv": [3]}, {"argv": None}]
        states += [
            {"argv": to_argv(options)}
            for options in ({"epochs": -1}, {"seed": -5}, {"dataset": "EMNIST"}, {"unknown": 1})
        ]
        for wrong in (
            *({"run": {**whole["run"], **state}} for state in states),
            *({"pytorch-lightning_version": version} for version in (None, 3, "", "x")),
            {"state_dict": {**whole["state_dict"], 7: torch.zeros(1)}},
            {"loops": {}},
        ):
            with self.subTest(str(wrong)[:80]):
                torch.save({**whole, **wrong}, last)
                ending = self.train("--resume", last, "--epochs", 2)
                self.assert_ends(ending, 2, "--resume", str(last))
        self.assertEqual(len(list(self.logs.iterdir())), 1)


class TestPictures(RunTest):
    def test_links_that_somebody_left_in_a_run_are_replaced_and_not_followed(self):
        run, outside = self.copy_finished(), self.folder / "outside"
        outside.write_bytes(b"important")
        for name in ("metrics.csv", "result.json", "latent_means.png", "epoch_2_samples.png"):
            (run / name).unlink(missing_ok=True)
            (run / name).symlink_to(outside)
        self.assertEqual(self.train("--resume", run, "--epochs", 2), (0, ""))
        self.assertEqual(outside.read_bytes(), b"important")
        (run / "result.json").unlink()
        os.mkfifo(run / "result.json")  # to read it would wait for ever
        self.assert_ends(self.train("--resume", run), 2, "finished")

    def test_pictures_that_cannot_be_drawn_end_a_training_with_the_remedy(self):
        def enormous(model, *_):
            for weights in model.prior.parameters():
                weights.data.fill_(1e30)

        with mock.patch.object(VAE, "on_validation_end", enormous, create=True):
            ending = self.train(*SMALL, "--epochs", 1)
        self.assert_ends(ending, 1, "lower --lr", "last.ckpt")


class TestFolders(InFolder):
    def test_runs_that_start_at_the_same_time_get_folders_of_their_own(self):
        folders = []
        start = threading.Barrier(20)

        def claim():
            start.wait()
            folders.append(new_run_folder(self.folder / "logs"))

        threads = [threading.Thread(target=claim) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual({folder.name for folder in folders}, {f"version_{n}" for n in range(20)})

    def test_the_newest_unfinished_run_is_the_one_with_the_newest_last_checkpoint(self):
        for number, finished in enumerate((False, False, True)):
            last = self.folder / f"version_{number}" / "checkpoints" / folders.LAST
            last.parent.mkdir(parents=True)
            last.touch()
            os.utime(last, (1000 - number, 1000 - number))
            if finished:
                write_whole(last.parent.parent / folders.RESULT, b"{}")
        self.assertEqual(newest_unfinished(self.folder).name, "version_0")
        (self.folder / "version_0" / ".lock").unlink()
        (self.folder / "version_0" / ".lock").mkdir()  # it cannot be locked: the next one is
        self.assertEqual(newest_unfinished(self.folder).name, "version_1")


class TestTwoProcesses(InFolder):
    def test_a_kill_or_sigterm_ends_both_in_one_line_and_both_go_on_with_one_model(
        self,
    ):
        command = [sys.executable, TESTS / "tiny.py", "--log_dir", self.folder]
        options = [*SMALL, "--batch_size", "15", "--epochs", "6", "--devices", "2"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

        def kill_other(run: subprocess.Popen) -> None:
            children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
            for child in map(int, children):
                if b"tiny.py" in Path(f"/proc/{child}/cmdline").read_bytes():
                    os.kill(child, signal.SIGKILL)

        for arguments, epoch, end, codes in (
            (options, 2, kill_other, (1, 143)),
            (["--resume"], 4, subprocess.Popen.terminate, (143,)),
        ):
            with subprocess.Popen([*command, *arguments], **pipes) as run:
                for line in run.stdout:
                    if line.startswith(f"epoch {epoch}"):
                        end(run)
                _, said = run.communicate(timeout=60)
            self.assertIn(run.returncode, codes, said)
            self.assertIn("continue with: python train_pl.py --resume", said.splitlines()[-1])
            self.assertNotRegex(said, "(?i)traceback|warn|deprecat")
        resumed = subprocess.run([*command, "--resume"], **pipes, timeout=120)
        self.assertEqual(resumed.returncode, 0, resumed.stderr)
        self.assertNotRegex(resumed.stderr, "(?i)warn|deprecat")
        for once in ("epoch 6/6", "Test of the best checkpoint"):
            self.assertEqual(resumed.stdout.count(once), 1)
        (run,) = self.folder.iterdir()
        last = read_checkpoint(run / "checkpoints" / folders.LAST)
        self.assertEqual(last["global_step"], 6 * NUM_TRAIN // 30)
        self.assertEqual([step for step, _ in curves(run)["val_bpd"]], [9, 19, 29, 39, 49, 59])


class TestKills(unittest.TestCase):
    def test_kills_one_in_a_write_change_nothing_with_and_without_loader_processes(self):
        forked.start_server()
        kills, epochs, seeds, workers = (3, 2), (3, 3), (0, 0), (0, 2)
        with redirect_stdout(StringIO()), ThreadPoolExecutor() as both:
            found = both.map(crash_test.crash_test, kills, epochs, seeds, workers)
            self.assertEqual([*found], [[], []])


class TestPages(unittest.TestCase):
    """One run of two epochs of 50 steps."""

    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        args = argparse.Namespace(**TINY, batch_size=6, epochs=2, lr=1e-3, log_dir=temporary.name)
        with tiny_data(), redirect_stdout(StringIO()):
            (cls.test,) = train_vae(args)
        cls.folder = Path(temporary.name, "version_0")
        cls.curves = curves(cls.folder)
        cls.ends = [49, 99]
        cls.best = min(cls.curves["val_bpd"], key=lambda point: point[1])[0]

    def test_the_first_page_opens_on_the_bits_per_dimension_and_the_pictures(self):
        groups = {tag.removeprefix("picture ").split("/")[0] for tag in self.curves}
        self.assertEqual(sorted(groups)[:2], ["bpd", "images"])  # TensorBoard opens two

    def test_what_is_logged_keeps_its_name_beside_the_first_page(self):
        self.assertEqual(self.curves["bpd/val"], self.curves["val_bpd"])
        self.assertEqual(self.curves["bpd/val_prior"], self.curves["val_prior_bpd"])
        for tag in ("bpd/train", "nats/train_reconstruction", "nats/train_KL"):
            self.assertEqual([step for step, _ in self.curves[tag]], self.ends)
        self.assertEqual(self.curves["nats/val_KL"], self.curves["val_regularization_loss"])

    def test_pictures_and_curves_have_one_axis_and_what_is_of_the_best_model_is_at_its_step(self):
        for tag, steps in (
            ("val_bpd", self.ends),
            ("val_active_units", [0, *self.ends]),
            ("picture images/Samples", [0, *self.ends]),
            ("picture images/KL per dimension", [0, *self.ends]),
            ("picture images/Latent means", [self.best]),
        ):
            self.assertEqual([step for step, _ in self.curves[tag]], steps, tag)

    def test_the_projectors_pictures_have_the_colours_of_their_classes(self):
        labels = (self.folder / "projector" / "metadata.tsv").read_text().split()
        with Image.open(self.folder / "projector" / "sprite.png") as picture:
            sprite = np.array(picture)
        for n, label in enumerate(labels):
            y, x = 28 * (n // 7), 28 * (n % 7)  # 40 images in rows of 7
            ink = sprite[y : y + 28, x : x + 28, :3].reshape(-1, 3)
            colour = np.array(to_rgb(CLASS_COLOURS[int(label)]))
            np.testing.assert_allclose(ink / 255, np.broadcast_to(colour, ink.shape), atol=1 / 255)
        self.assertTrue(0 < sprite[..., 3].mean() < 128)  # the paper is transparent

    def test_a_run_has_an_event_file_of_its_training_and_one_of_its_result(self):
        suffixes = sorted(file.suffix == ".result" for file in self.folder.glob("*.tfevents.*"))
        self.assertEqual(suffixes, [False, True])
        self.assertEqual(len(self.curves["test_bpd"]), 1)

    def test_hparams_begins_with_size_seed_and_the_bits_of_the_test(self):
        events = EventAccumulator(str(self.folder))
        events.Reload()
        content = events.summary_metadata["_hparams_/experiment"].plugin_data.content
        experiment = HParamsPluginData.FromString(content).experiment
        first = {info.name for info in experiment.hparam_infos if info.differs}
        self.assertEqual(first, {"z_dim", "seed"})  # TensorBoard shows first what differs
        self.assertEqual(experiment.metric_infos[0].name.tag, "test_bpd")

    def test_every_chart_of_the_layout_has_its_two_curves(self):
        (layout,) = (
            Layout.FromString(
                events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
            )
            for events in map(EventAccumulator, map(str, self.folder.glob("*.tfevents.*")))
            if events.Reload() and "custom_scalars__config__" in events.Tags()["tensors"]
        )
        charts = layout.category[0].chart
        self.assertIn("training and validation", charts[0].title)
        for chart in charts:
            shown = {tag for tag in self.curves for r in chart.multiline.tag if re.match(r, tag)}
            self.assertEqual(len(shown), 2, (chart.title, shown))

    def test_the_curves_of_the_losses_are_a_picture_too(self):
        with Image.open(self.folder / "losses.png") as picture:
            self.assertGreater(picture.size[0], 1000)
        table = rows(self.folder / "metrics.csv")
        panels = losses_figure(table).axes
        shown = [[line.get_ydata()[-1] for line in axes.lines] for axes in panels]
        parts = ("reconstruction_loss", "regularization_loss", "bpd")
        expected = [[float(table[-1][f"{s}_{part}"]) for s in ("train", "val")] for part in parts]
        expected[2].append(float(table[-1]["val_prior_bpd"]))
        self.assertEqual(shown, expected)

    def test_metrics_csv_has_a_row_per_epoch_with_the_figures_of_the_curves(self):
        table = rows(self.folder / "metrics.csv")
        self.assertEqual(column(table, "epoch"), [1, 2])
        self.assertEqual(column(table, "step"), self.ends)
        seconds = column(table, "seconds")
        self.assertTrue(0 < seconds[0] < seconds[1])
        parts = ("bpd", "ELBO", "reconstruction_loss", "regularization_loss")
        names = {f"{stage}_{part}" for stage in ("train", "val") for part in parts}
        self.assertEqual(table[0].keys(), {"epoch", "step", "seconds", "val_prior_bpd", *names})
        for name in names:
            for found, (_, logged) in zip(column(table, name), self.curves[name], strict=True):
                self.assertAlmostEqual(found, logged, delta=1e-5 * abs(logged))

    def test_result_json_has_all_options_versions_parameters_and_the_test_with_its_parts(self):
        result = json.loads((self.folder / "result.json").read_text())
        for name, value in self.test.items():
            self.assertEqual(result[name], value)
        defaults = vars(make_parser().parse_args([]))
        self.assertEqual(result["options"].keys(), defaults.keys() - {"log_dir", "resume"})
        self.assertEqual(result["options"], {**result["options"], **TINY, "precision": "32-true"})
        settings = (self.folder / "hparams.yaml").read_text().splitlines()
        self.assertLessEqual(result["options"].keys(), {line.split(":")[0] for line in settings})
        parts = result["test_reconstruction_loss"] + result["test_regularization_loss"]
        self.assertAlmostEqual(parts, result["test_ELBO"], delta=1e-2)
        self.assertAlmostEqual(parts / 784 / math.log(2), result["test_bpd"], delta=1e-4)
        model = load_model(self.folder)
        count = sum(p.numel() for p in model.parameters())
        self.assertEqual(sum(result["parameters"].values()), count)
        self.assertEqual(result["versions"]["torch"], torch.__version__)
        self.assertEqual(result["versions"]["tensorboard"], metadata.version("tensorboard"))
        self.assertTrue(result["machine"]["processor"])
        self.assertEqual(self.ends[result["best_epoch"] - 1], self.best)
        self.assertGreater(result["seconds"], 0)

    def test_result_json_says_how_good_samples_of_each_kind_are(self):
        samples = json.loads((self.folder / "result.json").read_text())["samples"]
        self.assertEqual(samples["of_each_kind"], NUM_TEST)
        self.assertTrue(0 <= samples["learned_prior_by_class"]["right_class"] <= 1)
        with tiny_data():
            train, _ = fmnist.split(fmnist.load(fmnist.DATA_DIR))
            test = fmnist.load(fmnist.DATA_DIR, train=False)
        how = (load_classifier(), train, test, make_parser().parse_args([]).seed)
        self.assertEqual(judge_run(load_model(self.folder), *how), samples)


class TestWithinTheEpoch(InFolder):
    def test_a_point_is_the_mean_since_the_last_one_or_since_the_epoch_began(self):
        losses, terms = [], VAE.elbo_terms

        class Recorded(VAE):
            def elbo_terms(self, imgs):
                found = terms(self, imgs)
                if self.training:
                    losses.append((found[0] + found[1]).mean().item())
                return found

        logger = CSVLogger(self.folder, name=None)
        trainer = own_trainer(
            max_epochs=2, log_every_n_steps=4, logger=logger, enable_checkpointing=False
        )
        with tiny_data():
            data = fmnist.MNISTDataModule(batch_size=NUM_TRAIN // 6)
            trainer.fit(Recorded(num_filters=2, z_dim=2, lr=1e-3), datamodule=data)
        table = [
            row for row in rows(self.folder / "version_0/metrics.csv") if row["train_bpd_step"]
        ]
        self.assertEqual(column(table, "step"), [3, 7, 11])
        nats = torch.tensor(losses)
        means = torch.stack([nats[:4].mean(), nats[6:8].mean(), nats[8:12].mean()])
        expected = means / 784 / torch.tensor(2.0).log()
        found = torch.tensor(column(table, "train_bpd_step"))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


class TestLoggers(RunTest):
    def test_callbacks_are_added_and_all_loggers_of_a_caller_get_the_same_figures(self):
        seen, board = [], TensorBoardLogger(self.folder, name="board", version=0)
        report = LambdaCallback(
            on_train_epoch_end=lambda trainer, model: seen.append(
                trainer.callback_metrics["val_bpd"].item()
            )
        )
        args = argparse.Namespace(**TINY, batch_size=6, epochs=1, log_dir=self.logs)
        with tiny_data(), redirect_stdout(StringIO()) as output:
            (test,) = train_vae(args, report, [CSVLogger(self.folder, name="csv"), board])
        table = rows(self.folder / "csv/version_0/metrics.csv")
        self.assertAlmostEqual(column(table, "val_bpd")[0], seen[0], places=4)
        self.assertEqual(column(table, "test_bpd"), [test["test_bpd"]])
        shown = curves(self.folder / "board/version_0")
        self.assertIn("picture images/Samples", shown)
        for name in ("val_bpd", "train_bpd", "train_bpd_step", "val_prior_bpd", "test_prior_bpd"):
            self.assertAlmostEqual(column(table, name)[0], shown[name][0][1], places=4)
        for name, points in (("lr-Muon/prior", 1), ("val_active_units", 2), ("epoch", 4)):
            self.assertGreaterEqual(len(column(table, name)), points, name)
        settings = (self.folder / "csv/version_0/hparams.yaml").read_text()
        self.assertIn("precision: 32-true", settings)
        self.assertEqual(list(self.run_folder.glob("*tfevents*")), [])
        for name in ("metrics.csv", "result.json", "epoch_1_samples.png", "latent_means.png"):
            self.assertTrue((self.run_folder / name).exists(), name)
        self.assertTrue(load_model(self.run_folder))
        self.assertIn(str(self.run_folder), output.getvalue())
        self.assertIn(f"tensorboard --logdir {self.folder}", output.getvalue())

    def test_no_logger_at_all_is_refused_with_the_remedy(self):
        args = argparse.Namespace(**TINY, log_dir=self.logs)
        with tiny_data(), self.assertRaisesRegex(InputError, "logger: give at least one, or None"):
            train_vae(args, logger=False)

    def test_a_run_with_another_logger_is_resumed_with_another_logger(self):
        first, second = (CSVLogger(self.folder, name=name) for name in ("first", "second"))
        args = argparse.Namespace(**TINY, epochs=1, log_dir=self.logs)
        interrupt = LambdaCallback(on_test_start=mock.Mock(side_effect=RuntimeError))
        with tiny_data(), without_pictures(), redirect_stdout(StringIO()):
            with self.assertRaises(RuntimeError):
                train_vae(args, interrupt, first)
            (test,) = train_vae(argparse.Namespace(resume=self.run_folder), logger=second)
        table = rows(self.folder / "second/version_0/metrics.csv")
        self.assertEqual(column(table, "test_bpd"), [test["test_bpd"]])
        self.assertEqual(len(self.rows()), 1)


if __name__ == "__main__":
    unittest.main()
