"""Lightning as this program uses it: the trainer, what it says, and a run's last pictures."""

import argparse
import ctypes
import logging
import platform
import time
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

from boundary.checkpoints import AtomicCheckpointIO
from boundary.command_line import InputError, one_line
from fmnist import DiscreteImages
from support.logs import EpochTable, log_folder, log_now, say, watch_commands, writers_of
from support.pictures import latent_figure, manifold_figure
from support.run_folders import RESULT
from support.runs import Run
from utils import active_units

OPTIONS = ("accelerator", "devices", "num_nodes", "strategy", "precision")  # handed through
MOST_PROCESSES = 64  # on one machine


def make_trainer(settings: argparse.Namespace, callbacks: list[Callback]) -> pl.Trainer:
    """Lightning's Trainer for a run with these options, without a logger so far.

    Raises:
        InputError: Lightning or the machine has no such accelerator, strategy or precision, there
            would be more than `MOST_PROCESSES`, the strategy trains in processes that end before
            the test, or the precision keeps the weights themselves in 16 bits, where small updates
            are rounded away.
    """
    options = {name: getattr(settings, name) for name in OPTIONS}
    if any(way in options["strategy"] for way in ("spawn", "fork", "notebook")):
        raise InputError(
            f"argument --strategy: {options['strategy']} trains in processes that end before the "
            "test: give ddp"
        )
    devices = options["devices"].strip()
    if devices.isdecimal() and int(devices) > MOST_PROCESSES:  # on the CPU, any number would start
        raise InputError(f"argument --devices: {devices} are too many: at most {MOST_PROCESSES}")
    precision = options["precision"]
    if precision.endswith("16-true") or precision.startswith("transformer-engine"):
        raise InputError(
            f"argument --precision: {precision} keeps the weights in 16 bits, which loses the "
            "small updates near the end: give bf16-mixed"
        )
    quiet_lightning()
    keep_freed_memory()
    try:
        return pl.Trainer(
            **options,
            callbacks=callbacks,
            max_epochs=settings.epochs,
            logger=False,  # until it is known that there will be a run
            plugins=[AtomicCheckpointIO()],
            enable_progress_bar=settings.progress_bar,
            enable_model_summary=False,
            num_sanity_val_steps=0,  # nothing to find out: one data set, one model
            use_distributed_sampler=False,  # MNISTDataModule gives each process its share
        )
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        given = " ".join(f"--{name} {value}" for name, value in options.items())
        raise InputError(f"Lightning refuses {given}: {one_line(error)}") from error


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
    """Leaves out what Lightning says about itself and what its user can do nothing about."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (
        ".*isinstance.treespec, LeafSpec",  # Lightning's own use of a torch function
        ".*does not have many workers",  # a batch is one indexing operation: none is faster
        ".*smaller than the logging interval",  # the learning rate of a very short run
    ):
        warnings.filterwarnings("ignore", message)


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


@torch.no_grad()
def show_latents(
    trainer: pl.Trainer, model: pl.LightningModule, data: DiscreteImages, step: int
) -> dict[str, float]:
    """Where the test set lies in the latent space and, for two dimensions, the manifold there.

    TensorBoard's projector gets the means of the first 2,000 images, with labels and thumbnails.

    Args:
        data: the test set.
        step: where the logs have this model.
    Returns:
        test_active_units, on rank zero.
    """
    folder = log_folder(trainer)
    bpd = trainer.callback_metrics.get("test_bpd")  # every process: to read is to average
    if not trainer.is_global_zero:
        return {}
    which = "the run's best model" + ("" if bpd is None else f", test {bpd:.4f} bpd")
    writers = writers_of(trainer)
    images, labels = data.images, data.labels.cpu()
    batches = images.split(500)
    means = torch.cat([model.encoder(imgs.long().to(model.device))[0] for imgs in batches]).cpu()
    if means.shape[1] > 1:
        figure = latent_figure(means, labels, f"Latent means of the test images ({which})")
        figure.savefig(folder / "latent_means.png")
        thumbnails = images[:2000].cpu().expand(-1, 3, -1, -1) / 15
        for writer in writers:
            writer.add_figure("latents/Means", figure, step)
            writer.add_embedding(
                means[:2000], labels[:2000].tolist(), thumbnails, step, tag="Latent means"
            )
    if means.shape[1] == 2:
        figure = manifold_figure(model.decoder, f"The latent plane, decoded ({which})")
        figure.savefig(folder / "vae_manifold.png")
        for writer in writers:
            writer.add_figure("latents/Manifold", figure, step)
    latents = {"test_active_units": float(active_units(means))}
    log_now(trainer, latents, trainer.global_step)  # beside Lightning's test result
    return latents


def report(run: Run, trainer: pl.Trainer, test: dict[str, float], best: Path) -> None:
    """What a run says at its end: both bounds, and where everything is."""
    say(
        "\nTest of the best checkpoint (by the validation bpd with the unit Gaussian):\n"
        f"unit Gaussian  {test['test_bpd']:.4f} bpd"
        f" = {test['test_reconstruction_loss']:.1f} nats reconstruction"
        f" + {test['test_regularization_loss']:.1f} nats KL\n"
        f"learned prior  {test['test_prior_bpd']:.4f} bpd\n"
        f"Pictures:      {run.folder / '*.png'}\n"
        f"Results:       {run.folder / RESULT}, {EpochTable.NAME}\n"
        f"Checkpoint:    {best}"
    )
    for command in watch_commands(trainer):
        say(f"TensorBoard:   {command}")


class EpochLines(Callback):
    """One line per epoch, when there is no progress bar."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.first_epoch = trainer.current_epoch
        self.start = self.epoch_start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics  # every process: to read them is to average over all
        now = time.monotonic()
        epoch = trainer.current_epoch + 1
        per_epoch = (now - self.start) / (epoch - self.first_epoch)
        left = round(per_epoch * (trainer.max_epochs - epoch))
        say(
            f"epoch {epoch:>3}/{trainer.max_epochs}"
            f"   train {metrics['train_bpd']:.4f} bpd   val {metrics['val_bpd']:.4f} bpd"
            f" (learned prior {metrics['val_prior_bpd']:.4f})"
            f"   {now - self.epoch_start:5.1f} s   about {left // 60}:{left % 60:02} left"
        )
        self.epoch_start = now
