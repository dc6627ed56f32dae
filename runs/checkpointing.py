"""The two checkpoints of a run: the best model, and in `last.ckpt` all that it needs to go on."""

import math
import os
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities import rank_zero_only

from boundary.command_line import InputError, to_argv
from runs.folders import LAST, log_lengths
from runs.run import Run


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
        paths = {name: options[name] for name in ("data_dir", "data") if options[name]}
        checkpoint["run"] = {
            "argv": to_argv(
                options | {name: os.path.abspath(path) for name, path in paths.items()}
            ),
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
