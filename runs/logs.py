"""Where a run logs, and what its table has.

`metrics.csv` has a row per epoch, whichever loggers a run has: epoch, counted from 1; step, as in
the logs; seconds since the run began; means over the epoch. Its rows are kept in `last.ckpt`, as
Lightning's CSVLogger begins its file anew in a resumed run.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from inputs.command_line import InputError, WorkError
from runs.run import Run

# The pages of TensorBoard: measures of training and validation that belong together.
GROUPS = {"bpd": "bpd", "reconstruction_loss": "reconstruction", "regularization_loss": "kl"}
MEASURE = re.compile(f"(train|val)(_prior)?_({'|'.join(GROUPS)})(_step)?")


def log_step(trainer: pl.Trainer) -> int:
    """Where the logs have what is true now: the last step, counted from 0, as Lightning does it."""
    return max(0, trainer.global_step - 1)


def epoch_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """The means over the epoch that ends, and over all processes, each of which has to call this.

    Left out is what is logged within an epoch, as it depends on where a run was resumed: learning
    rates, and names that end with `_step`.
    """
    metrics = trainer.callback_metrics.items()
    kept = (pair for pair in metrics if pair[0].startswith(("train_", "val_")))
    return {name: value.item() for name, value in kept if not name.endswith("_step")}


def run_of(trainer: pl.Trainer) -> Run | None:
    """The run of `train_vae`, which some of its callbacks know; none with another trainer."""
    runs = (getattr(callback, "run", None) for callback in trainer.callbacks)
    return next((run for run in runs if isinstance(run, Run)), None)


def log_folder(trainer: pl.Trainer) -> Path:
    """The folder for a run's files: that of `train_vae`, else that of the first logger.

    Every process has to ask, as rank zero tells it to the others.
    """
    run = run_of(trainer)
    folder = run.folder if run else Path(trainer.log_dir or trainer.default_root_dir)
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
    try:
        print(text, flush=True)
    except BrokenPipeError as error:
        raise WorkError("nobody reads the output any more") from error


def watch_commands(trainer: pl.Trainer) -> list[str]:
    """How to look at what TensorBoard's loggers write."""
    folders = [log.save_dir for log in trainer.loggers if isinstance(log, TensorBoardLogger)]
    return [f"TensorBoard:   tensorboard --logdir {shlex.quote(folder)}" for folder in folders]


class Board(TensorBoardLogger):
    """Lightning's logger, with what is of one measure side by side: bpd/train, bpd/val.

    The number of the epoch, the ELBO in nats, which is the bpd in another unit, and single points
    of the test are left out; results are on the page "HParams". From `purge_step` on, TensorBoard
    drops what earlier files in the run's folder say.
    """

    def __init__(self, folder: Path, purge_step: int | None):
        how = {"default_hp_metric": False, "purge_step": purge_step}
        super().__init__(str(folder.parent), name=None, version=folder.name, **how)
        self.told: dict[str, int | None] = {}  # the last step of each

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        new = {}
        for name, value in metrics.items():
            if known := MEASURE.fullmatch(name):
                stage, prior, measure, step_ = known.groups(default="")
                name = f"{GROUPS[measure]}/{stage}{prior}{step_}"
            left_out = name == "epoch" or name.startswith("test_") or "_ELBO" in name
            if not left_out and self.told.get(name, -1) != step:
                new[name] = value
        self.told |= dict.fromkeys(new, step)
        super().log_metrics(new, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """As Lightning's. What comes after it, the test and its pictures, purges nothing."""
        super().finalize(status)
        self.experiment.purge_step = None


def open_logs(run: Run, trainer: pl.Trainer, logger: Logger | Iterable[Logger] | None) -> None:
    """Gives the trainer the loggers, or TensorBoard's, with the run's options, and says where.

    Raises:
        InputError: there is no logger.
    """
    if logger is None or logger is True:
        logger = Board(run.folder, purge_step=run.state.step if run.resumed else None)
    trainer.loggers = [logger] if isinstance(logger, Logger) else list(logger or ())
    if not trainer.loggers:
        raise InputError("logger: give at least one, or None for TensorBoard's")
    begins = "Continuing:   " if run.state.step else "Logging to:   "
    print_once("\n".join([f"{begins} {run.folder}", *watch_commands(trainer)]))
    for each in trainer.loggers:
        each.log_hyperparams(run.options)
