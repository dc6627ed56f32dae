"""Pictures of images and of the latent space: grids, figures, and what the decoder makes of it."""

import math

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor, nn
from torchvision.utils import make_grid

from boundary.checks import check_finite, check_floats
from fmnist import DiscreteImages
from runs.logs import log_folder, log_now, writers_of
from utils import active_units, interpolate, mean_image, normal_percentiles, visualize_manifold

DPI = 128  # a power of two: so many pixels are exactly so many in inches too
ZOOM = 3  # pixels of a figure per pixel of an image: a digit of 28 is small to look at
MARGIN = 12  # pixels around images

# Matthew Petroff's ten colours ("Accessible color sequences for data visualization", 2021), since
# version 3.10 also matplotlib's petroff10, which colour-blind people can tell apart too. The greys
# are for the two digits that have a place to themselves.
CLASS_COLOURS = (
    *("#717581", "#94a4a2", "#832db6", "#3f90da", "#e76300"),
    *("#ffa90e", "#b9ac70", "#a96b59", "#bd1f01", "#92dadd"),
)
DECODER_BATCH = 500  # latents decoded at a time: the memory that any number of images needs
SHOWN = 2500  # images in a scatter at most: of more, one hides the other


def epoch_line(epoch: int, val_bpd: Tensor | None, learned: bool) -> str:
    """What pictures of a run say about the model that they show.

    Args:
        val_bpd: of the last validation, a scalar.
        learned: whether it has learned anything so far.
    """
    if epoch == 0:
        return "epoch 0" if learned else "epoch 0: untrained"
    return f"epoch {epoch}" + ("" if val_bpd is None else f", last validation {val_bpd:.4f} bpd")


def image_figure(
    images: dict[str, Tensor],
    title: str,
    zoom: int = ZOOM,
    left: int = MARGIN,
    bottom: int = MARGIN,
) -> tuple[Figure, list[Axes]]:
    """Images side by side, each under its name, every pixel of them a square of whole pixels.

    Args:
        images: float [3, height, width] in [0, 1] each, all of one size.
        title: of all of them.
        zoom: the side of the squares.
        left, bottom: pixels that are free beside and below the images, for what stands at the axes.
    Returns:
        the figure and the axes of each image, without ticks.
    """
    height, width = (zoom * side for side in next(iter(images.values())).shape[1:])
    room = max(width, 520)  # what titles need
    top = 68 if any(images) else 44
    size = (left + len(images) * (room + MARGIN), top + height + bottom)
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI)
    centre = (left + size[0] - MARGIN) / 2
    figure.suptitle(title, fontsize=10, x=centre / size[0], y=1 - 12 / size[1])
    panels = []
    for n, (name, image) in enumerate(images.items()):
        x = left + n * (room + MARGIN) + (room - width) // 2
        place = (x / size[0], bottom / size[1], width / size[0], height / size[1])
        axes = figure.add_axes(place, xticks=[], yticks=[])
        levels = (255 * image).round().clamp(0, 255).byte()  # floats just above 1 make it complain
        axes.imshow(levels.permute(1, 2, 0).numpy(), interpolation="nearest")
        axes.set_title(name, fontsize=9, pad=4)
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
        panels.append(axes)
    return figure, panels


def rendered(figure: Figure) -> np.ndarray:
    """The pixels of a figure, uint8 [height, width, 3], for all that want it as a picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def name_rows(axes: Axes, names: list[str]) -> None:
    """Names at the left of rows of images that are equally high."""
    low, high = sorted(axes.get_ylim())
    side = (high - low) / len(names)
    axes.set_yticks([low + (row + 0.5) * side for row in range(len(names))], names)


def pairs_grid(imgs: Tensor, reconstructions: Tensor) -> Tensor:
    """One picture: rows of eight images, each row over the row of their reconstructions.

    Args:
        imgs, reconstructions: float [N, 1, H, W] in [0, 1].
    Returns:
        float [3, height, width] in [0, 1].
    """
    pairs = torch.stack([imgs, reconstructions])
    return make_grid(torch.cat([row for eight in pairs.split(8, dim=1) for row in eight]), nrow=8)


def pairs_figure(imgs: Tensor, reconstructions: Tensor, title: str) -> Figure:
    """`pairs_grid` under a title."""
    name = "rows of images, each over the row of their reconstructions"
    return image_figure({name: pairs_grid(imgs, reconstructions)}, title)[0]


def samples_figure(
    model: nn.Module, z: Tensor, title: str, names: list[str] | None = None, draw: bool = True
) -> Figure:
    """New images in rows of eight, or in a square of more: drawn, and beside it the expected ones.

    Args:
        model: has a `decoder`, and `draw_pixels`, which takes from torch's global random stream.
        z: float [N, z_dim].
        names: of the rows.
        draw: False leaves the drawn ones out.
    """
    expected = decoded(model.decoder, z)
    images = {"expected grey levels": expected}
    if draw:
        images = {
            "drawn, each pixel on its own: hence the speckle": drawn(model, z) / 15,
            "expected grey levels of the same z": expected,
        }
    columns = max(8, math.isqrt(len(z) - 1) + 1)
    grids = {name: make_grid(some, nrow=columns) for name, some in images.items()}
    zoom = ZOOM if len(z) <= 1000 else 1  # or thousands would take gigabytes
    figure, panels = image_figure(grids, title, zoom, left=36 if names else MARGIN)
    if names:
        name_rows(panels[0], names)
    return figure


def epoch_samples(model: nn.Module, num: int, when: str) -> dict[str, Figure]:
    """Samples of a model in training and, once its prior has learned something, ten of each class.

    Args:
        model: the VAE; it takes from torch's global random stream.
        num: how many, of any class.
        when: what stands behind the titles, see `epoch_line`.
    """
    z = model.prior.sample(num, None, model.TEMPERATURE)
    figures = {"Samples": samples_figure(model, z, f"Samples ({when})")}
    if model.prior.learned:
        digits = torch.arange(10, device=z.device).repeat_interleave(10)
        z, names = model.prior.sample(100, digits, model.TEMPERATURE), [*"0123456789"]
        by_class = samples_figure(model, z, f"Samples by class ({when})", names)
        figures["Samples by class"] = by_class
    return figures


def kl_figure(kl: Tensor) -> Figure:
    """What each latent dimension tells about an image, as bars, the most informative one first.

    Args:
        kl: float [z_dim], in nats, mean over images; see `kl_per_dimension`.
    """
    order = kl.argsort(descending=True)
    figure = Figure(figsize=(max(4.5, 0.25 * len(kl)), 3.5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.bar(range(len(kl)), kl[order].tolist())
    axes.set_xticks(range(len(kl)), [str(d + 1) for d in order.tolist()], fontsize=8)
    axes.set(xlabel="latent dimension", ylabel="KL to the prior in nats per image")
    axes.set_title(f"KL per latent dimension, {kl.sum():.1f} nats in all")
    return figure


def principal_plane(points: Tensor) -> tuple[Tensor, Tensor]:
    """The two directions in which points vary most, by singular value decomposition.

    Args:
        points: float [N, D], D >= 2.
    Returns:
        float [N, 2], the points' coordinates on their first two principal components, and
        float [2], the share of the points' variance that each component explains.
    """
    check_floats("points", "[N, D]", 2, points)
    if points.ndim != 2 or min(points.shape) < 2 or not bool(points.isfinite().all()):
        raise ValueError(
            f"points: expected finite [N, D] with N and D of at least 2, got {list(points.shape)}"
            f"{'' if bool(points.isfinite().all()) else ' with NaN or infinity'}"
        )
    centred = points - points.mean(dim=0)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:2].T, (singular.square() / singular.square().sum())[:2]


def pushed_apart(points: Tensor, distance: float) -> Tensor:
    """Points in the plane, float [N, 2], those that are too close moved away from each other."""
    for _ in range(100):
        away = points.unsqueeze(1) - points
        length = away.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        points = points + (away / length * (distance - length).clamp(min=0) / 4).sum(dim=1)
    return points


def latent_figure(means: Tensor, labels: Tensor, title: str = "Latent means") -> Figure:
    """Each image at its posterior mean: the latent plane, or the principal one of more dimensions.

    Every image is its class's number, so that nobody has to tell classes by colour alone.

    Args:
        means: float [N, z_dim], z_dim >= 2.
        labels: long [N], classes 0..9.
    """
    check_floats("means", "[N, z_dim]", 2, means)
    if means.shape[1] < 2 or labels.shape != means.shape[:1]:
        raise ValueError(
            "expected means [N, z_dim], z_dim >= 2, and labels [N], got "
            f"{list(means.shape)} and {list(labels.shape)}"
        )
    if not bool(means.isfinite().all()):
        raise ValueError("means: expected finite values, got NaN or infinity")
    names = ["$z_1$", "$z_2$"]
    if means.shape[1] > 2:
        means, shares = principal_plane(means)
        names = [f"principal component {n + 1} ({shares[n]:.0%} of the variance)" for n in (0, 1)]
    figure = Figure(figsize=(8.5, 8.5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    every = math.ceil(len(means) / SHOWN)
    shown, shown_labels = means[::every], labels[::every]
    for label in shown_labels.unique().tolist():
        how = {"marker": f"${label}$", "s": 28, "linewidths": 0.4}
        axes.scatter(*shown[shown_labels == label].T.numpy(), color=CLASS_COLOURS[label], **how)
    classes = labels.unique().tolist()
    centres = torch.stack([means[labels == label].median(dim=0).values for label in classes])
    centres = pushed_apart(centres, distance=0.05 * (means.amax() - means.amin()).item())
    for label, centre in zip(classes, centres.tolist(), strict=True):
        how = {"ha": "center", "va": "center", "fontsize": 20, "weight": "bold"}
        axes.text(
            *centre, str(label), path_effects=[withStroke(linewidth=4, foreground="w")], **how
        )
    axes.set(xlabel=names[0], ylabel=names[1], aspect="equal")
    part = f"{len(shown):,} of {len(means):,}" if every > 1 else f"{len(means):,}"
    how = f"{part} images, each as the number of its class; large: near the class's median"
    axes.set_title(f"{title}\n{how}", fontsize=10)
    return figure


def grid_figure(rows: list[Tensor], title: str, names: list[str] | None = None) -> Figure:
    """Rows of images under a title, each row with its name at the left.

    Args:
        rows: float [columns, 1, H, W] in [0, 1] each.
    """
    grid = make_grid(torch.cat(rows), nrow=len(rows[0]), padding=2, pad_value=0.25)
    figure, (axes,) = image_figure({"": grid}, title, left=130 if names else MARGIN)
    if names:
        name_rows(axes, names)
    return figure


def manifold_figure(decoder: nn.Module, title: str, grid_size: int = 20) -> Figure:
    """`visualize_manifold` with the values of z_1 and z_2 at its axes; see there."""
    grid = visualize_manifold(decoder, grid_size).cpu()
    name = "expected grey levels; every image stands for an equal share of N(0, I)"
    figure, (axes,) = image_figure({name: grid}, title, zoom=2, left=76, bottom=56)
    values = [f"{value:.2f}" for value in normal_percentiles(grid_size).tolist()]
    side = grid.shape[1] / grid_size
    axes.set_xticks([(n + 0.5) * side - 0.5 for n in range(grid_size)], values)
    name_rows(axes, values[::-1])
    axes.set(xlabel="$z_1$", ylabel="$z_2$")
    return figure


@torch.no_grad()
def decoded(decoder: nn.Module, z: Tensor) -> Tensor:
    """Mean images of latents, float [B, z_dim], on the CPU: float [B, 1, H, W] in [0, 1]."""
    parts = z.to(decoder.device).split(DECODER_BATCH)
    images = torch.cat([mean_image(decoder(part)).cpu() for part in parts])
    check_finite(images)
    return images


def drawn(model: nn.Module, z: Tensor) -> Tensor:
    """`model.draw_pixels` of any number of latents, on the CPU: long [B, 1, H, W], 0..15."""
    return torch.cat([model.draw_pixels(part).cpu() for part in z.split(DECODER_BATCH)])


def interpolation_rows(
    decoder: nn.Module, images: Tensor, labels: Tensor, mean: Tensor
) -> list[Tensor]:
    """From the first image of each class to that of the next one, along the latent line.

    Args:
        images: uint8 [N, 1, H, W], values 0..15, with labels, long [N].
        mean: float [N, z_dim], the images' posterior means.
    Returns:
        a row for each class, float [12, 1, H, W] in [0, 1]: an image, ten decoded ones, an image.
    """
    starts = torch.tensor([(labels == label).int().argmax() for label in labels.unique()])
    ends = starts.roll(-1)
    lines = interpolate(mean[starts], mean[ends], num_steps=10)
    outermost = zip(images[starts].split(1), images[ends].split(1), strict=True)
    return [
        torch.cat([start / 15, decoded(decoder, line), end / 15])
        for line, (start, end) in zip(lines, outermost, strict=True)
    ]


def traversal_rows(decoder: nn.Module, z: Tensor, dimensions: list[int]) -> list[Tensor]:
    """What one latent dimension draws: z, float [z_dim], with -3 to 3 in its place.

    Returns:
        a row for each of the dimensions, float [11, 1, H, W] in [0, 1].
    """
    rows = []
    for dimension in dimensions:
        line = z.repeat(11, 1)
        line[:, dimension] = torch.linspace(-3, 3, len(line))
        rows.append(decoded(decoder, line))
    return rows


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
