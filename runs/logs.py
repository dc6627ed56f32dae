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

from boundary.command_line import InputError
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
        purge_step = run.state.step if run.resumed else None
        trainer.loggers = [RunTensorBoard(run.folder, purge_step)]
    else:
        trainer.loggers = [logger] if isinstance(logger, Logger) else list(logger or ())
    if not trainer.loggers:
        raise InputError("logger: give at least one, or None for TensorBoard's")
    begins = f"Continuing {run.folder}" if run.state.step else f"Logging to {run.folder}"
    print_once("; watch it with: ".join([begins, *watch_commands(trainer)]))
    for each in trainer.loggers:
        each.log_hyperparams(run.options)


class Progress(Callback):
    """A line per epoch; if wanted, a bar of the epoch in progress below. Both fit 80 columns.

    Args:
        bar: whether there is a bar.
    """

    EVERY = 20  # steps between two looks at the numbers

    def __init__(self, bar: bool):
        super().__init__()
        self.wanted, self.bar = bar, None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first_epoch = trainer.current_epoch
        self.start = self.epoch_start = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wanted and trainer.is_global_zero:
            self.bar = tqdm(
                desc=self._epoch(trainer),
                total=trainer.num_training_batches,
                bar_format="{desc} |{bar}| {percentage:3.0f} %{postfix}",
                leave=False,
                dynamic_ncols=True,
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *step: object
    ) -> None:
        if self.bar is None:
            return
        self.bar.update()
        if self.bar.n % self.EVERY == 0:
            bpd = trainer.callback_metrics.get("train_bpd_step")
            shown = "" if bpd is None else f"{bpd:.4f} bpd, "
            epochs = trainer.current_epoch + self.bar.n / self.bar.total
            self.bar.set_postfix_str(f"{shown}{self._left(trainer, epochs)}", refresh=False)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.bar is not None:
            self.bar.set_description_str(f"{self._epoch(trainer)}, validation")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics  # on every process, as it is a mean over all of them
        self._clear()
        now = time.monotonic()
        names = {"train": "train_bpd", "val": "val_bpd", "learned prior": "val_prior_bpd"}
        shown = [  # a subclass may have other steps
            f"{title} {metrics[name]:.4f}" for title, name in names.items() if name in metrics
        ]
        seconds, left = now - self.epoch_start, self._left(trainer, trainer.current_epoch + 1)
        print_once(f"{self._epoch(trainer)}  {'  '.join(shown)} bpd  {seconds:.0f} s  {left}")
        self.epoch_start = now

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._clear()  # tqdm would draw it again, below what the program says at its end

    def _clear(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    @staticmethod
    def _epoch(trainer: pl.Trainer) -> str:
        width = len(f"{trainer.max_epochs}")
        return f"epoch {trainer.current_epoch + 1:>{width}}/{trainer.max_epochs}"

    def _left(self, trainer: pl.Trainer, epochs: float) -> str:
        per_epoch = (time.monotonic() - self.start) / (epochs - self.first_epoch)
        left = round(per_epoch * (trainer.max_epochs - epochs))
        return f"{left // 60}:{left % 60:02} left"


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
