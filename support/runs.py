"""What keeps a run from being lost."""

import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint
from torch import Tensor

from support.command_line import InputError

try:
    import fcntl
except ImportError:  # Windows, where two processes on one run go unnoticed
    fcntl = None


LAST = "last.ckpt"


RESULT = "result.json"  # the test result, written when there is nothing left to do


class SeedEpochs(Callback):
    """Derives the noise of every epoch from (seed, epoch, rank) alone.

    What happens between two epochs then cannot change a run, and validation and test see the
    same noise each time, so that two figures differ by the model only.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed

    def _derive(self, *key: int) -> None:
        (state,) = np.random.SeedSequence((self.seed, *key)).generate_state(1, np.uint64)
        torch.manual_seed(int(state))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._derive(trainer.current_epoch + 1, trainer.global_rank)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._derive(0, trainer.global_rank)

    on_test_epoch_start = on_validation_epoch_start


class Checkpoints(Checkpoint):
    """Keeps the best model by validation bpd and, in `last.ckpt`, all that the run needs to go on.

    `last.ckpt` is written before the first epoch and after each. Lightning's ModelCheckpoint would
    remove the old best checkpoint before that, and remember folders by their absolute names.

    Args:
        settings: the run's options by name, for whoever continues it.
    """

    def __init__(self, settings: dict[str, object]):
        super().__init__()
        self.settings = settings
        self.restoring = False
        self.best_bpd, self.best_name = math.inf, ""

    @property
    def best_path(self) -> Path:
        return self.folder / self.best_name

    def state_dict(self) -> dict[str, object]:
        return {"best_bpd": self.best_bpd, "best_name": self.best_name}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self.best_bpd = float(state_dict["best_bpd"])
        self.best_name = Path(state_dict["best_name"]).name
        if self.best_name and not self.best_path.exists():
            raise InputError(f"argument --resume: {self.best_path}, the best so far, is missing")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.run_folder = Path(trainer.log_dir)  # rank zero's, on every process
        self.folder = self.run_folder / "checkpoints"

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict
    ) -> None:
        self.restoring = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            for p, state in optimizer.state.items():
                if any(tensor.shape != p.shape for tensor in state.values()):
                    raise ValueError("its optimiser state is of another model")
        self.restoring = False
        if trainer.is_global_zero:
            self.folder.mkdir(exist_ok=True)
        if trainer.current_epoch == 0:
            self._save_last(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        bpd = trainer.callback_metrics["val_bpd"].item()
        if bpd < self.best_bpd:
            self.best_bpd, self.best_name = bpd, f"best_val_bpd_{bpd:.4f}.ckpt"
            trainer.save_checkpoint(self.best_path, weights_only=True)
        if trainer.is_global_zero:  # of the run before it was given more epochs
            (self.run_folder / RESULT).unlink(missing_ok=True)
        self._save_last(trainer)

    def _save_last(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.folder / LAST, weights_only=False)
        if trainer.is_global_zero:
            for outdated in set(self.folder.glob("best_*.ckpt")) - {self.best_path}:
                outdated.unlink()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict
    ) -> None:
        """Adds the settings, the length of the logs, and what Lightning logs only after this."""
        for logger in trainer.loggers:
            logger.save()  # writes what is waiting
        metrics = trainer.callback_metrics
        checkpoint["run"] = {
            "settings": self.settings,
            "logs": {file.name: file.stat().st_size for file in _logs(self.run_folder)},
            "step": trainer.global_step,
            "unlogged": {
                "epoch": float(trainer.current_epoch),
                **{n: m.item() for n, m in metrics.items() if n.startswith("train_")},
            },
        }


def _logs(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


def cut_logs(folder: Path, lengths: dict[str, int]) -> None:
    """Takes from TensorBoard's files in a run's folder what came after its last checkpoint."""
    for file in _logs(folder):
        length = lengths.get(file.name, 0)
        if length == 0:
            file.unlink()
        elif length < file.stat().st_size:
            os.truncate(file, length)


def new_run_folder(log_dir: str | Path) -> Path:
    """Makes the next `version_N`; no two processes get the same one."""
    taken = [folder.name.removeprefix("version_") for folder in Path(log_dir).glob("version_*")]
    number = max((int(name) for name in taken if name.isdecimal()), default=-1) + 1
    while True:
        folder = Path(log_dir, f"version_{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Whether this process alone works on the folder, which holds until the end of the block.

    The lock ends with the process, however that ends; loader processes do not inherit it.
    """
    if fcntl is None:
        yield True
        return
    with open(folder / ".lock", "a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def newest_unfinished(log_dir: str | Path) -> Path:
    """The run whose last checkpoint is the newest of those without a result that nobody works on.

    Raises:
        InputError: there is none.
    """
    found = []
    for last in Path(log_dir).glob(f"*/checkpoints/{LAST}"):
        folder = last.parent.parent
        if not (folder / RESULT).exists():
            found.append((last.stat().st_mtime_ns, folder))
    for _, folder in sorted(found, reverse=True):
        with locked(folder) as free:
            if free:
                return folder
    raise InputError(
        f"argument --resume: no unfinished run with a checkpoint in {log_dir}: name another "
        "--log_dir, or start a run without --resume"
    )


class StopIfLost(Callback):
    """Ends the training as soon as the loss is not finite.

    On an accelerator the loss is looked at every `EVERY` steps only, as to look is to wait for it;
    which step was the first is kept there.
    """

    EVERY = 50

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first_lost = torch.tensor(math.inf, device=pl_module.device)
        self.batches = trainer.num_training_batches

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: dict[str, Tensor],
        batch: tuple[Tensor, Tensor],
        batch_idx: int,
    ) -> None:
        lost_now = torch.where(outputs["loss"].isfinite(), math.inf, float(batch_idx + 1))
        self.first_lost = torch.minimum(self.first_lost, lost_now)
        if pl_module.device.type == "cpu" or (batch_idx + 1) % self.EVERY == 0:
            self._look(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._look(trainer)
        bpd = trainer.callback_metrics["val_bpd"]
        if not bpd.isfinite():
            self._end(trainer, f"the validation loss is {bpd.item()}")

    def _look(self, trainer: pl.Trainer) -> None:
        # One process must not go on and wait for another that has ended.
        first = trainer.strategy.reduce(self.first_lost.clone(), reduce_op="min").item()
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


def _stop(signum: int, frame: FrameType | None) -> None:
    signal.signal(signum, signal.SIG_DFL)  # a second one ends the program at once
    raise Stopped(128 + signum)


def end_on_signals() -> None:
    """Ctrl-C and SIGTERM become the exception `Stopped`, where signals can be caught at all."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _stop)
        signal.signal(signal.SIGTERM, _stop)


class EndTogether(Callback):
    """Ends all of a run's processes when one must end, by a signal or an error."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning's own answer to SIGTERM waits for the other processes, perhaps for ever. At the
        # end of fit and of test it puts back what was there before.
        end_on_signals()

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


def quiet_writers(failed: threading.ExceptHookArgs) -> None:
    """For threading.excepthook: no traceback of a full disk, which the main thread meets too."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)
