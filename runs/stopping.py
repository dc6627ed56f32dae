"""How a run ends early: by a signal, by a loss that is not finite, by a disk that is full."""

import errno
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from inputs.command_line import InputError, WorkError
from runs.run import Run

SIGNALS = (signal.SIGINT, signal.SIGTERM)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class StopIfNotFinite(Callback):
    """Ends the training when the loss or the validation metric `monitor` is NaN or infinite.

    InputError in the check before the first step: the model does not log that metric.
    """

    EVERY = 50  # steps; to read the loss of an accelerator is to wait for it

    def __init__(self, monitor: str):
        super().__init__()
        self.monitor = monitor

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: dict, *batch: object
    ) -> None:
        step, steps = batch[1] + 1, trainer.num_training_batches
        if not outputs or "loss" not in outputs:  # a batch that is left out, or own optimisation
            return
        if pl_module.device.type == "cpu" or step % self.EVERY == 0:
            # The mean, as one process must not go on and wait for another that has ended.
            loss = trainer.strategy.reduce(outputs["loss"].detach().clone(), reduce_op="mean")
            self._check(trainer, loss, f"the loss is not finite in step {step} of {steps}")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            raise InputError(
                f"model: {type(pl_module).__name__} does not log {self.monitor}, by which the best "
                f"epoch is chosen: call self.log({self.monitor!r}, ...) in validation_step"
            )
        self._check(trainer, value, "the validation loss is not finite")

    def _check(self, trainer: pl.Trainer, value: Tensor, otherwise: str) -> None:
        if not value.isfinite():
            lr = trainer.lightning_module.hparams.lr
            raise FloatingPointError(
                f"{otherwise} in epoch {trainer.current_epoch + 1}: start again with a lower --lr "
                f"than {lr:g}"
            )


class LostTrainingError(WorkError, FloatingPointError):
    """The loss is no longer a finite number."""


class StopOnSignal(Callback):
    """Ends a run after Ctrl-C or SIGTERM, at its next batch; a second one ends it at once.

    Python ignores an exception that a signal's handler raises in some places, such as `__del__`. So
    the handler leaves a note, and batches look at it. Where none will, it raises SystemExit itself.
    """

    def __init__(self) -> None:
        self.number = 0  # of the signal that came
        self.batches_look = False

    def catch(self) -> None:
        """From now on signals come here, in the main thread, the only one to get them."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        signal.signal(number, signal.SIG_DFL)
        if not self.batches_look:
            self.look()

    def look(self, *_: object) -> None:
        if self.number:
            sys.exit(128 + self.number)  # as a shell says it

    on_train_batch_start = on_validation_batch_start = on_test_batch_start = look

    def on_train_start(self, *_: object) -> None:
        # Lightning's own answer to SIGTERM waits for the other processes, perhaps for ever. At the
        # end of fit and of test it puts back what was there before.
        self.catch()
        self.batches_look = True

    def on_train_end(self, *_: object) -> None:
        self.batches_look = False
        self.look()

    on_test_start, on_test_end = on_train_start, on_train_end

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Ends all of a run's processes when one must end, by a signal or an error."""
        if trainer.is_global_zero and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)  # they write nothing


def explain_end(run: Run, error: BaseException, number: int) -> None:
    """Says what ends a run in one line with the way to continue; of a mistake it says nothing.

    Raises:
        SystemExit: by the signal of this number, if it is not 0; rank zero has printed the line.
        LostTrainingError: the loss is not finite.
        WorkError: a file of the run cannot be written, or another process has ended.
    """
    if number:
        if rank_zero_only.rank == 0:
            below = "\n" if sys.stderr.isatty() else ""  # the ^C, which the terminal shows
            with suppress(OSError):  # nobody may be reading any more
                print(f"{below}stopped; {run.remedy}", file=sys.stderr)
        raise SystemExit(128 + number) from error
    if isinstance(error, FloatingPointError):
        if rank_zero_only.rank > 0:
            raise SystemExit(1) from error
        raise LostTrainingError(f"{error}; the last good checkpoint is {run.last}") from error
    if isinstance(error, WorkError):
        raise WorkError(f"{error}; {run.remedy}") from error
    if isinstance(error, RuntimeError) and run.state.processes > 1 and "by peer" in str(error):
        raise WorkError(f"another process of this run has ended; {run.remedy}") from error
    if isinstance(error, ValueError):  # as Lightning passes on what TensorBoard's writer fails of
        error = error.__cause__
    if isinstance(error, OSError):
        name = os.fsdecode(error.filename or b"")
        of_run = run.folder.absolute() in Path(name).absolute().parents
        if of_run or (not name and error.errno in FULL):
            raise WorkError(
                f"cannot write {name or 'any more'} ({error.strerror}): make room or restore the "
                f"folder, then {run.remedy}"
            ) from error
