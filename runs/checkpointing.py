"""The two checkpoints of a run: the best model, and in `last.ckpt` all that it needs to go on."""

import re
from dataclasses import asdict
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch.optim.lr_scheduler import LambdaLR

from inputs.command_line import InputError
from inputs.files import write_csv
from runs.run import Run
from runs.table import TABLE, epoch_metrics, epoch_row, log_step
from runs.tensorboard import RunTensorBoard


class RunCheckpoint(Checkpoint):
    """Keeps the best model by a validation metric and, in `last.ckpt`, all that a run needs.

    `last.ckpt` is written before the first epoch and after each whole one. Lightning's
    ModelCheckpoint would remove the old best checkpoint before that, and remember folders by their
    absolute names.

    Args:
        run: the run.
        monitor: the metric, lower is better.
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

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict
    ) -> None:
        saved, own = checkpoint.get("hyper_parameters"), dict(pl_module.hparams)
        if saved != own:
            differ = [name for name in own if saved is None or saved.get(name) != own[name]]
            raise InputError(
                f"argument --resume: the model of {self.run.folder} has another "
                f"{', '.join(differ) or 'class'}: continue it by train_vae(..., model=...) with "
                "the model that it began with"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.run.restoring = False
        if trainer.global_step == 0:
            self._save_last(trainer)
        else:
            continue_schedules(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        state, metrics = self.run.state, epoch_metrics(trainer)
        state.rows.append(epoch_row(trainer, metrics, self.run.seconds))
        if (value := metrics[self.monitor]) < state.best:
            state.best, state.best_name = value, f"best_{self.monitor}_{value:.4f}.ckpt"
            state.best_epoch, state.best_step = trainer.current_epoch + 1, log_step(trainer)
            trainer.save_checkpoint(self.run.best, weights_only=True)
        if trainer.is_last_batch:  # a callback may end an epoch early; resumed, it is trained anew
            state.epochs, state.step = trainer.current_epoch + 1, trainer.global_step
            self.run.discard_result()
            self._save_last(trainer)
        if trainer.is_global_zero:
            write_csv(self.run.folder / TABLE, state.rows)

    def _save_last(self, trainer: pl.Trainer) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, RunTensorBoard):  # which Lightning gives them only after this
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
        # Exactly these names: a caller's own checkpoints may be in the folder too.
        own = re.compile(rf"best_{re.escape(self.monitor)}_\d+\.\d{{4}}\.ckpt")
        for file in self.run.last.parent.iterdir():
            if own.fullmatch(file.name) and file != self.run.best:
                file.unlink()


def continue_schedules(trainer: pl.Trainer) -> None:
    """Sets the learning rates of a resumed run, whose number of epochs may have grown.

    Those in the checkpoint are of the length which the run had then. Only of a `LambdaLR` it is
    known what they would be now; other schedulers go on as they were saved.
    """
    for schedule in (config.scheduler for config in trainer.lr_scheduler_configs):
        if isinstance(schedule, LambdaLR):
            factors = [factor(schedule.last_epoch) for factor in schedule.lr_lambdas]
            groups = schedule.optimizer.param_groups
            for group, base, factor in zip(groups, schedule.base_lrs, factors, strict=True):
                group["lr"] = base * factor
