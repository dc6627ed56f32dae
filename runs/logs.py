"""Where a run logs, and what it prints while it trains."""

import shlex
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from runs.checkpointing import RunCheckpoint
from runs.run import Run
from runs.tensorboard import RunTensorBoard


def log_folder(trainer: pl.Trainer) -> Path:
    """The folder for a run's files: that of `train_vae`, else that of the first logger.

    Every process has to ask, as rank zero tells it to the others.
    """
    of_run = [c.run.folder for c in trainer.callbacks if isinstance(c, RunCheckpoint)]
    folder = of_run[0] if of_run else Path(trainer.log_dir or trainer.default_root_dir)
    if trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def writers_of(trainer: pl.Trainer) -> list:
    """The SummaryWriters of the trainer's TensorBoard loggers; none with another logger."""
    return [log.experiment for log in trainer.loggers if isinstance(log, TensorBoardLogger)]


def log_now(trainer: pl.Trainer, metrics: Mapping[str, float], step: int) -> None:
    """Gives metrics to all loggers, outside of Lightning's own steps."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step)


@rank_zero_only
def print_once(text: str) -> None:
    print(text, flush=True)


def watch_commands(trainer: pl.Trainer) -> list[str]:
    """How to look at what TensorBoard's loggers write."""
    folders = [log.save_dir for log in trainer.loggers if isinstance(log, TensorBoardLogger)]
    return [f"tensorboard --logdir {shlex.quote(folder)}" for folder in folders]


def open_logs(run: Run, trainer: pl.Trainer, logger: Logger | Iterable[Logger] | None) -> None:
    """Gives the trainer the loggers, or TensorBoard's, with the run's options, and says where.

    Raises:
        ValueError: there is no logger.
    """
    if logger is None:
        purge_step = run.state.step if run.resumed else None
        trainer.loggers = [RunTensorBoard(run.folder, purge_step)]
    else:
        trainer.loggers = [logger] if isinstance(logger, Logger) else list(logger)
    if not trainer.loggers:
        raise ValueError("logger: give at least one, or None for TensorBoard's")
    begins = f"Continuing {run.folder}" if run.state.step else f"Logging to {run.folder}"
    print_once("; watch it with: ".join([begins, *watch_commands(trainer)]))
    for each in trainer.loggers:
        each.log_hyperparams(run.options)


class EpochLines(Callback):
    """One line per epoch, when there is no progress bar."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first_epoch = trainer.current_epoch
        self.start = self.epoch_start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics  # on every process, as it is a mean over all of them
        now = time.monotonic()
        epoch = trainer.current_epoch + 1
        per_epoch = (now - self.start) / (epoch - self.first_epoch)
        left = round(per_epoch * (trainer.max_epochs - epoch))
        print_once(
            f"epoch {epoch:>3}/{trainer.max_epochs}"
            f"   train {metrics['train_bpd']:.4f} bpd   val {metrics['val_bpd']:.4f} bpd"
            f" (learned prior {metrics['val_prior_bpd']:.4f})"
            f"   {now - self.epoch_start:5.1f} s   about {left // 60}:{left % 60:02} left"
        )
        self.epoch_start = now


class RunningMeans:
    """Means over images of the losses that several steps gave, added up where they are."""

    def __init__(self) -> None:
        self.sums, self.count = 0.0, 0

    def add(self, *losses: Tensor) -> None:
        """Takes in the losses of a batch, float [B] each."""
        self.sums = self.sums + torch.stack(losses).detach().sum(dim=1)
        self.count += len(losses[0])

    def take(self) -> tuple[Tensor, Tensor, int]:
        """The mean of each loss and the number of images since it was last asked."""
        means, count = self.sums / self.count, self.count
        self.sums, self.count = 0.0, 0
        return *means, count
