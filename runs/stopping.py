"""How a run ends early: by a signal, by a loss that is not finite, by a disk that is full."""

import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from boundary.command_line import WorkError


class StopIfNotFinite(Callback):
    """Ends the training as soon as the loss is NaN or infinite.

    Reading the loss of an accelerator synchronises the device, so there it is read every `EVERY`
    steps only; the number of the first bad step is kept on the device.

    Args:
        monitor: a validation metric that must be finite too.
    """

    EVERY = 50

    def __init__(self, monitor: str):
        super().__init__()
        self.monitor = monitor

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first_bad = torch.tensor(math.inf, device=pl_module.device)
        self.batches = trainer.num_training_batches

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: dict[str, Tensor],
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
    ) -> None:
        bad = torch.where(outputs["loss"].isfinite(), math.inf, float(batch_idx + 1))
        self.first_bad = torch.minimum(self.first_bad, bad)
        if pl_module.device.type == "cpu" or (batch_idx + 1) % self.EVERY == 0:
            self._look(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._look(trainer)
        value = trainer.callback_metrics[self.monitor]
        if not value.isfinite():
            self._end(trainer, f"the validation loss is {value.item()}")

    def _look(self, trainer: pl.Trainer) -> None:
        # One process must not go on and wait for another that has ended.
        first = trainer.strategy.reduce(self.first_bad.clone(), reduce_op="min").item()
        if first < math.inf:
            self._end(trainer, f"the loss is not finite since step {first:.0f} of {self.batches}")

    def _end(self, trainer: pl.Trainer, what: str) -> None:
        lr = trainer.lightning_module.hparams.lr
        raise FloatingPointError(
            f"{what} in epoch {trainer.current_epoch + 1}: start again with a lower --lr than "
            f"{lr:g}"
        )


class Stopped(SystemExit):
    """A signal asks the program to end; the exit code is the shell's for it, 128 + its number."""

    message = "stopped before the run began"


SIGNALS = (signal.SIGINT, signal.SIGTERM)


PATIENCE = 5.0  # seconds from a signal to the end of a process that waits in native code


raised = threading.Event()  # whether the signal has become an exception


def _stop(number: int, frame: FrameType | None) -> None:
    raised.set()
    signal.signal(number, signal.SIG_DFL)  # a second one ends the program at once
    raise Stopped(128 + number)


def catch_signals() -> dict[int, object]:
    """From now on Ctrl-C and SIGTERM raise `Stopped`; returns what they did before."""
    return {number: signal.signal(number, _stop) for number in SIGNALS}


def _end_if_not_raised(wakeup: socket.socket) -> None:
    while number := wakeup.recv(1):
        if number[0] in SIGNALS and not raised.wait(PATIENCE):
            if rank_zero_only.rank == 0:  # it says it for all
                os.write(2, f"train_pl.py: {Stopped.message}\n".encode())
            os._exit(128 + number[0])


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Inside the block Ctrl-C and SIGTERM raise `Stopped`, in the main thread of a program.

    Python raises an exception only between two steps of its own. A process that waits in native
    code, as for a second node that never comes, is therefore ended by a thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    raised.clear()
    wakeup, written = socket.socketpair()
    written.setblocking(False)
    watch = threading.Thread(target=_end_if_not_raised, args=(wakeup,), daemon=True)
    before, before_fd = catch_signals(), signal.set_wakeup_fd(written.fileno())
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before_fd)
        for number, handler in before.items():
            signal.signal(number, handler)
        written.close()
        watch.join()
        wakeup.close()


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


def cause_on_disk(error: BaseException | None) -> OSError | None:
    """The OSError among an exception and its causes, if there is one.

    Lightning passes the failure of TensorBoard's writer on as a ValueError.
    """
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


@contextmanager
def quiet_writers() -> Iterator[None]:
    """Inside, no thread prints a traceback of a full disk, which the main thread meets too."""
    before = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if not issubclass(failed.exc_type, OSError):
            before(failed)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
