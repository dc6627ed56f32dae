"""Lightning as a run uses it: the trainer with the run's callbacks, what it says, its noise."""

import argparse
import ctypes
import logging
import os
import platform
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, LearningRateMonitor
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from inputs.command_line import InputError, one_line, whole_number
from runs.checkpoints import AtomicCheckpointIO, RunCheckpoint
from runs.run import Run
from runs.stopping import SIGNALS, StopIfNotFinite

OPTIONS = ("accelerator", "devices", "num_nodes", "strategy", "precision")  # handed through
LIGHTNING_LOG = logging.getLogger("pytorch_lightning.utilities.rank_zero")


def add_trainer_options(parser: argparse.ArgumentParser) -> None:
    """The options of `OPTIONS`, with Lightning's own defaults."""
    add = parser.add_argument_group("handed through to Lightning's Trainer").add_argument
    add("--accelerator", default="auto", help="cpu, gpu, mps, ...")
    add("--devices", default="auto", help="number of devices, or which ones")
    add("--num_nodes", type=whole_number(1), default=1, help="number of machines")
    add("--strategy", default="auto", help="how several processes work together, such as ddp")
    add("--precision", default="32-true", help="such as 32-true or bf16-mixed")


def make_trainer(run: Run, monitor: str, callbacks: Iterable[Callback]) -> pl.Trainer:
    """Lightning's Trainer for a run, with what all runs call back, without a logger so far.

    The best epoch is the one with the lowest value of the validation metric `monitor`.

    Raises:
        InputError: an option of `OPTIONS` or a callback does not work here, or not for a run.
    """
    settings = run.settings
    options = {name: getattr(settings, name) for name in OPTIONS}
    if any(way in options["strategy"] for way in ("spawn", "fork", "notebook")):
        raise InputError(
            f"argument --strategy: {options['strategy']} trains in processes that end before the "
            "test: give ddp"
        )
    precision = options["precision"]
    if precision.endswith("16-true") or precision.startswith("transformer-engine"):
        raise InputError(
            f"argument --precision: {precision} keeps the weights in 16 bits, which loses the "
            "small updates near the end: give bf16-mixed"
        )
    callbacks = list(callbacks)
    averages = (pl.callbacks.WeightAveraging, pl.callbacks.StochasticWeightAveraging)
    if any(isinstance(callback, averages) for callback in callbacks):
        raise InputError(
            "callbacks: the best checkpoint would not hold the averaged weights that were "
            "validated: average them with a pl.Trainer of your own"
        )
    quiet_lightning()
    keep_freed_memory()
    try:
        return pl.Trainer(
            **options,
            callbacks=[
                SeedEpochs(settings.seed),
                StopIfNotFinite(monitor),
                *callbacks,
                LearningRateMonitor("step"),
                RunCheckpoint(run, monitor),
            ],
            max_epochs=settings.epochs,
            logger=False,  # until it is known that there will be a run
            plugins=[AtomicCheckpointIO()],
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=1,  # what the model does not log is said before the first step
        )
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        given = " ".join(f"--{name} {value}" for name, value in options.items())
        raise InputError(f"Lightning refuses {given}: {one_line(error)}") from error


def compile_networks(device: torch.device, *networks: nn.Module) -> None:
    """torch.compile, in place: the names in a checkpoint stay the same.

    Raises:
        InputError: it does not work here.
    """
    try:
        torch.compile(torch.neg)(torch.zeros(1, device=device))
    except RuntimeError as error:
        raise InputError(
            f"argument --compile: torch.compile does not work here ({one_line(error)}): install a "
            "C++ compiler, such as g++, or leave it out"
        ) from error
    for network in networks:
        network.compile()


def keep_freed_memory() -> None:
    """Lets glibc keep the memory of tensors that are freed, for those of the next step.

    It returns pieces of some MB to the system otherwise, and 5,700 page faults in every step to get
    them again take a sixth of its time. Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: pieces up to 32 MB are no mappings of their own
        mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD: up to 1 GB may be free at the top of the heap


def quiet_lightning() -> None:
    """Leaves out what Lightning says about itself and what its user cannot change."""
    LIGHTNING_LOG.setLevel(logging.WARNING)
    for message in (
        ".*isinstance.treespec, LeafSpec",  # Lightning's own use of a torch function
        ".*does not have many workers",  # a batch is one indexing operation: none is faster
        "Grad strides do not match",  # two descriptions of one order in memory, of 1x1 filters
        ".*smaller than the logging interval",  # the learning rate of a very short run
    ):
        warnings.filterwarnings("ignore", message)


@contextmanager
def restored_process() -> Iterator[None]:
    """Afterwards random streams, environment, signals, warnings and Lightning's log are as before.

    Inside, a thread that cannot write a file ends without a traceback: TensorBoard's tells the main
    thread of it.
    """
    level, environment, before = LIGHTNING_LOG.level, dict(os.environ), ExitStack()
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    hook = threading.excepthook
    threading.excepthook = lambda failed: issubclass(failed.exc_type, OSError) or hook(failed)
    before.enter_context(isolate_rng())  # which restores nothing after an exception
    before.enter_context(warnings.catch_warnings())
    try:
        yield
    finally:
        before.close()
        threading.excepthook = hook
        LIGHTNING_LOG.setLevel(level)
        os.environ.clear()
        os.environ.update(environment)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


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
