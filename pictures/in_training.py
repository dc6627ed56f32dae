"""Pictures of a training: samples after some epochs, and where the latents are at its end."""

import math
from collections.abc import Iterable
from pathlib import Path

import pytorch_lightning as pl
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torchvision.utils import make_grid

from fmnist import DiscreteImages
from inputs.checks import check_size
from inputs.files import write_whole
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
from runs.logs import log_folder, log_now, log_step, run_of, writers_of
from utils import active_units, kl_per_dimension

NUM_ENCODED = 2000  # validation images that latents are judged by; test images in the projector
SEED = 0  # of all pictures of a run
PROJECTOR = """embeddings {
  tensor_name: "Latent means of test images"
  tensor_path: "projector/tensors.tsv"
  metadata_path: "projector/metadata.tsv"
  sprite {
    image_path: "projector/sprite.png"
    single_image_dim: 28
    single_image_dim: 28
  }
}
"""


def epoch_line(epoch: int, val_bpd: Tensor | None, model: nn.Module) -> str:
    """What pictures of a run say about the model that they show.

    With a beta that is not 1, also that val_bpd, that of the last validation, is the ELBO's.
    """
    when = f"epoch {epoch}" if epoch else "before training"
    if epoch and val_bpd is not None:
        bound = "last validation" if model.hparams.beta == 1 else "validation ELBO"
        when += f", {bound} {val_bpd:.4f} bpd"
    return when + beta_words(model)


@torch.no_grad()
def show_epoch(
    trainer: pl.Trainer, model: pl.LightningModule, epoch: int, num: int, save_to_disk: bool
) -> None:
    """What the model has learned, to TensorBoard and, with save_to_disk, as epoch_NN_*.png.

    Samples; ten of each class, once an epoch is trained; reconstructions and the KL of
    each latent dimension, of the first validation images. All loggers get the number of active
    units. Modes and torch's global random stream are left as they were.

    Args:
        epoch: how many have been trained.
        num: samples of any class.
    """
    folder, step = log_folder(trainer) if save_to_disk else None, log_step(trainer)
    bpd = trainer.callback_metrics.get("val_bpd")  # is averaged over the processes: all ask
    if not trainer.is_global_zero:
        return
    when, was_training = epoch_line(epoch, bpd, model), model.training
    digits = [*map(str, range(model.prior.num_classes))]
    names = [*getattr(trainer.datamodule, "classes", digits)][:10]
    model.eval()
    with isolate_rng():
        torch.manual_seed(SEED)
        z = model.sample_latents(num)
        figures = {"Samples": samples_figure(model, z, f"Samples ({when})")}
        if epoch and len(names) > 1:
            labels = torch.arange(len(names), device=model.device).repeat_interleave(10)
            z, title = model.sample_latents(len(labels), labels), f"Samples by class ({when})"
            figures["Samples by class"] = samples_figure(model, z, title, names)
        if trainer.val_dataloaders is not None:
            images = first_images(trainer.val_dataloaders, NUM_ENCODED)
            mean, log_std = encoded(model, images)
            figures["KL per dimension"] = kl_figure(kl_per_dimension(mean, log_std).mean(dim=0))
            shown, white = images[:32], model.hparams.num_levels - 1
            reconstructions = model.reconstruct(shown.to(model.device)).cpu()
            title = f"Reconstructions ({when})"
            figures["Reconstructions"] = pairs_figure(shown / white, reconstructions, title)
            log_now(trainer, {"val_active_units": float(active_units(mean))}, step)
    model.train(was_training)
    for name, figure in figures.items():
        digits = max(2, len(f"{trainer.max_epochs or 0}"))  # so that the names sort by epoch
        file = folder and folder / f"epoch_{epoch:0{digits}}_{name.lower().replace(' ', '_')}.png"
        show(trainer, name, figure, step, file)


def first_images(loader: Iterable, num: int) -> Tensor:
    """The first images of a loader's batches of images and labels: long [num, 1, H, W]."""
    found = []
    for imgs, *_ in loader:
        found.append(imgs.cpu())
        if sum(map(len, found)) >= num:
            break
    return torch.cat(found)[:num]


def encoded(model: nn.Module, images: Tensor) -> list[Tensor]:
    """mean and log_std of q(z|x), float [N, z_dim], on the CPU: of images [N, 1, H, W]."""
    parts = [model.encoder(imgs.long().to(model.device)) for imgs in images.split(500)]
    return [torch.cat(some).cpu() for some in zip(*parts, strict=True)]


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
    """Where the test set lies in the latent space and, for two dimensions, the manifold there.

    TensorBoard's projector gets the means of the first images, with labels and thumbnails.

    Args:
        data: the test set.
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
        for writer in writers_of(trainer):
            white = model.hparams.num_levels - 1
            write_projector(Path(writer.log_dir), means, data, white)
    if means.shape[1] == 2:
        figure = manifold_figure(model, f"The latent plane, decoded ({which})")
        show(trainer, "Manifold", figure, step, folder / "vae_manifold.png")
    latents = {"test_active_units": float(active_units(means))}
    log_now(trainer, latents, step)
    return latents


def write_projector(folder: Path, means: Tensor, data: DiscreteImages, white: int) -> None:
    """Latent means for TensorBoard's page "Projector": each as its image, in its class's colour.

    The page colours dots by a label only when it is told to; pictures it shows as they are. Those
    of SummaryWriter.add_embedding cannot be transparent beside the ink, and hide each other.

    Args:
        folder: where the event files are.
        means: float [N, z_dim], of the data, of which the first `NUM_ENCODED` are shown.
        white: the highest grey level.
    """
    images, labels = data.images[:NUM_ENCODED].cpu(), data.labels[:NUM_ENCODED].cpu()
    colours = torch.tensor([to_rgb(colour) for colour in CLASS_COLOURS])[labels % 10]
    ink = colours.view(-1, 3, 1, 1).expand(-1, -1, 28, 28)
    columns = math.ceil(math.sqrt(len(images)))
    sprite = make_grid(torch.cat([ink, images / white], dim=1), nrow=columns, padding=0)
    rows = ["\t".join(f"{z:.6g}" for z in mean) for mean in means[:NUM_ENCODED].tolist()]
    files = {
        "projector/tensors.tsv": "\n".join(rows).encode(),
        "projector/metadata.tsv": "\n".join(map(str, labels.tolist())).encode(),
        "projector/sprite.png": png((255 * sprite).round().byte().permute(1, 2, 0).numpy()),
        "projector_config.pbtxt": PROJECTOR.encode(),
    }
    (folder / "projector").mkdir(exist_ok=True)
    for name, content in files.items():
        write_whole(folder / name, content)


class GenerateCallback(Callback):
    """What the model has learned: samples, reconstructions, and what each latent dimension holds.

    Pictures are drawn from the same latents every time, so that two epochs can be compared, and
    from a random stream of their own, so that a run with pictures ends with the weights of one
    without.

    Args:
        batch_size: samples per picture.
        every_n_epochs: epochs between pictures; there are some before and after the first epoch
            and after the last one in any case.
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

    def sample_and_save(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int
    ) -> None:
        """Writes the pictures of this epoch; see `show_epoch`."""
        show_epoch(trainer, pl_module, epoch, self.batch_size, self.save_to_disk)


class LossCurves(Callback):
    """`losses.png` in a run's folder: what `metrics.csv` has, drawn anew for every epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        run = run_of(trainer)
        if run and run.state.rows and trainer.is_global_zero:
            write_whole(run.folder / "losses.png", png(rendered(losses_figure(run.state.rows))))

    on_test_start = on_train_epoch_start  # after the last epoch
