"""Pictures of a training: samples after some epochs, and where the latents are at its end."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from boundary.files import write_whole
from fmnist import DiscreteImages
from pictures.figures import kl_figure, latent_figure, pairs_figure, png, rendered
from pictures.of_model import beta_words, manifold_figure, samples_figure
from runs.logs import log_folder, log_now, writers_of
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
        "latents/KL per dimension": kl_figure(kl),
        "images/Reconstructions": pairs_figure(
            shown / 15, reconstructions, f"Reconstructions ({when})"
        ),
    }
    return figures, active_units(mean)


def write_figures(
    trainer: pl.Trainer, figures: dict[str, Figure], step: int, epoch: int, folder: Path | None
) -> None:
    """Figures by their tags to TensorBoard; where there is a folder, images/* to epoch_N_*.png."""
    for tag, figure in figures.items():
        picture = rendered(figure)
        for writer in writers_of(trainer):
            writer.add_image(tag, picture, step, dataformats="HWC")
        page, name = tag.split("/")
        if folder is not None and page == "images":
            name = name.lower().replace(" ", "_")
            write_whole(folder / f"epoch_{epoch}_{name}.png", png(picture))


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
    writers = writers_of(trainer)
    images, labels = data.images, data.labels.cpu()
    batches = images.split(500)
    means = torch.cat([model.encoder(imgs.long().to(model.device))[0] for imgs in batches]).cpu()
    if means.shape[1] > 1:
        title = f"Latent means of the test images ({which})"
        figure = latent_figure(means, labels, title, data.classes)
        write_whole(folder / "latent_means.png", png(rendered(figure)))
        thumbnails = images[:2000].cpu().expand(-1, 3, -1, -1) / 15
        for writer in writers:
            writer.add_figure("latents/Means", figure, step)
            writer.add_embedding(
                means[:2000], labels[:2000].tolist(), thumbnails, step, tag="Latent means"
            )
    if means.shape[1] == 2:
        figure = manifold_figure(model.decoder, f"The latent plane, decoded ({which})")
        write_whole(folder / "vae_manifold.png", png(rendered(figure)))
        for writer in writers:
            writer.add_figure("latents/Manifold", figure, step)
    latents = {"test_active_units": float(active_units(means))}
    log_now(trainer, latents, trainer.global_step)  # beside Lightning's test result
    return latents
