"""What a run logs: TensorBoard's pages, a table of its epochs, and anything to any logger."""

import csv
import io
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

from boundary.files import write_whole
from runs.checkpointing import RunCheckpoint, epoch_metrics, log_step
from runs.folders import RESULT
from runs.run import Run

# TensorBoard's first page sorts by name and opens two groups: these curves, then "images".
FIRST = {"train_bpd_step": "bpd/train", "val_bpd": "bpd/val", "val_prior_bpd": "bpd/val_prior"}
NOT_ON_PAGES = {"epoch", "train_bpd_step"}
COMPARED = ("batch_size", "dataset", "epochs", "lr", "num_filters", "seed", "z_dim")
CHARTS = {
    "bpd: training and validation": ["bpd/train", "bpd/val$"],
    "val_bpd: unit Gaussian and learned prior": ["bpd/val$", "bpd/val_prior"],
    "reconstruction_loss: nats per image": ["(train|val)_reconstruction_loss"],
    "regularization_loss: KL to N(0, I), nats": ["(train|val)_regularization_loss"],
    "ELBO: negative, the sum of both, nats": ["(train|val)_ELBO"],
    "learning rate": ["lr-"],
}


class RunTensorBoard(TensorBoardLogger):
    """TensorBoard's files in a run's folder, with pages that open on the bits per dimension.

    What is logged keeps its name, but for two: `train_bpd_step` becomes `bpd/train`, next to copies
    of the validation's curves, and the number of the epoch is left out. The page "Custom Scalars"
    has training and validation in one chart.
    """

    def __init__(self, folder: Path):
        super().__init__(
            str(folder.parent), name=None, version=folder.name, default_hp_metric=False
        )
        charts = {title: ["Multiline", tags] for title, tags in CHARTS.items()}
        self.experiment.add_custom_scalars({"Training": charts})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        first = {FIRST[name]: value for name, value in metrics.items() if name in FIRST}
        others = {name: value for name, value in metrics.items() if name not in NOT_ON_PAGES}
        super().log_metrics({**first, **others}, step)


class EpochTable(Callback):
    """`metrics.csv` in a run's folder: a row per epoch, whichever loggers there are.

    Columns: the epoch, counted from 1; step, where the same figures are in the logs; seconds since
    the run began; then the means over the epoch. The file is whole at every moment, and goes on
    when the run does. Lightning's CSVLogger begins its file anew in a resumed run, and puts
    training, validation and learning rates into rows of their own.
    """

    NAME = "metrics.csv"

    def __init__(self, run: Run):
        super().__init__()
        self.run = run

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = epoch_metrics(trainer)  # every process: to read them is to average over all
        if not trainer.is_global_zero:
            return
        path, epoch = self.run.folder / self.NAME, trainer.current_epoch + 1
        row = {"epoch": epoch, "step": log_step(trainer), "seconds": f"{self.run.seconds:.1f}"}
        row |= {name: f"{metrics[name]:.7g}" for name in sorted(metrics)}
        earlier = {str(number) for number in range(1, epoch)}
        rows = [kept for kept in read_rows(path) if kept["epoch"] in earlier] + [row]
        table = io.StringIO(newline="")
        names = list(dict.fromkeys(name for some in rows for name in some))
        writer = csv.DictWriter(table, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(path, table.getvalue().encode())


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table that have all of its columns; none if there is no such file."""
    if not path.exists():
        return []
    with open(path, newline="", errors="replace") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if "epoch" in row and None not in [*row, *row.values()]]


def log_folder(trainer: pl.Trainer) -> Path:
    """The folder for a run's files: that of `train_vae`, else that of the first logger.

    Every process has to ask, as rank zero tells it to the others.
    """
    of_run = [c.folder.parent for c in trainer.callbacks if isinstance(c, RunCheckpoint)]
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
def say(text: str) -> None:
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
        trainer.loggers = [RunTensorBoard(run.folder)]
    else:
        trainer.loggers = [logger] if isinstance(logger, Logger) else list(logger)
    if not trainer.loggers:
        raise ValueError("logger: give at least one, or None for TensorBoard's")
    begins = f"Continuing {run.folder}" if run.step else f"Logging to {run.folder}"
    say("; watch it with: ".join([begins, *watch_commands(trainer)]))
    for each in trainer.loggers:
        each.log_hyperparams(run.options)


def close_logs(run: Run, trainer: pl.Trainer, result: Mapping[str, float]) -> None:
    """Ends the logs; on TensorBoard's page "HParams", a run is a line of options and results."""
    options = {name: run.options[name] for name in COMPARED}
    bpd_first = sorted(result, key=lambda name: not name.endswith("bpd"))
    metrics = {name: result[name] for name in bpd_first}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(options, metrics, step=trainer.global_step)
        logger.finalize("success")  # also ends the thread that writes TensorBoard's file


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
            f" (learned prior {metrics['val_prior_bpd']:.4f})"
            f"   {now - self.epoch_start:5.1f} s   about {left // 60}:{left % 60:02} left"
        )
        self.epoch_start = now


def report(run: Run, trainer: pl.Trainer, test: dict[str, float], best: Path) -> None:
    """What a run says at its end: both bounds, and where everything is."""
    say(
        "\nTest of the best checkpoint (by the validation bpd with the unit Gaussian):\n"
        f"unit Gaussian  {test['test_bpd']:.4f} bpd"
        f" = {test['test_reconstruction_loss']:.1f} nats reconstruction"
        f" + {test['test_regularization_loss']:.1f} nats KL\n"
        f"learned prior  {test['test_prior_bpd']:.4f} bpd\n"
        f"Pictures:      {run.folder / '*.png'}\n"
        f"Results:       {run.folder / RESULT}, {EpochTable.NAME}\n"
        f"Checkpoint:    {best}"
    )
    for command in watch_commands(trainer):
        say(f"TensorBoard:   {command}")


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
