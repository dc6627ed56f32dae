"""`metrics.csv`: a row per epoch, whichever loggers a run has.

Columns: the epoch, counted from 1; step, where the same figures are in the logs; seconds since the
run began; then the means over the epoch. The rows are kept in `last.ckpt`, and the file is whole at
every moment. Lightning's CSVLogger begins its file anew in a resumed run, and puts training,
validation and learning rates into rows of their own.
"""

from collections.abc import Mapping

import pytorch_lightning as pl

TABLE = "metrics.csv"


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
