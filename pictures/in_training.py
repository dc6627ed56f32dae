"""Pictures of a training: samples after some epochs, and where the latents are at its end."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torchvision.utils import make_grid

from boundary.files import write_whole
from fmnist import DiscreteImages
from pictures.figures import (
    CLASS_COLOURS,
    kl_figure,
    latent_figure,
    losses_figure,
    pairs_figure,
    png,
    rendered,
)
from pictures.of_model import beta_words, manifold_figure, samples_figure
from runs.logs import log_folder, log_now, writers_of
from runs.table import TABLE
from utils import active_units, kl_per_dimension


def epoch_line(epoch: int, val_bpd: Tensor | None, model: nn.Module) -> str:
    """What pictures of a run say about the model that they show.

    Args:
        val_bpd: of the last validation, a scalar.
        model: the VAE; a beta that is not 1 is named, and that the bound is the ELBO all the same.
    """
    when = f"epoch {epoch}" if epoch or model.prior.is_trained else "epoch 0: untrained"
    if epoch and val_bpd is not None:
        bound = "last validation" if model.hparams.beta == 1 else "validation ELBO"
        when += f", {bound} {val_bpd:.4f} bpd"
    return when + beta_words(model)


def first_images(loader: Iterable, num: int) -> Tensor:
    """The first images of a loader's batches of images and labels: long [num, 1, H, W]."""
    found = []
    for imgs, *_ in loader:
        found.append(imgs[: num - sum(map(len, found))].cpu())
        if sum(map(len, found)) == num:
            break
    return torch.cat(found)


def epoch_samples(
    model: nn.Module, num: int, when: str, classes: Sequence[str]
) -> dict[str, Figure]:
    """Samples of a model in training and, once its prior has learned something, ten of each class.

    Args:
        model: the VAE; it takes from torch's global random stream.
        num: how many, of any class.
        when: what stands behind the titles, see `epoch_line`.
        classes: the names of the classes, of which the first ten are shown; none or one is no
            reason to show any.
    """
    figures = {
        "images/Samples": samples_figure(model, model.sample_latents(num), f"Samples ({when})")
    }
    names = list(classes[:10])
    if model.prior.is_trained and len(names) > 1:
        labels = torch.arange(len(names), device=model.device).repeat_interleave(10)
        z = model.sample_latents(len(labels), labels)
        by_class = samples_figure(model, z, f"Samples by class ({when})", names)
        figures["images/Samples by class"] = by_class
    return figures


@torch.no_grad()
def epoch_latents(model: nn.Module, images: Tensor, when: str) -> tuple[dict[str, Figure], int]:
    """What the encoder makes of images, long [N, 1, H, W]: figures, and how many units are active.

    The figures are the mean KL of each latent dimension and the first 32 reconstructions.
    """
    encoded = [model.encoder(part.to(model.device)) for part in images.split(500)]
    mean, log_std = (torch.cat(part) for part in zip(*encoded, strict=True))
    kl, shown = kl_per_dimension(mean, log_std).mean(dim=0).cpu(), images[:32]
    reconstructions = model.reconstruct(shown.to(model.device)).cpu()
    figures = {
        "images/KL per dimension": kl_figure(kl),
        "images/Reconstructions": pairs_figure(
            shown / 15, reconstructions, f"Reconstructions ({when})"
        ),
    }
    return figures, active_units(mean)


def write_figures(
    trainer: pl.Trainer, figures: dict[str, Figure], step: int, epoch: int, folder: Path | None
) -> None:
    """Figures by their tags, images/*, to TensorBoard and, with a folder, to epoch_N_*.png."""
    for tag, figure in figures.items():
        picture = show(trainer, tag, figure, step)
        if folder is not None:
            name = tag.removeprefix("images/").lower().replace(" ", "_")
            write_whole(folder / f"epoch_{epoch}_{name}.png", png(picture))


def show(trainer: pl.Trainer, tag: str, figure: Figure, step: int) -> np.ndarray:
    """Gives a figure to TensorBoard; returns its pixels, uint8 [height, width, 3]."""
    picture = rendered(figure)
    for writer in writers_of(trainer):
        writer.add_image(tag, picture, step, dataformats="HWC")
    return picture


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
    bound = "test" if model.hparams.beta == 1 else "test ELBO"
    which = "the run's best model" + ("" if bpd is None else f", {bound} {bpd:.4f} bpd")
    which += beta_words(model)
    images, labels = data.images, data.labels.cpu()
    batches = images.split(500)
    means = torch.cat([model.encoder(imgs.long().to(model.device))[0] for imgs in batches]).cpu()
    if means.shape[1] > 1:
        title = f"Latent means of the test images ({which})"
        figure = latent_figure(means, labels, title, data.classes)
        picture = show(trainer, "images/Latent means", figure, step)
        write_whole(folder / "latent_means.png", png(picture))
        for writer in writers_of(trainer):
            write_projector(Path(writer.log_dir), means[:2000], images[:2000].cpu(), labels[:2000])
    if means.shape[1] == 2:
        figure = manifold_figure(model.decoder, f"The latent plane, decoded ({which})")
        picture = show(trainer, "images/Manifold", figure, step)
        write_whole(folder / "vae_manifold.png", png(picture))
    latents = {"test_active_units": float(active_units(means))}
    log_now(trainer, latents, trainer.global_step)  # beside Lightning's test result
    return latents


def write_projector(folder: Path, means: Tensor, images: Tensor, labels: Tensor) -> None:
    """Latent means for TensorBoard's page "Projector": each as its image, in its class's colour.

    The page colours dots by a label only when it is told to; pictures it shows as they are.

    Args:
        folder: where the event files are.
        means: float [N, z_dim].
        images: uint8 [N, 1, H, W], values 0..15, with labels, long [N].
    """
    (folder / "projector").mkdir(exist_ok=True)
    rows = ["\t".join(f"{z:.6g}" for z in mean) for mean in means.tolist()]
    write_whole(folder / "projector" / "tensors.tsv", "\n".join(rows).encode())
    names = "\n".join(map(str, labels.tolist()))
    write_whole(folder / "projector" / "metadata.tsv", names.encode())
    colours = torch.tensor([to_rgb(colour) for colour in CLASS_COLOURS])[labels % 10]
    ink = colours.view(-1, 3, 1, 1).expand(-1, -1, *images.shape[2:])
    columns = math.isqrt(len(images) - 1) + 1
    sprite = make_grid(torch.cat([ink, images / 15], dim=1), nrow=columns, padding=0)
    picture = (255 * sprite).round().byte().permute(1, 2, 0).numpy()
    write_whole(folder / "projector" / "sprite.png", png(picture))
    height, width = images.shape[2:]
    config = f"""embeddings {{
  tensor_name: "Latent means of test images"
  tensor_path: "projector/tensors.tsv"
  metadata_path: "projector/metadata.tsv"
  sprite {{
    image_path: "projector/sprite.png"
    single_image_dim: {width}
    single_image_dim: {height}
  }}
}}
"""
    write_whole(folder / "projector_config.pbtxt", config.encode())


class LossCurves(Callback):
    """`losses.png` in a run's folder: what `metrics.csv` has, drawn anew for every epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        folder = log_folder(trainer)
        if trainer.is_global_zero and (folder / TABLE).exists():
            with open(folder / TABLE, newline="") as file:
                rows = [*csv.DictReader(file)]
            if rows:
                write_whole(folder / "losses.png", png(rendered(losses_figure(rows))))

    on_test_start = on_train_epoch_start  # after the last epoch
