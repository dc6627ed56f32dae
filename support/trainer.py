"""Lightning as this program uses it: a trainer from the user's options, little said, folders."""

import logging
import time
import warnings
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from support.command_line import InputError, one_line

OPTIONS = ("accelerator", "devices", "num_nodes", "strategy", "precision")


def make_trainer(options: dict[str, object], **settings: object) -> pl.Trainer:
    """Lightning's Trainer with the user's options that are handed through to it.

    Raises:
        InputError: Lightning or the machine has no such accelerator, strategy or precision, or the
            strategy trains in processes that end before the test.
    """
    if any(way in str(options["strategy"]) for way in ("spawn", "fork", "notebook")):
        raise InputError(
            f"argument --strategy: {options['strategy']} trains in processes that end before the "
            "test: give ddp"
        )
    try:
        return pl.Trainer(**options, **settings)
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        given = " ".join(f"--{name} {value}" for name, value in options.items())
        raise InputError(f"Lightning refuses {given}: {one_line(error)}") from error


def quiet_lightning() -> None:
    """Leaves out what Lightning says about itself and what its user can do nothing about."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (
        ".*isinstance.treespec, LeafSpec",  # Lightning's own use of a torch function
        ".*does not have many workers",  # a batch is one indexing operation: none is faster
        ".*smaller than the logging interval",  # the learning rate of a very short run
    ):
        warnings.filterwarnings("ignore", message)


@rank_zero_only
def say(text: str) -> None:
    print(text, flush=True)


def log_folder(trainer: pl.Trainer) -> Path:
    """The run's folder for files; every process has to ask, as rank zero tells it to the others."""
    folder = Path(trainer.log_dir or trainer.default_root_dir)
    if trainer.is_global_zero:
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def tensorboard_writers(trainer: pl.Trainer) -> list:
    """The SummaryWriters of the trainer's TensorBoard loggers; none with another logger."""
    return [log.experiment for log in trainer.loggers if isinstance(log, TensorBoardLogger)]


class EpochLines(Callback):
    """One line per epoch, when there is no progress bar."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first_epoch = trainer.current_epoch
        self.start = self.epoch_start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics  # every process: to read them is to average over all
        now = time.monotonic()
        epoch = trainer.current_epoch + 1
        per_epoch = (now - self.start) / (epoch - self.first_epoch)
        left = round(per_epoch * (trainer.max_epochs - epoch))
        say(
            f"epoch {epoch:>3}/{trainer.max_epochs}"
            f"   train {metrics['train_bpd']:.4f} bpd   val {metrics['val_bpd']:.4f} bpd"
            f"   {now - self.epoch_start:5.1f} s   about {left // 60}:{left % 60:02} left"
        )
        self.epoch_start = now
