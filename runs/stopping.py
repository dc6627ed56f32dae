"""How a run ends early: by a signal, by a loss that is not finite, by a disk that is full."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from inputs.command_line import InputError, WorkError
from runs.run import Run


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


class LostTrainingError(WorkError, FloatingPointError):
    """The loss is no longer a finite number."""


class Stopped(SystemExit):
    """A signal asks the program to end; the exit code is the shell's for it, 128 + its number."""

    message = "stopped before the run began"


def _raise_stopped(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the program at once
    if sys.stderr.isatty():
        print(file=sys.stderr)  # below the ^C, which the terminal shows wherever it is
    raise Stopped(128 + number)


def catch_signals() -> dict[int, object]:
    """From now on Ctrl-C and SIGTERM raise `Stopped` in the main thread, the only one to get them.

    Returns:
        what they did before.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {n: signal.signal(n, _raise_stopped) for n in (signal.SIGINT, signal.SIGTERM)}


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM raise `Stopped`; at the end rank zero says so in one line."""
    handlers = catch_signals()
    try:
        yield
    except Stopped as stopped:
        if rank_zero_only.rank == 0:
            with suppress(OSError):  # nobody may be reading any more
                print(stopped.message, file=sys.stderr)
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def told_by_rank_zero() -> Iterator[None]:
    """Inside, a loss that is not finite ends the processes other than rank zero without a word."""
    try:
        yield
    except FloatingPointError:
        if rank_zero_only.rank > 0:
            sys.exit(1)
        raise


class EndTogether(Callback):
    """Ends all of a run's processes when one must end, by a signal or an error."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning's own answer to SIGTERM waits for the other processes, perhaps for ever. At the
        # end of fit and of test it puts back what was there before.
        catch_signals()

    on_test_start = on_train_start

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if trainer.is_global_zero and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)  # they write nothing


@contextmanager
def explained_end(run: Run) -> Iterator[None]:
    """Inside, whatever ends the run is told in one line that says how to continue.

    Raises:
        Stopped: by a signal, with the line as its message.
        LostTrainingError: the loss is not finite.
        WorkError: the folder cannot be written, or another process has ended.
    """
    hook = threading.excepthook
    threading.excepthook = lambda failed: (
        # TensorBoard's thread prints a traceback of what the main thread meets, too.
        issubclass(failed.exc_type, OSError) or hook(failed)
    )
    try:
        yield
    except Stopped as stopped:
        stopped.message = f"stopped; {run.remedy}"
        raise
    except InputError:
        raise
    except Exception as error:
        if (message := failure(run, error)) is None:
            raise
        kind = LostTrainingError if isinstance(error, FloatingPointError) else WorkError
        raise kind(message) from error
    finally:
        threading.excepthook = hook


def failure(run: Run, error: BaseException) -> str | None:
    """What an exception says of the run's end, in one line; None where it is a mistake."""
    if isinstance(error, FloatingPointError):
        return f"{error}; the last good checkpoint is {run.last}"
    if "by peer" in str(error):  # gloo's words, of no type of its own
        return f"another process of this run has ended; {run.remedy}"
    # Lightning passes the failure of TensorBoard's writer on as a ValueError.
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    if isinstance(error, BrokenPipeError):
        return f"nobody reads the output any more; {run.remedy}"
    return (
        f"cannot write into {run.folder} ({error.strerror}): make room or restore the folder, "
        f"then {run.remedy}"
    )
