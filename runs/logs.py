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
from tqdm import tqdm

from inputs.command_line import InputError
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
        InputError: there is no logger.
    """
    if logger is None or logger is True:
        logger = RunTensorBoard(run.folder, purge_step=run.state.step if run.resumed else None)
    trainer.loggers = [logger] if isinstance(logger, Logger) else list(logger or ())
    if not trainer.loggers:
        raise InputError("logger: give at least one, or None for TensorBoard's")
    begins = f"Continuing {run.folder}" if run.state.step else f"Logging to {run.folder}"
    print_once("; watch it with: ".join([begins, *watch_commands(trainer)]))
    for each in trainer.loggers:
        each.log_hyperparams(run.options)


class Progress(Callback):
    """A line per epoch; if wanted, a bar of the training below. Both fit 80 columns.

    Args:
        wanted: whether there is a bar.
    """

    EVERY = 20  # steps between two looks at the loss

    def __init__(self, wanted: bool):
        super().__init__()
        self.wanted, self.bar = wanted, None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first_epoch, self.start = trainer.current_epoch, time.monotonic()
        steps = trainer.num_training_batches
        if self.wanted and trainer.is_global_zero:
            self.bar = tqdm(
                desc=self._epoch(trainer),
                initial=trainer.current_epoch * steps,
                total=trainer.max_epochs * steps,
                bar_format="{desc} |{bar}| {percentage:3.0f} %, {remaining} left{postfix}",
                smoothing=0,  # the mean speed so far
                leave=False,
                dynamic_ncols=True,
            )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epoch_start = time.monotonic()
        if self.bar is not None:
            self.bar.set_description_str(self._epoch(trainer))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *step: object
    ) -> None:
        if self.bar is None:
            return
        self.bar.update()
        if self.bar.n % self.EVERY == 0:
            bpd = trainer.callback_metrics.get("train_bpd_step")
            self.bar.set_postfix_str("" if bpd is None else f"{bpd:.4f} bpd", refresh=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics  # on every process, as it is a mean over all of them
        names = {"train": "train_bpd", "val": "val_bpd", "learned prior": "val_prior_bpd"}
        shown = [  # a subclass may have other steps
            f"{title} {metrics[name]:.4f}" for title, name in names.items() if name in metrics
        ]
        now, done = time.monotonic(), trainer.current_epoch + 1
        left = (now - self.start) / (done - self.first_epoch) * (trainer.max_epochs - done)
        with tqdm.external_write_mode():
            print_once(
                f"{self._epoch(trainer)}  {'  '.join(shown)} bpd  {now - self.epoch_start:.0f} s  "
                f"{tqdm.format_interval(left)} left"
            )

    def on_train_end(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    on_exception = on_train_end  # or tqdm draws it again, below what the program says at its end

    @staticmethod
    def _epoch(trainer: pl.Trainer) -> str:
        width = len(f"{trainer.max_epochs}")
        return f"epoch {trainer.current_epoch + 1:>{width}}/{trainer.max_epochs}"


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
