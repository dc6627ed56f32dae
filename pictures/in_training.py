"""Pictures of a training: samples after some epochs, and where the latents are at its end."""

from collections.abc import Iterable
from pathlib import Path

import pytorch_lightning as pl
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from fmnist import DiscreteImages
from inputs.checks import check_size
from inputs.files import write_whole
from pictures.figures import CLASS_COLOURS, kl_figure, latent_figure, losses_figure, png, rendered
from pictures.of_model import (
    beta_words,
    encoded,
    manifold_figure,
    reconstructions_figure,
    samples_figure,
)
from runs.logs import log_folder, log_now, log_step, run_of, writers_of
from utils import active_units, kl_per_dimension

NUM_ENCODED = 2000  # validation images that latents are judged by; test images in the projector
SEED = 0  # of all pictures of a run


def epoch_line(epoch: int, val_bpd: Tensor | None, model: nn.Module) -> str:
    """What the title of a run's picture says; with a beta, also that the bpd is the ELBO's."""
    when = f"epoch {epoch}" if epoch else "before training"
    if epoch and val_bpd is not None:
        bound = "last validation" if model.hparams.beta == 1 else "validation ELBO"
        when += f", {bound} {val_bpd:.4f} bpd"
    return when + beta_words(model)


def first_images(loader: Iterable, num: int) -> Tensor:
    """The first images of a loader's batches of images and labels: long [num, 1, H, W]."""
    found = []
    for imgs, *_ in loader:
        found.append(imgs.cpu())
        if sum(map(len, found)) >= num:
            break
    return torch.cat(found)[:num]


def show(trainer: pl.Trainer, name: str, figure: Figure, step: int, file: Path | None) -> None:
    """Gives a figure to TensorBoard, and writes it as a PNG file if one is named."""
    picture = rendered(figure)
    for writer in writers_of(trainer):
        writer.add_image(f"images/{name}", picture, step, dataformats="HWC")
    if file is not None:
        write_whole(file, png(picture))


@torch.no_grad()
def show_latents(
    trainer: pl.Trainer, model: pl.LightningModule, data: DiscreteImages
) -> dict[str, float]:
    """Shows the latent means of the test set and, for two dimensions, the manifold.

    Returns:
        test_active_units, on rank zero.
    """
    folder, step = log_folder(trainer), trainer.global_step  # where Lightning logs its test
    bpd = trainer.callback_metrics.get("test_bpd")  # is averaged over the processes: all ask
    if not trainer.is_global_zero:
        return {}
    bound = "test" if model.hparams.beta == 1 else "test ELBO"
    which = "the run's best model" + ("" if bpd is None else f", {bound} {bpd:.4f} bpd")
    which += beta_words(model)
    means, _ = encoded(model, data.images)
    if means.shape[1] > 1:
        title = f"Latent means of the test images ({which})"
        figure = latent_figure(means, data.labels.cpu(), title, data.classes)
        show(trainer, "Latent means", figure, step, folder / "latent_means.png")
        show_in_projector(trainer, means, data, step)
    if means.shape[1] == 2:
        figure = manifold_figure(model, f"The latent plane, decoded ({which})")
        show(trainer, "Manifold", figure, step, folder / "vae_manifold.png")
    latents = {"test_active_units": float(active_units(means))}
    log_now(trainer, latents, step)
    return latents


def show_in_projector(trainer: pl.Trainer, means: Tensor, data: DiscreteImages, step: int) -> None:
    """Gives latent means, float [N, z_dim], to TensorBoard's page "Projector".

    Each of the first `NUM_ENCODED` is its image, in the colour of its class on white paper.
    """
    data, num = data.first(NUM_ENCODED), len(CLASS_COLOURS)
    means, labels = means[:NUM_ENCODED], data.labels.cpu()
    colours = torch.tensor([to_rgb(colour) for colour in CLASS_COLOURS])[labels % num]
    ink = data.images.cpu() / (data.num_levels - 1)
    images = 1 - ink * (1 - colours.view(-1, 3, 1, 1))
    for writer in writers_of(trainer):
        writer.add_embedding(means, labels.tolist(), images, step, "latent_means")


class GenerateCallback(Callback):
    """Pictures of what the model has learned, for TensorBoard and, if wanted, as epoch_NN_*.png.

    Samples; after the first epoch also ten of each class; reconstructions of the first validation
    images, and their KL per latent dimension. All loggers get the number of active units.

    The seed is the same every time, so two epochs can be compared. The training's random stream is
    not used, so a run with pictures ends with the same weights as one without.

    Args:
        batch_size: samples per picture.
        every_n_epochs: epochs between pictures. There are always some before training, after the
            first epoch, and after the last one.
        save_to_disk: also write PNG files into the run's log directory.
    """

    def __init__(self, batch_size: int = 64, every_n_epochs: int = 5, save_to_disk: bool = False):
        super().__init__()
        self.batch_size = check_size("batch_size", batch_size)
        self.every_n_epochs = check_size("every_n_epochs", every_n_epochs)
        self.save_to_disk = save_to_disk

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 0:
            self.sample_and_save(trainer, pl_module, epoch=0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if epoch % self.every_n_epochs == 0 or epoch in (1, trainer.max_epochs):
            self.sample_and_save(trainer, pl_module, epoch)

    @torch.no_grad()
    def sample_and_save(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int
    ) -> None:
        """Makes the pictures; `epoch` is the number of epochs that have been trained."""
        folder, step = log_folder(trainer) if self.save_to_disk else None, log_step(trainer)
        bpd = trainer.callback_metrics.get("val_bpd")  # a mean over the processes: all must ask
        if not trainer.is_global_zero:
            return
        model, was_training = pl_module, pl_module.training
        when = epoch_line(epoch, bpd, model)
        digits = [*map(str, range(model.prior.num_classes))]
        names = [*getattr(trainer.datamodule, "classes", digits)][:10]
        model.eval()
        with isolate_rng():
            torch.manual_seed(SEED)
            z = model.sample_latents(self.batch_size)
            figures = {"Samples": samples_figure(model, z, f"Samples ({when})")}
            if epoch and len(names) > 1:
                labels = torch.arange(len(names), device=model.device).repeat_interleave(10)
                z, title = model.sample_latents(len(labels), labels), f"Samples by class ({when})"
                figures["Samples by class"] = samples_figure(model, z, title, names)
            if trainer.val_dataloaders is not None:
                images = first_images(trainer.val_dataloaders, NUM_ENCODED)
                mean, log_std = encoded(model, images)
                figures["KL per dimension"] = kl_figure(kl_per_dimension(mean, log_std).mean(dim=0))
                title = f"Reconstructions ({when})"
                figures["Reconstructions"] = reconstructions_figure(model, images[:32], title)
                log_now(trainer, {"val_active_units": float(active_units(mean))}, step)
        model.train(was_training)
        for name, figure in figures.items():
            digits = max(2, len(f"{trainer.max_epochs or 0}"))  # so that the names sort by epoch
            file = f"epoch_{epoch:0{digits}}_{name.lower().replace(' ', '_')}.png"
            show(trainer, name, figure, step, folder and folder / file)


class LossCurves(Callback):
    """`losses.png` in a run's folder: the columns of `metrics.csv`, drawn again each epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        run = run_of(trainer)
        if run and run.state.rows and trainer.is_global_zero:
            write_whole(run.folder / "losses.png", png(rendered(losses_figure(run.state.rows))))

    on_test_start = on_train_epoch_start  # after the last epoch
