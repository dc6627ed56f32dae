"""What the terminal shows of a training."""

import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from tqdm import tqdm

from runs.logs import print_once


class Progress(Callback):
    """A line per epoch and, if wanted and in a terminal, a bar of the whole training below."""

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
