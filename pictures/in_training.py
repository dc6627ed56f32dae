"""Pictures of a training: samples after some epochs, and where the latents are at its end."""

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from fmnist import DiscreteImages
from pictures.figures import latent_figure
from pictures.of_model import manifold_figure, samples_figure
from runs.logs import log_folder, log_now, writers_of
from utils import active_units


def epoch_line(epoch: int, val_bpd: Tensor | None, learned: bool) -> str:
    """What pictures of a run say about the model that they show.

    Args:
        val_bpd: of the last validation, a scalar.
        learned: whether it has learned anything so far.
    """
    if epoch == 0:
        return "epoch 0" if learned else "epoch 0: untrained"
    return f"epoch {epoch}" + ("" if val_bpd is None else f", last validation {val_bpd:.4f} bpd")


def epoch_samples(model: nn.Module, num: int, when: str) -> dict[str, Figure]:
    """Samples of a model in training and, once its prior has learned something, ten of each class.

    Args:
        model: the VAE; it takes from torch's global random stream.
        num: how many, of any class.
        when: what stands behind the titles, see `epoch_line`.
    """
    z = model.sample_latents(num)
    figures = {"Samples": samples_figure(model, z, f"Samples ({when})")}
    if model.prior.is_trained:
        digits = torch.arange(10, device=z.device).repeat_interleave(10)
        z, names = model.sample_latents(100, digits), [*"0123456789"]
        by_class = samples_figure(model, z, f"Samples by class ({when})", names)
        figures["Samples by class"] = by_class
    return figures


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
