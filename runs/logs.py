"""Where a run logs, what its table has, and what it prints while it trains.

`metrics.csv` has a row per epoch, whichever loggers a run has: the epoch, counted from 1; step, as
in the logs; seconds since the run began; then the means over the epoch. The rows are kept in
`last.ckpt`. Lightning's CSVLogger begins its file anew in a resumed run, and puts training,
validation and learning rates into rows of their own.
"""

import re
import shlex
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from tqdm import tqdm

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


def epoch_row(trainer: pl.Trainer, metrics: Mapping[str, float], seconds: float) -> dict[str, str]:
    """The row of the epoch that ends, with its `epoch_metrics`, seconds after the run began."""
    epoch, step = trainer.current_epoch + 1, log_step(trainer)
    row = {"epoch": f"{epoch}", "step": f"{step}", "seconds": f"{seconds:.1f}"}
    return row | {name: f"{metrics[name]:.7g}" for name in sorted(metrics)}


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
    of the test are left out; results are on the page "HParams".

    Args:
        folder: of the run.
        purge_step: TensorBoard drops what earlier files say of this step and later ones.
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


class Progress(Callback):
    """A line per epoch; if wanted, in a terminal, a bar of the training below, in 80 columns."""

    EVERY = 20  # steps between two looks at the loss

    def __init__(self, wanted: bool):
        super().__init__()
        self.wanted, self.bar = wanted, None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first_epoch, self.start = trainer.current_epoch, time.monotonic()
        steps = trainer.num_training_batches
        self.bar = tqdm(
            disable=None if self.wanted and trainer.is_global_zero else True,
            initial=trainer.current_epoch * steps,
            total=trainer.max_epochs * steps,
            bar_format="{desc} |{bar}| {percentage:3.0f} %, {remaining} left{postfix}",
            smoothing=0,  # the mean speed so far
            leave=False,
            dynamic_ncols=True,
        )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epoch_start = time.monotonic()
        self.bar.set_description_str(self._epoch(trainer))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *step: object
    ) -> None:
        self.bar.update()
        if not self.bar.disable and self.bar.n % self.EVERY == 0:
            bpd = trainer.callback_metrics.get("train_bpd_step")
            self.bar.set_postfix_str("" if bpd is None else f"{bpd:.4f} bpd", refresh=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics  # on every process, as it is a mean over all of them
        names = {"train": "train_bpd", "val": "val_bpd", "learned prior": "val_prior_bpd"}
        shown = [f"{title} {metrics[name]:.4f}" for title, name in names.items() if name in metrics]
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
