"""Runs: stopped, killed, disturbed or resumed, what they leave, and what compare.py is told.

Kills of real processes, and two processes that train together, are in tests/slow/test_runs.py.
"""

import argparse
import json
import math
import os
import resource
import shutil
import signal
import tempfile
import threading
import unittest
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from functools import cache
from importlib import metadata
from io import StringIO
from pathlib import Path
from unittest import mock

import numpy as np
import pytorch_lightning as pl
import tiny
import torch
from crash_test import at_every_moment, curves, differences, on_step, stop
from pytorch_lightning.callbacks import Callback, LambdaCallback
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tiny import (
    NUM_TEST,
    NUM_TRAIN,
    InFolder,
    finished_run,
    own_trainer,
    rows,
    run_command,
    tiny_data,
    without_pictures,
)

import compare
import fmnist
import train_pl
from inputs.checkpoints import read_checkpoint
from inputs.command_line import InputError, to_argv
from inputs.files import write_whole
from judging.report import of_test
from judging.samples import judge_run, load_classifier
from pictures.epochs import kept_epochs
from runs import folders
from runs.checkpoints import find_checkpoint
from runs.folders import locked, new_folder, newest_unfinished
from runs.run import Run
from runs.stopping import StopIfNotFinite, StopOnSignal, explain_end
from runs.trainer import LIGHTNING_LOG
from train_pl import DATA_DIR, VAE, load_model, main, make_parser, train_vae

# Two steps an epoch.
TINY = {"num_filters": 2, "z_dim": 2, "accelerator": "cpu", "batch_size": 60, "lr": 0.004}
TINY |= {"keep_epochs": True}
SMALL = to_argv(TINY)


def column(table: list[dict[str, str]], name: str) -> list[float]:
    """The cells of a column that are not empty."""
    return [float(row[name]) for row in table if row[name]]


def interrupt() -> None:
    stop(number=signal.SIGINT)


def of_the_process() -> list[object]:
    """What belongs to a caller of `train_vae`."""
    random = [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()]
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    threads = {thread.name for thread in threading.enumerate()} - {"tqdm_monitor"}
    levels = [LIGHTNING_LOG.level, [*warnings.filters]]
    return [random, handlers, threads, levels, dict(os.environ), threading.excepthook]


def new_logs() -> Path:
    """A folder for all tests of this file."""
    folder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(folder.cleanup)
    return Path(folder.name)


@cache
def short_run() -> Path:
    """A run of one epoch that a caller started with types of his own, made once: copy it."""
    logs = new_logs()
    types = {"num_filters": np.int64, "z_dim": np.int32, "batch_size": np.uint8, "lr": np.float64}
    args = {**TINY, **{name: kind(TINY[name]) for name, kind in types.items()}}
    args = argparse.Namespace(**args, epochs=np.int64(1), data_dir=DATA_DIR, log_dir=logs)
    with tiny_data(), without_pictures(), redirect_stdout(StringIO()):
        train_vae(args)
    return logs / "version_0"


@cache
def whole_run() -> tuple[Path, list[Path]]:
    """A run of two epochs that nothing disturbed, and copies of what a kill in it could leave.

    Its files change at every write, rename and unlink. Kept are the first and the last state of
    those with one `last.ckpt`, as the others are between them: of that before training the first,
    of that after an epoch the last, which has the next best model, and both of the last one.
    """
    logs = new_logs()
    run, left, seen = logs / "version_0", {}, set()

    def remember():
        files = [f for f in run.glob("[!.e]*") if f.is_file()]  # no events
        files += run.glob("checkpoints/*.ckpt")
        content = {f.name: f.read_bytes() for f in files}
        state = tuple(sorted(content.items()))
        if state not in seen and folders.LAST in content:
            copy = logs / f"killed{len(seen)}" / "version_0"
            left.setdefault(content[folders.LAST], []).append(shutil.copytree(run, copy))
            seen.add(state)

    with tiny_data(), without_pictures(), at_every_moment(remember):
        ended = run_command(main, *SMALL, "--epochs", 2, "--log_dir", logs)
    assert (ended[0], ended[2]) == (0, ""), ended
    start, epoch, end = left.values()
    return run, [start[0], epoch[-1], end[0], end[-1]]


class BareTest(InFolder):
    """Runs without pictures. Each has to leave the process as it was."""

    def setUp(self):
        super().setUp()
        short_run()  # before a test disturbs what trains
        self.enterContext(without_pictures())
        self.logs = self.folder / "logs"
        self.run_folder = self.logs / "version_0"

    def short_run(self) -> Path:
        return shutil.copytree(short_run(), self.run_folder)

    def train(self, *arguments: object) -> tuple[int, str]:
        """Runs the command line on the tiny data; returns exit code and complaints."""
        before = of_the_process()
        with tiny_data():
            code, _, said = run_command(main, *arguments, "--log_dir", self.logs)
        self.assertEqual(of_the_process(), before)
        return code, said

    def extend(self, *more: object) -> tuple[int, str]:
        """A second epoch for the short run, as a quick way into a training."""
        return self.train("--resume", self.short_run(), "--epochs", 2, *more)

    def train_vae(self, *more: Callback, model: VAE | type[VAE] = VAE, **options: object) -> None:
        args, before = argparse.Namespace(log_dir=self.logs, **options), of_the_process()
        with tiny_data(), redirect_stdout(StringIO()):
            train_vae(args, more, model=model)
        self.assertEqual(of_the_process(), before)

    def rows(self) -> list[dict[str, str]]:
        return rows(self.run_folder / "metrics.csv")

    def state(self) -> dict[str, object]:
        return read_checkpoint(self.run_folder / "checkpoints" / folders.LAST)["run"]

    def result(self) -> dict[str, object]:
        return json.loads((self.run_folder / folders.RESULT).read_text())


class TestStopAndResume(BareTest):
    def test_a_stopped_run_goes_on_as_if_nothing_had_been_and_its_settings_come_from_it(self):
        class Dying:
            def __del__(self):  # where Python ignores exceptions
                stop()

        arguments = [*SMALL, "--epochs", 2]
        for end, code in (
            (on_step(3, interrupt), 130),
            (on_step(1, Dying), 143),
            (mock.patch.object(VAE, "test_step", stop), 143),
            (mock.patch.object(train_pl, "sizes", stop), 143),
        ):
            with end:
                ending = self.train(*arguments)
            self.assert_ends(ending, code, "continue with", "--resume", str(self.run_folder))
            arguments = ["--resume"]
        self.assertEqual(self.train("--resume"), (0, ""))
        self.assertEqual(differences(whole_run()[0], self.run_folder), [])

    def test_what_a_kill_leaves_around_each_last_checkpoint_goes_on_as_if_nothing_had_been(self):
        run, left = whole_run()
        for killed in left:
            self.logs = killed.parent
            if (killed / folders.RESULT).exists():
                self.assert_ends(self.train("--resume", killed), 2, "finished")
            else:
                self.assertEqual(self.train("--resume", killed), (0, ""))
            self.assertEqual(differences(run, killed), [])

    def test_a_finished_run_is_resumed_for_more_epochs_only(self):
        run = self.short_run()
        self.assert_ends(self.train("--resume"), 2, "no unfinished run", str(self.logs))
        for more, said in (
            ((), "finished"),
            (("--epochs", 1), "give --epochs"),
            (("--z_dim", 4), "has 2, not 4"),
            (("--lr", 0.5), "has 0.004, not 0.5"),
            (("--seed", 7), "has 42, not 7"),
            (("--dataset", "KMNIST"), "has MNIST, not KMNIST"),
        ):
            self.assert_ends(self.train("--resume", run, *more), 2, *more[:1], str(run), said)

    def test_an_interrupted_extension_leaves_what_the_run_had_until_a_further_epoch_is_saved(self):
        self.short_run()
        # A run is what is in its folder, wherever that is.
        run = self.run_folder = self.run_folder.rename(self.logs / "moved")
        last = run / folders.CHECKPOINTS / folders.LAST
        checkpoint = torch.load(last, weights_only=True)
        checkpoint["run"]["seconds"] = 1000.0  # what it took so far
        torch.save(checkpoint, last)
        before = self.result()
        for step in (1, 2):  # the second is the last one of its epoch, which is then not saved
            unsaved = mock.patch.object(pl.Trainer, "save_checkpoint", side_effect=AssertionError)
            with on_step(step), unsaved:
                self.assert_ends(self.train("--resume", run, "--epochs", 2), 143, "--epochs 2")
        self.assertEqual(self.result(), before)
        self.assertTrue((run / "epochs" / "epoch_1.500.pt").exists())
        kept = [epoch for epoch, _ in kept_epochs(run, load_model(run))]
        self.assertEqual(max(kept), 1)
        self.assert_ends(self.train("--resume"), 2, "no unfinished run")
        with on_step(4):  # an epoch more was saved
            self.train("--epochs", 3, "--resume", run)
        self.assertFalse((run / folders.RESULT).exists())
        self.assert_ends(self.train("--resume", run, "--epochs", 2), 2, "has 3, not 2")
        self.assertEqual(self.train("--resume"), (0, ""))
        self.assertEqual((self.state()["step"], self.state()["lengths"]), (6, [1, 3]))
        points, seconds = curves(run), column(self.rows(), "seconds")
        self.assertEqual([step for step, _ in points["bpd/val"]], [1, 3, 5])
        self.assertEqual(len(set(points["test/bpd"])), 1)
        self.assertEqual(len(seconds), 3)
        self.assertGreater(seconds[2], 1000)
        self.assertIn("epochs: 3", (run / folders.SETTINGS).read_text())
        extended, planned = compare.compare([run, whole_run()[0]])  # as if it were another run
        self.assertEqual((extended["epochs"], planned["epochs"]), ("1, then 3", 2))

    def test_a_run_that_a_caller_started_with_other_types_can_be_loaded(self):
        given = {name: TINY[name] for name in ("num_filters", "z_dim", "lr")}
        self.assertEqual(dict(load_model(short_run()).hparams), {**VAE().hparams, **given})

    def test_what_cannot_be_resumed_is_refused_with_a_remedy(self):
        empty = self.logs / "version_3"
        empty.mkdir(parents=True)
        self.assert_ends(self.train("--resume"), 2, "no unfinished run", "without --resume")
        self.assert_ends(self.train("--resume", empty), 2, str(empty), "start a new run")
        self.assert_ends(self.train("--resume", self.logs / "none.ckpt"), 2, "none.ckpt")
        self.assert_ends(self.train("--resume", ""), 2, "--resume", "''")
        run = self.short_run()
        (run / folders.RESULT).unlink()
        best = find_checkpoint(run)
        self.assert_ends(self.train("--resume", best), 2, best.name, "last.ckpt")
        with mock.patch.object(pl.Trainer, "world_size", 2):
            self.assert_ends(self.train("--resume"), 2, "--devices", "1 processes")
        with locked(run), ThreadPoolExecutor(1) as threads:
            for _ in range(2):  # to be refused must not free it for the next
                ending = threads.submit(self.train, "--resume", run).result()
                self.assert_ends(ending, 2, "another process or thread", str(run))
            self.assertEqual(threads.submit(self.train, "--resume").result()[0], 2)
        self.logs = self.logs / "elsewhere"
        self.assert_ends(self.train("--resume", run), 2, "--log_dir", str(run.parent), "elsewhere")
        self.logs = run.parent
        best.unlink()
        self.assert_ends(self.train("--resume", run), 2, best.name, "missing")

    def test_a_last_checkpoint_of_another_version_or_model_is_refused_in_one_line(self):
        last = self.short_run() / "checkpoints" / folders.LAST
        whole = read_checkpoint(last)
        run, weights = whole["run"], whole["state_dict"]
        fewer = {name: value for name, value in run["options"].items() if name != "seed"}
        for wrong, said in (
            ({"run": {**run, "unknown": 1}}, "version"),
            ({"run": {**run, "options": None}}, "version"),
            ({"run": {**run, "options": fewer}}, "version"),
            ({"state_dict": {**weights, "more.weight": torch.zeros(1)}}, "more.weight"),
        ):
            torch.save({**whole, **wrong}, last)
            ending = self.train("--resume", last, "--epochs", 2)
            self.assert_ends(ending, 2, "--resume", str(self.run_folder), said)


class TestSignals(BareTest):
    def test_a_second_signal_is_the_systems(self):
        stopping = StopOnSignal()
        for number in (signal.SIGINT, signal.SIGTERM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        stopping.on_train_start()
        stop()
        self.assertEqual(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)
        with self.assertRaisesRegex(SystemExit, "143"):
            stopping.on_train_batch_start()

    def test_before_the_run_begins_there_is_nothing_to_continue(self):
        stop_ = mock.Mock(side_effect=KeyboardInterrupt)
        with mock.patch.object(fmnist.MNISTDataModule, "prepare_data", stop_):
            self.assert_ends(self.train(*SMALL), 130, "stopped")

    def test_the_bar_is_gone_when_the_program_says_why_it_stops(self):
        class Terminal(StringIO):
            def isatty(self):
                return True

        with mock.patch.object(tiny, "StringIO", Terminal), on_step(2, interrupt):
            code, said = self.extend("--progress_bar")
        *bar, last = said.split("\r")
        self.assertEqual(code, 130)
        self.assertIn("epoch 2/2 |", said)
        self.assertRegex(last, rf"^\nstopped; continue with: .* --resume {self.run_folder} --ep")
        self.assertLessEqual(max(map(len, bar)), 80)


class TestCallers(BareTest):
    """What callers of `train_vae` bring along: callbacks, models."""

    def test_an_epoch_that_a_callback_ends_early_has_its_own_figures_and_is_trained_anew(self):
        losses, elbo_terms = [], VAE.elbo_terms

        def recorded(model, imgs):
            terms = elbo_terms(model, imgs)
            if model.training:
                losses.append((terms[0] + terms[1]).mean().item())
            return terms

        def end(trainer, *step):
            trainer.should_stop = trainer.global_step == 3  # of 2 in an epoch

        with mock.patch.object(VAE, "elbo_terms", recorded):
            self.train_vae(LambdaCallback(on_train_batch_end=end), **TINY, epochs=2)
        last = self.rows()[-1]
        self.assertEqual((last["epoch"], last["step"]), ("2", "2"))
        mean = np.mean(losses[2:])
        self.assertAlmostEqual(float(last["train_ELBO"]), mean, delta=1e-3 * mean)
        best = min(column(self.rows(), "val_bpd"))
        self.assertEqual(float(last["val_bpd"]), best)  # that of the epoch that was ended
        self.assertEqual(find_checkpoint(self.run_folder).name, f"best_val_bpd_{best:.4f}.ckpt")
        self.assertEqual(self.train("--resume", self.run_folder), (0, ""))
        self.assertEqual(differences(whole_run()[0], self.run_folder), [])

    def test_a_model_that_does_not_log_what_the_best_epoch_is_chosen_by_takes_no_step(self):
        class Silent(VAE):
            def validation_step(self, batch, batch_idx):
                self.log("val_loss", self(batch[0])[2])

            def training_step(self, batch, batch_idx):
                raise AssertionError

        with self.assertRaisesRegex(InputError, "Silent does not log val_bpd"):
            self.train_vae(model=Silent(num_filters=2, z_dim=2), accelerator="cpu", epochs=1)

    def test_averaged_weights_are_refused_as_no_checkpoint_would_hold_them(self):
        swa = pl.callbacks.StochasticWeightAveraging(swa_lrs=1e-3)
        for average in (pl.callbacks.WeightAveraging(), swa):
            with self.assertRaisesRegex(InputError, "averaged weights"):
                self.train_vae(average, **TINY)

    def test_no_logger_at_all_is_refused_with_the_remedy(self):
        args = argparse.Namespace(**TINY, log_dir=self.logs)
        with tiny_data(), self.assertRaisesRegex(InputError, "logger: give at least one, or None"):
            train_vae(args, logger=False)


class TestCallersRun(unittest.TestCase):
    """A run with callbacks and loggers, ended by a callback's error, goes on with other loggers."""

    @classmethod
    def setUpClass(cls):
        cls.enterClassContext(without_pictures())
        cls.folder = folder = new_logs()
        first, second = ([CSVLogger(folder, n), TensorBoardLogger(folder, f"{n}b")] for n in "12")
        name = "best_val_bpd_{epoch}_{val_bpd:.4f}"  # nearly as the run names its own

        def anneal(trainer, model):
            model.hparams.beta = (trainer.current_epoch + 1) / 4

        def more() -> list[Callback]:
            keep = {"dirpath": folder / "version_0" / "checkpoints", "filename": name}
            keep |= {"auto_insert_metric_name": False, "save_top_k": -1}
            annealing = LambdaCallback(on_train_epoch_start=anneal)
            return [annealing, pl.callbacks.ModelCheckpoint(**keep)]

        fail = LambdaCallback(on_test_start=mock.Mock(side_effect=RuntimeError("a mistake")))
        args = argparse.Namespace(**TINY, epochs=2, log_dir=folder)
        cls.run_folder = folder / "version_0"
        again = argparse.Namespace(resume=cls.run_folder)
        quiet = warnings.catch_warnings(action="ignore")  # a ModelCheckpoint's: it is not alone
        with tiny_data(), quiet, redirect_stdout(StringIO()) as said:
            with unittest.TestCase().assertRaisesRegex(RuntimeError, "a mistake"):
                train_vae(args, [*more(), fail], first)
            (cls.test,) = train_vae(again, more(), second)
        cls.said = said.getvalue()

    def test_all_loggers_get_the_same_figures_as_the_model_names_them(self):
        for number, names in (
            (1, ("val_bpd", "train_bpd", "val_prior_bpd")),
            (2, ("test_bpd", "test_prior_bpd")),
        ):
            table = rows(self.folder / f"{number}/version_0/metrics.csv")
            shown = curves(self.folder / f"{number}b/version_0")
            for name in names:
                for found, (_, point) in zip(column(table, name), shown[name], strict=True):
                    self.assertAlmostEqual(found, point, places=4)
        self.assertEqual(column(table, "test_bpd"), [self.test["test_bpd"]])
        settings = (self.folder / "1/version_0/hparams.yaml").read_text()
        self.assertIn("precision: 32-true", settings)
        self.assertEqual(list(self.run_folder.glob("*tfevents*")), [])
        self.assertEqual(len(rows(self.run_folder / "metrics.csv")), 2)
        self.assertIn(f"tensorboard --logdir {self.folder}", self.said)

    def test_a_callers_checkpoints_stay_and_are_not_taken_for_the_runs_best(self):
        checkpoints = self.run_folder / "checkpoints"
        self.assertEqual(len([*checkpoints.iterdir()]), 2 + 2)
        last = checkpoints / folders.LAST
        best = checkpoints / read_checkpoint(last)["run"]["best_name"]
        self.assertEqual(find_checkpoint(self.run_folder), best)
        copy = shutil.copytree(self.run_folder, self.folder / "copy")
        for gone in (folders.RESULT, "checkpoints/last.ckpt"):  # at last the others only are kept
            (copy / gone).unlink()
            self.assertEqual(find_checkpoint(copy).name, best.name)

    def test_beta_that_a_callback_anneals_is_no_other_model_for_a_resumed_run(self):
        result = json.loads((self.run_folder / folders.RESULT).read_text())
        self.assertEqual((result["options"]["beta"], result["model"]["beta"]), (1, 1))


class TestFaults(BareTest):
    def test_a_lost_loss_ends_with_step_remedy_and_the_last_good_checkpoint(self):
        loss = VAE.training_step

        def lost(self, batch, batch_idx):
            return loss(self, batch, batch_idx) * (math.nan if batch_idx == 1 else 1)

        with mock.patch.object(VAE, "training_step", lost):
            ending = self.extend()
        self.assert_ends(ending, 1, "step 2 of 2", "epoch 2", "lower --lr", "last.ckpt")
        self.assertEqual(self.state()["epochs"], 1)

    def test_an_accelerator_is_waited_for_every_fifty_steps_only(self):
        stop = StopIfNotFinite("val_bpd")
        module = argparse.Namespace(device=torch.device("meta"), hparams=argparse.Namespace(lr=1.0))
        trainer = mock.Mock(num_training_batches=100, current_epoch=0, lightning_module=module)
        loss = {"loss": torch.zeros((), device="meta")}  # which has no value to read
        for batch_idx in range(StopIfNotFinite.EVERY - 1):
            stop.on_train_batch_end(trainer, module, loss, None, batch_idx)
        self.assertFalse(trainer.strategy.reduce.called)
        trainer.strategy.reduce.return_value = torch.tensor(math.inf)
        with self.assertRaisesRegex(FloatingPointError, "step 50 of 100"):
            stop.on_train_batch_end(trainer, module, loss, None, StopIfNotFinite.EVERY - 1)

    def test_an_output_that_nobody_reads_ends_with_one_line(self):
        class Closing(StringIO):
            def write(self, text):
                if text.startswith("Testing"):
                    raise BrokenPipeError(32, "Broken pipe")
                return super().write(text)

        said, (whole, _) = StringIO(), whole_run()
        run = shutil.copytree(whole, self.run_folder)
        (run / folders.RESULT).unlink()
        arguments = ["--resume", "--log_dir", str(self.logs)]
        ended = self.assertRaises(SystemExit)
        with tiny_data(), redirect_stdout(Closing()), redirect_stderr(said), ended as end:
            main(arguments)
        self.assert_ends((end.exception.code, said.getvalue()), 1, "nobody reads", "--resume")

    def test_a_full_disk_ends_with_one_line_and_the_last_checkpoint_loads(self):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)

        def full():
            size = (self.run_folder / "checkpoints" / folders.LAST).stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 100, limits[1]))

        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
        with on_step(1, full):
            ending = self.extend()
        self.assert_ends(ending, 1, "cannot write", "last.ckpt", "--resume")
        self.assertEqual(self.state()["epochs"], 1)

    def test_a_log_directory_that_is_removed_ends_with_one_line(self):
        options = {**TINY, "keep_epochs": False}  # which would make it again
        with on_step(1, lambda: shutil.rmtree(self.logs)):
            ending = self.train(*to_argv(options), "--epochs", 1)
        self.assert_ends(ending, 1, "cannot write", str(self.logs), "start again")

    def test_what_is_no_fault_of_the_runs_files_keeps_its_traceback(self):
        run = Run(make_parser(), {"resume": self.short_run(), "epochs": 2}, ExitStack())
        of_another_mistake = ValueError("a mistake")
        of_another_mistake.__context__ = FileNotFoundError(2, "No such file", "labels.txt")
        for error in (
            FileNotFoundError(2, "No such file or directory", "labels.txt"),
            ConnectionResetError(104, "Connection reset by peer"),
            RuntimeError("Connection reset by peer"),
            BrokenPipeError(32, "Broken pipe"),
            of_another_mistake,
        ):
            explain_end(run, error, 0)  # says nothing, and raises nothing else

    def test_pictures_that_cannot_be_drawn_end_a_training_with_the_last_checkpoint(self):
        failing = mock.Mock(side_effect=FloatingPointError("the outputs are not finite numbers"))
        with mock.patch.object(train_pl.GenerateCallback, "sample_and_save", failing):
            ending = self.train(*SMALL, "--epochs", 1)
        self.assert_ends(ending, 1, "not finite", "last.ckpt")

    def test_a_run_whose_latents_are_not_used_ends_with_a_hint(self):
        test = dict.fromkeys(("bpd", "prior_bpd", "reconstruction_loss", "regularization_loss"), 1)
        result = {f"test_{name}": value for name, value in test.items()}
        for active, kl, times in ((0.0, 1, 1), (2.0, 1, 0), (0.0, 34, 0)):
            told = {"test_active_units": active, "test_regularization_loss": kl}
            told["codec_bpd"] = {"bz2": 2}
            words = of_test(result | told)
            self.assertEqual(words.count("No latent is active"), times)


class TestFolders(InFolder):
    def test_runs_that_start_at_the_same_time_get_folders_of_their_own(self):
        start = threading.Barrier(20)

        def claim(_):
            start.wait()
            return new_folder(self.folder / "logs").name

        with ThreadPoolExecutor(20) as threads:
            claimed = set(threads.map(claim, range(20)))
        self.assertEqual(claimed, {f"version_{n}" for n in range(20)})

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


class TestFinishedRun(unittest.TestCase):
    """What a run of three epochs of five steps has left, with pictures, seen from all sides."""

    @classmethod
    def setUpClass(cls):
        cls.folder, cls.test, cls.said = finished_run()
        cls.curves = curves(cls.folder)
        cls.ends = [4, 9, 14]
        cls.result = json.loads((cls.folder / "result.json").read_text())
        cls.table = rows(cls.folder / "metrics.csv")

    def test_the_model_has_learned_and_the_best_and_the_last_checkpoint_are_left(self):
        bpd = column(self.table, "val_bpd")
        self.assertLess(bpd[-1], bpd[0])
        names = sorted(file.name for file in (self.folder / "checkpoints").iterdir())
        self.assertEqual(names, [f"best_val_bpd_{min(bpd):.4f}.ckpt", "last.ckpt"])
        self.assertEqual(self.result["best_epoch"], bpd.index(min(bpd)) + 1)
        self.assertTrue((self.folder / "losses.png").exists())

    def test_tensorboard_has_measures_of_training_and_validation_side_by_side_and_no_copies(self):
        pictures = {f"picture {tag}" for tag in ("images/Samples", "images/Samples by class")}
        groups = {}
        for tag in self.curves.keys() - pictures:
            group, _, name = tag.removeprefix("picture ").partition("/")
            groups.setdefault(group, set()).add(name)
        first = ["bpd", "images", "kl"]  # TensorBoard opens the first two
        self.assertEqual(sorted(groups)[:3], first)
        self.assertEqual(groups["bpd"], {"train", "val", "val_prior"})
        self.assertEqual((groups["kl"], groups["reconstruction"]), ({"train", "val"},) * 2)
        single = {tag for tag, points in self.curves.items() if len(points) == 1}
        alone = {"picture images/Latent means", "picture images/Manifold"}
        self.assertEqual({tag for tag in single if not tag.startswith("test/")}, alone)
        values = [tuple(points) for points in self.curves.values()]
        self.assertEqual(len(set(values)), len(values))

    def test_curves_pictures_and_the_table_have_one_axis_and_the_same_figures(self):
        for tag, steps in (
            ("bpd/val", self.ends),
            ("val_active_units", [0, 4, 14]),
            ("picture images/Samples", [0, 4, 14]),
            ("picture images/KL per dimension", [0, 4, 14]),
            ("picture images/Latent means", [15]),  # as the test
            ("test/bpd", [15]),
        ):
            self.assertEqual([step for step, _ in self.curves[tag]], steps, tag)
        self.assertEqual(column(self.table, "epoch"), [1, 2, 3])
        self.assertEqual(column(self.table, "step"), self.ends)
        seconds = column(self.table, "seconds")
        self.assertTrue(0 < seconds[0] < seconds[1] < seconds[2])
        parts = ("bpd", "ELBO", "reconstruction_loss", "regularization_loss")
        names = {f"{stage}_{part}" for stage in ("train", "val") for part in parts}
        self.assertEqual(
            self.table[0].keys(), {"epoch", "step", "seconds", "val_prior_bpd", *names}
        )
        for name, tag in (
            ("train_bpd", "bpd/train"),
            ("val_prior_bpd", "bpd/val_prior"),
            ("val_regularization_loss", "kl/val"),
        ):
            for found, (_, logged) in zip(column(self.table, name), self.curves[tag], strict=True):
                self.assertAlmostEqual(found, logged, delta=1e-5 * abs(logged))

    def test_hparams_has_the_options_that_are_compared_and_the_test(self):
        events = EventAccumulator(str(self.folder))
        events.Reload()
        start, page = (
            HParamsPluginData.FromString(events.summary_metadata[tag].plugin_data.content)
            for tag in ("_hparams_/session_start_info", "_hparams_/experiment")
        )
        logged = start.session_start_info.hparams
        numbers = [logged[name].number_value for name in ("z_dim", "seed", "epochs")]
        self.assertEqual((numbers, logged["dataset"].string_value), ([2, 1, 3], "MNIST"))
        shown = {info.name.tag for info in page.experiment.metric_infos}
        for name, value in self.test.items():
            tag = name.replace("test_", "test/")
            self.assertIn(tag, shown)
            ((_, point),) = self.curves[tag]
            self.assertAlmostEqual(point, value, delta=1e-4 * value)

    def test_prints_a_line_per_epoch_and_at_the_end_where_everything_is(self):
        lines = self.said.splitlines()
        watch = f"tensorboard --logdir {self.folder.parent}"
        self.assertTrue(lines[0].endswith(str(self.folder)) and lines[1].endswith(watch), lines)
        for epoch in range(1, 4):
            line = rf"epoch {epoch}/3  train \d.*  val \d.*  learned prior \d.* bpd  .* s  .* left"
            self.assertRegex(lines[1 + epoch], line)
            self.assertLessEqual(len(lines[1 + epoch]), 80)
        ending = "\n".join(lines[5:])
        for said in (watch, str(self.folder), ".ckpt", f"{self.test['test_bpd']:.4f} bpd"):
            self.assertIn(said, ending)

    def test_result_json_has_all_options_versions_parameters_and_the_test_with_its_parts(self):
        result, options = self.result, self.result["options"]
        names = {"reconstruction_loss", "regularization_loss", "ELBO", "bpd", "prior_bpd"}
        names |= {"importance_weighted_bpd", "importance_weighted_prior_bpd"}
        self.assertEqual(self.test.keys(), {f"test_{name}" for name in names})
        self.assertEqual({name: result[name] for name in self.test}, self.test)
        self.assertLess(result["test_importance_weighted_bpd"], result["test_bpd"] + 0.01)
        parts = result["test_reconstruction_loss"] + result["test_regularization_loss"]
        self.assertAlmostEqual(parts, result["test_ELBO"], delta=1e-2)
        self.assertAlmostEqual(parts / 784 / math.log(2), result["test_bpd"], delta=1e-4)
        defaults = vars(make_parser().parse_args([]))
        self.assertEqual(options.keys(), defaults.keys() - {"log_dir", "resume"})
        self.assertEqual((options["z_dim"], options["precision"]), (2, "32-true"))
        settings = (self.folder / "hparams.yaml").read_text().splitlines()
        self.assertLessEqual(options.keys(), {line.split(":")[0] for line in settings})
        count = sum(p.numel() for p in load_model(self.folder).parameters())
        self.assertEqual(sum(result["parameters"].values()), count)
        self.assertEqual(result["versions"]["torch"], torch.__version__)
        self.assertEqual(result["versions"]["tensorboard"], metadata.version("tensorboard"))
        self.assertTrue(result["machine"]["processor"])
        self.assertGreater(result["seconds"], 0)

    def test_result_json_says_how_good_samples_of_each_kind_are(self):
        samples = self.result["samples"]
        self.assertEqual(samples["of_each_kind"], NUM_TEST)
        self.assertTrue(0 <= samples["learned_prior_by_class"]["right_class"] <= 1)
        with tiny_data():
            train, _ = fmnist.split(fmnist.load(fmnist.DATA_DIR))
            test = fmnist.load(fmnist.DATA_DIR, train=False)
        self.assertEqual(
            judge_run(load_model(self.folder), load_classifier(), train, test, 1), samples
        )


class TestOwnTrainer(InFolder):
    def test_a_point_is_the_mean_since_the_last_one_or_since_the_epoch_began_or_went_on(self):
        losses, terms = [], VAE.elbo_terms

        class Recorded(VAE):
            def elbo_terms(self, imgs):
                found = terms(self, imgs)
                if self.training:
                    losses.append((found[0] + found[1]).mean().item() / 784 / math.log(2))
                return found

        data = fmnist.MNISTDataModule(batch_size=NUM_TRAIN // 3)  # three steps an epoch
        for epochs, path in ((2, None), (3, self.folder / "step=5.ckpt")):
            keep = pl.callbacks.ModelCheckpoint(self.folder, "{step}", every_n_train_steps=5)
            how = {"logger": CSVLogger(self.folder, name=None), "callbacks": [keep]}
            trainer = own_trainer(
                max_epochs=epochs, log_every_n_steps=2, enable_checkpointing=True, **how
            )
            with tiny_data(), warnings.catch_warnings(action="ignore"):
                model = Recorded(num_filters=2, z_dim=2)
                trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
        for version, points in (
            (0, {1: losses[0:2], 3: losses[3:4], 5: losses[4:6]}),
            (1, {5: losses[6:7], 7: losses[7:9]}),
        ):
            table = rows(self.folder / f"version_{version}/metrics.csv")
            table = [row for row in table if row["train_bpd_step"]]
            self.assertEqual(column(table, "step"), [*points])
            for found, among in zip(column(table, "train_bpd_step"), points.values(), strict=True):
                self.assertAlmostEqual(found, np.mean(among), delta=1e-3)
