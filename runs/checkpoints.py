"""Checkpoints of runs: which one is meant, and when a run writes them."""

import re
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins import TorchCheckpointIO

from inputs.command_line import InputError
from inputs.files import write_csv, write_whole
from runs.folders import CHECKPOINTS, TABLE
from runs.logs import Board, epoch_metrics, log_step
from runs.run import Run

BEST = re.compile(r"best_[A-Za-z_]+_(\d+\.\d{4})\.ckpt")  # a caller's are often named nearly so


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint file itself or, for a run's log directory, the one with the best value.

    Raises:
        InputError: there is no such file, or the directory is not that of a run.
    """
    path = Path(path)
    if path.is_dir():
        named = [(BEST.fullmatch(file.name), file) for file in path.glob(f"{CHECKPOINTS}/*")]
        best = [(float(name[1]), file) for name, file in named if name]
        if not best:
            raise InputError(
                f"{path} has no best checkpoint: give a checkpoint file or the log directory of a "
                "run that has finished an epoch, such as VAE_logs/version_0"
            )
        _, path = min(best)
    if not path.is_file():
        raise InputError(f"checkpoint {path} is no file: give a .ckpt file or a log directory")
    return path


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, by `write_whole`.

    Lightning itself writes into the system's temporary folder; where that is another file system,
    what then puts the file into place is a copy, which a kill can leave half-done.
    """

    def save_checkpoint(
        self, checkpoint: dict, path: str | Path, storage_options: object = None
    ) -> None:
        buffer = BytesIO()
        torch.save(checkpoint, buffer)
        write_whole(path, buffer.getvalue())


class RunCheckpoint(Checkpoint):
    """Keeps the best model by a validation metric, where lower is better, and the last one.

    `last.ckpt`, with all that a run needs, is written before the first epoch and after each whole
    one. Lightning's ModelCheckpoint would remove the old best checkpoint before that, and remember
    folders by their absolute names.
    """

    def __init__(self, run: Run, monitor: str):
        super().__init__()
        self.run, self.monitor = run, monitor

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        # Rank zero's folder, on every process.
        self.run.folder = Path(trainer.strategy.broadcast(str(self.run.folder)))
        if stage == "fit" and trainer.is_global_zero:
            self.run.last.parent.mkdir(exist_ok=True)
            self._remove_outdated()  # the best of an epoch that was not saved

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        state, metrics, epoch = self.run.state, epoch_metrics(trainer), trainer.current_epoch + 1
        row = {"epoch": epoch, "step": log_step(trainer), "seconds": f"{self.run.seconds:.1f}"}
        state.rows.append(row | {name: f"{metrics[name]:.7g}" for name in sorted(metrics)})
        if (value := metrics[self.monitor]) < state.best:
            state.best, state.best_epoch = value, epoch
            state.best_name = f"best_{self.monitor}_{value:.4f}.ckpt"
            trainer.save_checkpoint(self.run.best, weights_only=True)
        if trainer.is_last_batch:  # a callback may end an epoch early; resumed, it is trained anew
            state.epochs, state.step = epoch, trainer.global_step
            self.run.discard_result()
            self._save_last(trainer)
        if trainer.is_global_zero:
            write_csv(self.run.folder / TABLE, state.rows)

    def _save_last(self, trainer: pl.Trainer) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, Board):  # which Lightning gives them only after this
                logger.log_metrics(epoch_metrics(trainer), log_step(trainer))
            logger.save()  # writes what is waiting
        self.run.state.seconds = self.run.seconds
        trainer.save_checkpoint(self.run.last, weights_only=False)
        if trainer.is_global_zero:
            self._remove_outdated()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict
    ) -> None:
        checkpoint["run"] = asdict(self.run.state)

    def _remove_outdated(self) -> None:
        for file in self.run.last.parent.iterdir():
            if BEST.fullmatch(file.name) and file != self.run.best:
                file.unlink()
