"""Pictures of images and of the latent space: grids, figures, and what the decoder makes of it."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchvision.utils import make_grid

from support.checks import check_floats
from utils import interpolate, mean_image


def pairs_grid(imgs: Tensor, reconstructions: Tensor) -> Tensor:
    """One picture: rows of eight images, each row over the row of their reconstructions.

    Args:
        imgs, reconstructions: float [N, 1, H, W] in [0, 1].
    Returns:
        float [3, height, width] in [0, 1].
    """
    pairs = torch.stack([imgs, reconstructions])
    return make_grid(torch.cat([row for eight in pairs.split(8, dim=1) for row in eight]), nrow=8)


def pairs_figure(imgs: Tensor, reconstructions: Tensor) -> Figure:
    """`pairs_grid` under a title."""
    figure = Figure(figsize=(6.4, 6.7), layout="constrained")
    axes = figure.add_subplot()
    grid = pairs_grid(imgs, reconstructions)
    axes.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_title("Images, each row over its reconstructions")
    axes.set_axis_off()
    return figure


def kl_figure(kl: Tensor) -> Figure:
    """What each latent dimension tells about an image, as bars, the most informative one first.

    Args:
        kl: float [z_dim], in nats, mean over images; see `kl_per_dimension`.
    """
    order = kl.argsort(descending=True)
    figure = Figure(figsize=(max(4.5, 0.25 * len(kl)), 3.5), layout="constrained")
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


def latent_figure(means: Tensor, labels: Tensor) -> Figure:
    """Each image at its posterior mean: the latent plane, or the principal one of more dimensions.

    Args:
        means: float [N, z_dim], z_dim >= 2.
        labels: long [N], classes 0..9, shown as colours.
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
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    size = 3 if len(means) > 2000 else 12
    how = {"cmap": "tab10", "vmin": -0.5, "vmax": 9.5, "s": size, "linewidths": 0}
    points = axes.scatter(*means.T.numpy(), c=labels.numpy(), **how)
    figure.colorbar(points, ticks=range(10), label="class")
    axes.set(xlabel=names[0], ylabel=names[1], aspect="equal")
    axes.set_title(f"Latent means of {len(means):,} images")
    return figure


def grid_figure(rows: list[Tensor], title: str, names: list[str] | None = None) -> Figure:
    """Rows of images under a title, each row with its name at the left.

    Args:
        rows: float [columns, 1, H, W] in [0, 1] each.
    """
    grid = make_grid(torch.cat(rows), nrow=len(rows[0]), padding=2, pad_value=0.25)
    height, width = grid.shape[1:]
    figure = Figure(figsize=(width / 45, height / 45 + 0.4), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_title(title)
    side = height // len(rows)
    axes.set_xticks([])
    axes.set_yticks([side // 2 + row * side for row in range(len(rows))], names or [""] * len(rows))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@torch.no_grad()
def decoded(decoder: nn.Module, z: Tensor) -> Tensor:
    """Mean images on the CPU: float [B, 1, H, W] in [0, 1]."""
    return mean_image(decoder(z.to(decoder.device))).cpu()


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
