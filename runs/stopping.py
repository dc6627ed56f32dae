"""How a run ends early: by a signal, by a loss that is not finite, by a disk that is full."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from boundary.command_line import WorkError


class StopIfNotFinite(Callback):
    """Ends the training when the loss is NaN or infinite.

    Args:
        monitor: a validation metric that must be finite too, or the epoch is not saved.
    """

    EVERY = 50  # steps; to read the loss of an accelerator is to wait for it

    def __init__(self, monitor: str):
        super().__init__()
        self.monitor = monitor

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: dict[str, Tensor] | None,
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
    ) -> None:
        step, steps = batch_idx + 1, trainer.num_training_batches
        if not outputs or "loss" not in outputs:  # a batch that is left out, or own optimisation
            return
        if pl_module.device.type == "cpu" or step % self.EVERY == 0:
            # The mean, as one process must not go on and wait for another that has ended.
            loss = trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean")
            self._check(trainer, loss, f"the loss is not finite in step {step} of {steps}")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = trainer.callback_metrics[self.monitor]
        self._check(trainer, value, "the validation loss is not finite")

    def _check(self, trainer: pl.Trainer, value: Tensor, otherwise: str) -> None:
        if not value.isfinite():
            lr = trainer.lightning_module.hparams.lr
            raise FloatingPointError(
                f"{otherwise} in epoch {trainer.current_epoch + 1}: start again with a lower --lr "
                f"than {lr:g}"
            )


class Stopped(SystemExit):
    """A signal asks the program to end; the exit code is the shell's for it, 128 + its number."""

    message = "stopped before the run began"


SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _raise_stopped(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the program at once
    if sys.stderr.isatty():
        sys.stderr.write("\n")  # below the ^C, which the terminal shows wherever it is
    raise Stopped(128 + number)


def catch_signals() -> dict[int, object]:
    """From now on Ctrl-C and SIGTERM raise `Stopped`; returns what they did before."""
    return {number: signal.signal(number, _raise_stopped) for number in SIGNALS}


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Inside the block Ctrl-C and SIGTERM raise `Stopped`, in the main thread of a program."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = catch_signals()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class EndTogether(Callback):
    """Ends all of a run's processes when one must end, by a signal or an error."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning's own answer to SIGTERM waits for the other processes, perhaps for ever. At the
        # end of fit and of test it puts back what was there before.
        if threading.current_thread() is threading.main_thread():
            catch_signals()

    on_test_start = on_train_start

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if trainer.is_global_zero and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)  # they write nothing


@contextmanager
def as_work_errors() -> Iterator[None]:
    """A loss that is not finite and a signal end a command with the line that they come with.

    Raises:
        WorkError: on rank zero, which says it for all processes; the others just end.
    """
    try:
        yield
    except (FloatingPointError, Stopped) as error:
        code, message = getattr(error, "code", 1), getattr(error, "message", str(error))
        if rank_zero_only.rank > 0:
            sys.exit(code)
        raise WorkError(message, code) from error


def cause_on_disk(error: BaseException | None) -> OSError | None:
    """The OSError among an exception and its causes, if there is one.

    Lightning passes the failure of TensorBoard's writer on as a ValueError.
    """
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
