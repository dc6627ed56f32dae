"""What keeps a run from being lost: its folder, its last checkpoint, its lock, its end.

Nothing here knows what is trained. A run that is killed at any moment goes on from `last.ckpt` and
ends with the same files, because
- all randomness of an epoch derives from (seed, epoch, process), never from what came before;
- a file is complete beside its place before it is moved there (`atomic_write`);
- `last.ckpt` is the last thing that an epoch writes, and says how long the logs were by then;
- an outdated best checkpoint is removed only after that.
"""

import argparse
import json
import math
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.utilities import rank_zero_only

from boundary.checkpoints import check_training_state, read_checkpoint
from boundary.command_line import InputError, given_options, one_line, to_argv
from boundary.files import atomic_write
from support.run_folders import (
    LAST,
    RESULT,
    SETTINGS,
    at_work,
    cut_logs,
    find_run,
    finished_logs,
    log_lengths,
    new_run_folder,
)
from support.stopping import Stopped, cause_on_disk, quiet_writers

# Options that may be others when a run is resumed, as they do not change its result; of --devices
# and --num_nodes only the product does, the number of processes.
MAY_DIFFER = {"log_dir", "data_dir", "num_workers", "progress_bar", "resume"}
MAY_DIFFER |= {"accelerator", "strategy", "devices", "num_nodes"}
WHERE = {"log_dir", "resume"}  # options that say where a run is, and are none of its own


class Run:
    """A run at work: its options, its folder and, if it is resumed, what its last checkpoint says.

    A context: from the moment on that it has a folder until the end of the block, no other process
    and no other thread can work there. Only rank zero holds the lock and writes.

    Args:
        parser: of the command line; its types and defaults are those of the options.
        options: the options that are given, by name; others take the run's or the parser's values.
    Attributes:
        settings: all options.
        folder: None until `begin` for a new run.
        state: what `RunCheckpoint` put into the last checkpoint, None for a new run.
    Raises:
        InputError: an option makes no sense or contradicts those of the run to resume; that run
            is not there, damaged, finished, or at work.
    """

    def __init__(self, parser: argparse.ArgumentParser, options: Mapping[str, object]):
        self.folder, self.state, self.held = None, None, ExitStack()
        known = {k: v for k, v in options.items() if k in vars(parser.parse_args([]))}
        self.given = given_options(parser, to_argv(known))
        self.settings = parser.parse_args(to_argv(self.given))
        if "resume" in self.given:
            folder = find_run(self.given["resume"], self.settings.log_dir)
            try:
                self._hold(folder)
                self._read(parser)
            except BaseException:
                self.held.close()
                raise

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *exception: object) -> None:
        self.held.close()

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / LAST

    @property
    def finished(self) -> bool:
        return (self.folder / RESULT).exists()

    @property
    def step(self) -> int:
        """Steps that the last checkpoint holds; at 0 a resumed run begins from its start."""
        return self.state["step"] if self.state else 0

    @property
    def seconds(self) -> float:
        """From its beginning on; a resumed run goes on from what its last checkpoint says."""
        return (self.state["seconds"] if self.step else 0.0) + time.monotonic() - self.begun

    @property
    def options(self) -> dict[str, object]:
        """What is set, without what only says where the run is."""
        return {k: v for k, v in vars(self.settings).items() if k not in WHERE}

    @property
    def command(self) -> str:
        """How to continue it."""
        epochs = self.settings.epochs
        more = f" --epochs {epochs}" if self.state and epochs > self.state["epochs"] else ""
        return f"python train_pl.py --resume {shlex.quote(str(self.folder))}{more}"

    def _hold(self, folder: Path) -> None:
        self.folder = folder
        if rank_zero_only.rank == 0:
            self.held.enter_context(at_work(folder))

    def _read(self, parser: argparse.ArgumentParser) -> None:
        """Takes the options from the run; what the command line says must not contradict them."""
        before, self.state = read_state(self.last, parser)
        for name, value in self.given.items():
            of_run = getattr(before, name)
            if (
                name not in MAY_DIFFER
                and value != of_run
                and not (name == "epochs" and value > of_run)
            ):
                raise InputError(
                    f"argument --{name}: the run in {self.folder} has {of_run}, not {value}: "
                    f"leave it out{', or give more' if name == 'epochs' else ''}"
                )
        log_dir = self.folder.parent
        if (given := Path(self.given.get("log_dir", log_dir))).absolute() != log_dir:
            raise InputError(
                f"argument --log_dir: the run is in {log_dir}, not {given}: leave it out"
            )
        self.state["epochs"] = before.epochs
        self.settings = argparse.Namespace(**{**vars(before), **self.given})
        self.settings.log_dir = str(log_dir)
        if self.finished and self.settings.epochs == before.epochs:
            raise InputError(
                f"argument --resume: the run in {self.folder} is finished: to train it for more "
                f"than its {before.epochs} epochs, give --epochs"
            )

    def begin(self, processes: int) -> None:
        """Makes a new run's folder; a resumed one's logs end again where its last checkpoint does.

        Raises:
            InputError: the run to resume had another number of processes.
        """
        self.processes, self.begun = processes, time.monotonic()
        if self.state is None:
            log_dir = Path(self.settings.log_dir)
            first = rank_zero_only.rank == 0  # the others are told the folder by Lightning
            self._hold(new_run_folder(log_dir) if first else log_dir / "none")
            return
        if (before := self.state["processes"]) != processes:
            raise InputError(
                f"argument --devices: the run in {self.folder} has {before} processes, not "
                f"{processes}: give as many, as the batches of a step depend on it"
            )
        if rank_zero_only.rank == 0:
            # A finished run keeps its test results until one more epoch has been saved.
            self.outdated = finished_logs(self.folder) if self.finished else {}
            cut_logs(self.folder, self.outdated or (self.state["logs"] if self.step else {}))

    def fit(self, trainer: pl.Trainer, model: pl.LightningModule, data: object) -> None:
        """`trainer.fit`, from the last checkpoint on.

        Raises:
            InputError: that checkpoint cannot be continued.
        """
        (checkpoint,) = (c for c in trainer.callbacks if isinstance(c, RunCheckpoint))
        if self.step:
            for logger in trainer.loggers:
                logger.log_metrics(self.state["unlogged"], step=self.step - 1)
        try:
            path = self.last if self.step else None
            trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
        except Exception as error:  # there is no end to what a damaged file can raise
            if not checkpoint.restoring or isinstance(error, InputError):
                raise
            raise InputError(
                f"argument --resume: {self.last} cannot be continued ({one_line(error)}): it is "
                "damaged or of another version"
            ) from error

    def outdate_result(self) -> None:
        """Takes the result of a finished run away, as one more epoch is about to be saved."""
        if self.state and self.finished:
            (self.folder / SETTINGS).unlink(missing_ok=True)  # they will be written anew
            (self.folder / RESULT).unlink()
            kept = {name: self.state["logs"].get(name, 0) for name in self.outdated}
            cut_logs(self.folder, log_lengths(self.folder) | kept)

    def finish(self, result: Mapping[str, object]) -> None:
        """Writes the result, after which there is nothing left to do; the logs are complete."""
        if rank_zero_only.rank == 0:
            about = {"options": self.options, "seconds": round(self.seconds, 1)}
            result = {**result, **about, "logs": log_lengths(self.folder)}
            atomic_write(self.folder / RESULT, json.dumps(result, indent=2).encode())

    @contextmanager
    def explain_failures(self) -> Iterator[None]:
        """Turns the run's end by a signal, a full disk or a loss that is not finite into one line.

        Raises:
            Stopped: with that line as its message.
            FloatingPointError, OSError: that line.
        """
        before = Stopped.message
        self.say_how_to_continue()
        try:
            with quiet_writers():
                yield
        except Stopped as stopped:
            stopped.message = f"stopped; {self._remedy()}"
            raise
        except InputError:
            raise
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}; the last good checkpoint is {self.last}") from error
        except Exception as error:
            if (cause := cause_on_disk(error)) is None:
                raise
            if isinstance(cause, BrokenPipeError):
                raise OSError(f"nobody reads the output any more; {self._remedy()}") from error
            raise OSError(
                f"cannot write into {self.folder} ({cause.strerror}): make room or restore the "
                f"folder, then {self._remedy()}"
            ) from error
        finally:
            Stopped.message = before

    def say_how_to_continue(self) -> None:
        """To be said where a signal ends the process while it is at work in native code."""
        if self.last.exists():  # before that, it has not begun
            Stopped.message = f"stopped; {self._remedy()}"

    def _remedy(self) -> str:
        if self.last.exists():
            return f"continue with: {self.command}"
        return "no checkpoint is left: start again"


def read_state(last: Path, parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, dict]:
    """The options of a run and what else its last checkpoint, which is not trusted, says of it.

    Raises:
        InputError: the checkpoint cannot be used.
    """
    content = read_checkpoint(last)
    try:
        state = dict(content["run"])
        options = vars(parser.parse_args([])).keys() - WHERE
        if not {word.split("=")[0] for word in state["argv"]} <= {f"--{o}" for o in options}:
            raise ValueError(f"its options are {state['argv']}")
        settings = parser.parse_args(state["argv"])
        counts = [state["step"], state["processes"] - 1, *state["logs"].values()]
        if not all(type(n) is int and n >= 0 for n in counts):
            raise ValueError(f"it says {counts}")
        for name, n in {"seconds": state["seconds"], **state["unlogged"]}.items():
            if type(name) is not str or type(n) is not float or not 0 <= n < math.inf:
                raise ValueError(f"it says {name}: {n}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else one_line(error)
        raise InputError(
            f"argument --resume: {last} cannot be continued ({why}): it is damaged or of another "
            "version"
        ) from error
    return settings, state


class RunCheckpoint(Checkpoint):
    """Keeps the best model by a validation metric and, in `last.ckpt`, all that a run needs.

    `last.ckpt` is written before the first epoch and after each. Lightning's ModelCheckpoint would
    remove the old best checkpoint before that, and remember folders by their absolute names.

    Args:
        run: the run.
        monitor: the metric, lower is better.
    Attributes:
        best_epoch, best_step: when the best model was found, the epoch counted from 1, the step as
            in the logs.
    """

    BEST_AT = ("best_epoch", "best_step")

    def __init__(self, run: Run, monitor: str):
        super().__init__()
        self.run, self.monitor = run, monitor
        self.restoring = run.step > 0
        self.best, self.best_name, self.best_epoch, self.best_step = math.inf, "", 0, 0

    @property
    def best_path(self) -> Path:
        return self.folder / self.best_name

    def state_dict(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("best", "best_name", *self.BEST_AT)}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self.best = float(state_dict["best"])
        self.best_epoch, self.best_step = (int(state_dict[name]) for name in self.BEST_AT)
        self.best_name = Path(state_dict["best_name"]).name
        if self.best_name and not self.best_path.exists():
            raise InputError(f"argument --resume: {self.best_path}, the best so far, is missing")
        self._remove_others()  # that of an epoch which was not saved

    def _remove_others(self) -> None:
        if rank_zero_only.rank == 0:
            for outdated in set(self.folder.glob("best_*.ckpt")) - {self.best_path}:
                outdated.unlink()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Rank zero's folder, on every process.
        self.folder = Path(trainer.strategy.broadcast(str(self.run.folder))) / "checkpoints"

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict
    ) -> None:
        self.to_restore = checkpoint

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.restoring:  # optimizers and loops come after this
            check_training_state(self.to_restore, trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.restoring and (
            trainer.global_step != self.run.step
            or trainer.current_epoch * trainer.num_training_batches != self.run.step
        ):
            raise ValueError(f"its {self.run.step} steps are not those of whole epochs of this run")
        self.restoring = False
        if trainer.is_global_zero:
            self.folder.mkdir(exist_ok=True)
        if trainer.current_epoch == 0:
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = trainer.callback_metrics[self.monitor].item()
        if value < self.best:
            self.best, self.best_name = value, f"best_{self.monitor}_{value:.4f}.ckpt"
            self.best_epoch, self.best_step = trainer.current_epoch + 1, log_step(trainer)
            trainer.save_checkpoint(self.best_path, weights_only=True)
        if trainer.is_global_zero:
            self.run.outdate_result()
        self._save_last(trainer)

    def _save_last(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.folder / LAST, weights_only=False)
        self.run.say_how_to_continue()
        self._remove_others()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict
    ) -> None:
        """Adds the options, the lengths of the logs, and what Lightning logs only after this."""
        for logger in trainer.loggers:
            logger.save()  # writes what is waiting
        options, metrics = self.run.options, epoch_metrics(trainer)
        checkpoint["run"] = {
            "argv": to_argv({**options, "data_dir": os.path.abspath(options["data_dir"])}),
            "processes": trainer.world_size,
            "logs": log_lengths(self.folder.parent),
            "step": trainer.global_step,
            "seconds": self.run.seconds,
            "unlogged": {
                "epoch": float(trainer.current_epoch),
                **{n: value for n, value in metrics.items() if n.startswith("train_")},
            },
        }


def epoch_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """The means over the epoch that ends; every process has to ask.

    Left out is what is logged within an epoch, as it depends on where a run was resumed: learning
    rates, and names that end with `_step`.
    """
    metrics = trainer.callback_metrics.items()
    kept = (pair for pair in metrics if pair[0].startswith(("train_", "val_")))
    return {name: value.item() for name, value in kept if not name.endswith("_step")}


def log_step(trainer: pl.Trainer) -> int:
    """Where the logs have what is true now: the last step, counted from 0, as Lightning does it."""
    return max(0, trainer.global_step - 1)


class SeedEpochs(Callback):
    """Derives the noise of every epoch from (seed, epoch, rank) alone.

    What happens between two epochs then cannot change a run, and validation and test see the
    same noise each time, so that two figures differ by the model only.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed

    def _derive(self, *key: int) -> None:
        (state,) = np.random.SeedSequence((self.seed, *key)).generate_state(1, np.uint64)
        torch.manual_seed(int(state))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._derive(trainer.current_epoch + 1, trainer.global_rank)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._derive(0, trainer.global_rank)

    on_test_epoch_start = on_validation_epoch_start
