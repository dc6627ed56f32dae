"""Pictures of a model: its samples, what lies between two images, what a latent dimension draws."""

import math

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchvision.utils import make_grid

from boundary.checks import check_finite
from pictures.figures import MARGIN, ZOOM, image_figure, name_rows
from utils import interpolate, mean_image, normal_percentiles, visualize_manifold

DECODER_BATCH = 500  # latents decoded at a time: the memory that any number of images needs


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
