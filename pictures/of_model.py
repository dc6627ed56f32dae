"""Pictures of a model: its samples, what lies between two images, what a latent dimension draws."""

import math
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchvision.utils import make_grid

from fmnist import DiscreteImages
from inputs.checks import check_finite
from pictures.figures import (
    MARGIN,
    ZOOM,
    grid_figure,
    image_figure,
    kl_figure,
    latent_figure,
    pairs_grid,
    short,
)
from utils import manifold_grid, normal_percentiles

BATCH = 500  # images or latents at a time: it bounds the memory


def beta_words(model: nn.Module) -> str:
    """What titles say of the VAE's training loss: ", beta 4"; nothing if it was the ELBO."""
    beta = model.hparams.beta
    return "" if beta == 1 else f", beta {beta:g}"


def samples_figure(
    model: nn.Module, z: Tensor, title: str, names: Sequence[str] = (), draw: bool = True
) -> Figure:
    """The images of z, float [N, z_dim], in a square: drawn at the left, expected at the right.

    The drawing uses torch's global random stream; draw=False leaves it out. names: of the rows.
    """
    expected, white = mean_images(model, z), model.hparams.num_levels - 1
    images = {"expected grey levels": expected}
    if draw:
        images = {
            "drawn, each pixel on its own: hence the speckle": drawn_images(model, z) / white,
            "expected grey levels of the same z": expected,
        }
    columns = len(z) // len(names) if names else max(8, math.isqrt(len(z) - 1) + 1)
    grids = {name: make_grid(some, nrow=columns) for name, some in images.items()}
    zoom = ZOOM if len(z) <= 1000 else 1  # or thousands would take gigabytes
    names = [short(name) for name in names]
    left = 36 + 9 * (max(map(len, names)) - 1) if names else MARGIN
    return image_figure(grids, title, names, zoom, left)[0]


def manifold_figure(model: nn.Module, title: str, grid_size: int = 20) -> Figure:
    """The expected images of the `manifold_grid`, with the values of z[0] and z[1] at its axes."""
    grid = make_grid(mean_images(model, manifold_grid(grid_size)), nrow=grid_size, padding=0)
    name = "expected grey levels; every image stands for an equal share of N(0, I)"
    values = [f"{value:.2f}" for value in normal_percentiles(grid_size).tolist()]
    figure, (axes,) = image_figure({name: grid}, title, values[::-1], zoom=2, left=76, bottom=56)
    side = grid.shape[1] / grid_size
    axes.set_xticks([(n + 0.5) * side - 0.5 for n in range(grid_size)], values)
    axes.set(xlabel="z[0]", ylabel="z[1]")
    return figure


@torch.no_grad()
def mean_images(model: nn.Module, z: Tensor) -> Tensor:
    """Expected grey levels of latents, float [B, z_dim]: float [B, 1, H, W] in [0, 1], on the CPU.

    FloatingPointError if they are not finite numbers.
    """
    parts = z.to(model.device).split(BATCH)
    images = torch.cat([model.mean_image(part).cpu() for part in parts])
    check_finite(images)
    return images


def drawn_images(model: nn.Module, z: Tensor) -> Tensor:
    """`model.draw_pixels` of any number of latents: long [B, 1, H, W] on the CPU."""
    return torch.cat([model.draw_pixels(part).cpu() for part in z.split(BATCH)])


@torch.no_grad()
def encoded(model: nn.Module, images: Tensor) -> list[Tensor]:
    """mean and log_std of q(z|x), float [N, z_dim], on the CPU: of images [N, 1, H, W]."""
    parts = [model.encoder(imgs.long().to(model.device)) for imgs in images.split(BATCH)]
    return [torch.cat(some).cpu() for some in zip(*parts, strict=True)]


def reconstructions_figure(model: nn.Module, images: Tensor, title: str) -> Figure:
    """Images, whole numbers [N, 1, H, W], each over its reconstruction; see `pairs_grid`."""
    reconstructions = model.reconstruct(images.long().to(model.device)).cpu()
    grid = pairs_grid(images.cpu() / (model.hparams.num_levels - 1), reconstructions)
    name = "rows of images, each over the row of their reconstructions"
    return image_figure({name: grid}, title)[0]


def interpolation_rows(
    model: nn.Module, images: Tensor, labels: Tensor, mean: Tensor
) -> list[Tensor]:
    """A `way` from the first image of each of ten classes to that of the next class.

    Of images of a single class, the ways are between the first ten.

    Args:
        images: uint8 [N, 1, H, W], with labels, long [N].
        mean: float [N, z_dim], the images' posterior means.
    """
    starts = [(labels == label).int().argmax().item() for label in labels.unique()[:10]]
    if len(starts) == 1:
        starts = [*range(min(10, len(labels)))]
    pairs = zip(starts, starts[1:] + starts[:1], strict=True)
    return [way(model, images[one], images[other], mean[one], mean[other]) for one, other in pairs]


def way(model: nn.Module, image: Tensor, other: Tensor, mean: Tensor, to: Tensor) -> Tensor:
    """An image, ten decoded from the line between two posterior means, and another image.

    The images are [1, H, W], the means [z_dim]. Returns float [12, 1, H, W] in [0, 1] on the CPU.
    """
    line, white = torch.linspace(0, 1, 10, device=mean.device), model.hparams.num_levels - 1
    decoded = mean_images(model, mean.lerp(to, line.unsqueeze(1)))
    return torch.cat([image.unsqueeze(0) / white, decoded, other.unsqueeze(0) / white])


def traversal_rows(model: nn.Module, z: Tensor, dimensions: list[int]) -> list[Tensor]:
    """For each dimension, images [11, 1, H, W] of z, float [z_dim], with -3 to 3 in its place."""
    rows = []
    for dimension in dimensions:
        line = z.repeat(11, 1)
        line[:, dimension] = torch.linspace(-3, 3, len(line))
        rows.append(mean_images(model, line))
    return rows


@torch.no_grad()
def model_figures(
    model: nn.Module, data: DiscreteImages, mean: Tensor, kl: Tensor, seed: int
) -> dict[str, Figure]:
    """The figures of evaluate.py, by file name: what a model draws, what its latents mean.

    mean: float [N, z_dim], the posterior means. kl: float [z_dim], in nats.
    """
    torch.manual_seed(seed)
    z = model.sample_latents(64)
    most = kl.argsort(descending=True)[:8].tolist()
    beta = beta_words(model)
    title = f"Reconstructions{beta}"
    figures = {
        "samples": samples_figure(model, z, f"Samples, z from the learned prior{beta}"),
        "reconstructions": reconstructions_figure(model, data.images[:32], title),
        "interpolations": grid_figure(
            interpolation_rows(model, data.images, data.labels, mean),
            f"Interpolations between two images (outermost) along the latent line{beta}",
        ),
        "traversals": grid_figure(
            traversal_rows(model, mean[0], most),
            f"Traversals: one latent dimension of an image from -3 to 3{beta}",
            [f"z[{dimension}], {kl[dimension]:.1f} nats" for dimension in most],
        ),
        "kl_per_dimension": kl_figure(kl),
    }
    if model.prior.z_dim > 1 and len(mean) > 1:
        figures["latent_means"] = latent_figure(
            mean, data.labels, f"Latent means{beta}", data.classes
        )
    if model.prior.z_dim == 2:
        figures["manifold"] = manifold_figure(model, f"The latent plane, decoded{beta}")
    return figures
