"""Figures of images, of latents and of what latent dimensions hold, whatever model they are of."""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import make_grid

DPI = 128  # a power of two: so many pixels are exactly so many in inches too
ZOOM = 3  # pixels of a figure per pixel of an image: a digit of 28 is small to look at
MARGIN = 12  # pixels around images

# Matthew Petroff's ten colours ("Accessible color sequences for data visualization", 2021), which
# colour-blind people can tell apart; matplotlib has them as petroff10 from version 3.10 on. The
# greys are for the two digits that lie apart from the others.
CLASS_COLOURS = (
    *("#717581", "#94a4a2", "#832db6", "#3f90da", "#e76300"),
    *("#ffa90e", "#b9ac70", "#a96b59", "#bd1f01", "#92dadd"),
)
AT_EDGE = {"xycoords": "axes fraction", "fontsize": 8, "bbox": {"fc": "w", "ec": "none", "pad": 1}}
NTH = ("first", "second")
SHOWN = 2500  # images in a scatter at most: more would hide each other


def add_image(figure: Figure, image: Tensor, left: int, bottom: int, zoom: int = ZOOM) -> Axes:
    """Axes with an image, float [3, height, width] in [0, 1], without ticks.

    Each of its pixels is a square of zoom x zoom pixels of the figure.
    """
    width, height = figure.get_size_inches() * DPI
    side = zoom * image.shape[2] / width, zoom * image.shape[1] / height
    axes = figure.add_axes((left / width, bottom / height, *side), xticks=[], yticks=[])
    levels = (255 * image).round().clamp(0, 255).byte()  # floats just above 1 make it complain
    axes.imshow(levels.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    return axes


def image_figure(
    images: dict[str, Tensor],
    title: str,
    names: Sequence[str] = (),
    zoom: int = ZOOM,
    left: int = MARGIN,
    bottom: int = MARGIN,
) -> tuple[Figure, list[Axes]]:
    """Images side by side, each under its name; also returns their axes. See `add_image`.

    Args:
        images: float [3, height, width] in [0, 1] each, all of one size.
        names: of the rows of the first image.
        left, bottom: pixels left free for the labels of the axes.
    """
    height, width = (zoom * side for side in next(iter(images.values())).shape[1:])
    room = max(width, 600)  # what titles need
    top = 68 if any(images) else 44
    size = (left + len(images) * (room + MARGIN), top + height + bottom)
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI)
    centre = (left + size[0] - MARGIN) / 2
    figure.suptitle(title, fontsize=10, x=centre / size[0], y=1 - 12 / size[1])
    panels = []
    for n, (name, image) in enumerate(images.items()):
        beside = left + n * (room + MARGIN) + (room - width) // 2
        panels.append(add_image(figure, image, beside, bottom, zoom))
        panels[-1].set_title(name, fontsize=9, pad=4)
    if names:
        name_rows(panels[0], names)
    return figure, panels


def rendered(figure: Figure) -> np.ndarray:
    """The pixels of a figure, uint8 [height, width, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def png(picture: np.ndarray) -> bytes:
    """A PNG file of a picture, uint8 [height, width, 3], or 4 with alpha."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return file.getvalue()


def short(name: str) -> str:
    """A class's name, shortened for a figure, where $ would begin a formula."""
    return (name if len(name) <= 12 else f"{name[:11]}…").replace("$", r"\$")


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Writes names at the left of rows of images, all of one height."""
    low, high = sorted(axes.get_ylim())
    side = (high - low) / len(names)
    axes.set_yticks([low + (row + 0.5) * side for row in range(len(names))], names)


def pairs_grid(imgs: Tensor, reconstructions: Tensor) -> Tensor:
    """Rows of up to eight images, each over the row of their reconstructions.

    Both are float [N, 1, H, W] in [0, 1]. Returns one image, float [3, height, width].
    """
    pairs, columns = torch.stack([imgs, reconstructions]), min(8, len(imgs))
    empty = pairs.new_zeros(2, -len(imgs) % columns, *imgs.shape[1:])
    rows = torch.cat([pairs, empty], dim=1).split(columns, dim=1)
    return make_grid(torch.cat([row for both in rows for row in both]), nrow=columns)


def kl_figure(kl: Tensor) -> Figure:
    """The KL of each latent dimension as a bar, the largest first: float [z_dim], in nats.

    The scale ends at 4, 8, 16, ... nats, so that the pictures of a run can be compared.
    """
    order = kl.argsort(descending=True)
    figure = Figure(figsize=(max(4.5, 0.25 * len(kl)), 3.5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.bar(range(len(kl)), kl[order].tolist())
    axes.set_xticks(range(len(kl)), [*map(str, order.tolist())], fontsize=8)
    top = 4.0
    while top < kl.max():
        top *= 2
    axes.set(xlabel="latent dimension", ylabel="KL to N(0, 1) in nats per image", ylim=(0, top))
    axes.set_title(f"KL per latent dimension, {kl.sum():.1f} nats in all")
    return figure


def losses_figure(rows: Sequence[Mapping[str, str]]) -> Figure:
    """Reconstruction, KL and bits per dimension by epoch: the rows of `metrics.csv` as curves.

    Of three or more epochs the first is outside the scale, or it would make the others flat; its
    values are written at the edge. A line marks the epoch of the lowest validation bpd.
    """
    figure = Figure(figsize=(12, 3.6), dpi=DPI, layout="constrained")
    last = int(rows[-1]["epoch"])
    judged = [(float(row["val_bpd"]), int(row["epoch"])) for row in rows if row.get("val_bpd")]
    titles = {
        "reconstruction_loss": "Reconstruction, nats per image",
        "regularization_loss": "KL to N(0, I), nats per image",
        "bpd": "Bits per dimension",
    }
    for axes, (loss, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        prior = ", N(0, I)" if loss == "bpd" else ""
        curves = {f"training{prior}": (f"train_{loss}", "o--")}
        curves[f"validation{prior}"] = (f"val_{loss}", "o-")
        if loss == "bpd":
            curves["validation, learned prior"] = ("val_prior_bpd", "o-")
        every = []
        for label, (column, style) in curves.items():
            points = [(int(row["epoch"]), float(row[column])) for row in rows if row.get(column)]
            every += points
            if points:
                axes.plot(*zip(*points, strict=True), style, markersize=4, label=label)
        if judged:
            axes.axvline(min(judged)[1], color="0.5", linestyle=":", label="best epoch")
        later = [value for epoch, value in every if epoch > 1]
        if last > 2 and later:
            margin = 0.05 * (max(later) - min(later)) or 1
            low, high = min(later) - margin, max(later) + margin
            axes.set_ylim(low, high)
            outside = [f"{value:.4g}" for _, value in every if not low <= value <= high]
            edge, side = ("▲ ", "top") if any(v > high for _, v in every) else ("▼ ", "bottom")
            if outside:
                at = (0.02, 0.97 if side == "top" else 0.03)
                axes.annotate(edge + ", ".join(outside), at, va=side, **AT_EDGE)
        axes.set_title(title, fontsize=10)
        axes.set(xlabel="epoch", xlim=(0.5, last + 0.5))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    return figure


def principal_plane(points: Tensor) -> tuple[Tensor, Tensor]:
    """Points, float [N, D], on their first two principal components: float [N, 2].

    Also returns the share of the variance that each of the two explains, float [2].
    """
    centred = points - points.mean(dim=0)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:2].T, (singular.square() / singular.square().sum())[:2]


def discriminant_plane(points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Points on the two linear discriminants: the directions that best separate the class means.

    The points are first scaled to variance 1 within the classes; the discriminants are then the
    principal components of the class means (Fisher 1936; Rao 1948).

    Args:
        points: float [N, D], D >= 2.
        labels: long [N], of three classes or more.
    Returns:
        float [N, 2], in standard deviations within a class; float [2], the share of the variance of
        the means that each explains.
    """
    points = (points - points.mean(dim=0)).double()
    _, each, counts = labels.unique(return_inverse=True, return_counts=True)
    members = nn.functional.one_hot(each).double()
    means = members.T @ points / counts.unsqueeze(1)
    inner = points - means[each]
    variance, axes = torch.linalg.eigh(inner.T @ inner / len(points))
    to_unit = axes / (variance + 1e-4 * variance.mean() + 1e-12).sqrt()  # a variance may be 0
    _, singular, directions = torch.linalg.svd(means @ to_unit, full_matrices=False)
    shares = singular.square() / singular.square().sum().clamp(min=1e-12)
    return (points @ to_unit @ directions[:2].T).float(), shares[:2].float()


def pushed_apart(points: Tensor, distance: float) -> Tensor:
    """Points, float [N, 2], with those moved apart that are closer than the distance."""
    for _ in range(100):
        away = points.unsqueeze(1) - points
        length = away.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        points = points + (away / length * (distance - length).clamp(min=0) / 4).sum(dim=1)
    return points


def latent_figure(
    means: Tensor,
    labels: Tensor,
    title: str = "Latent means",
    classes: Sequence[str] = tuple("0123456789"),
) -> Figure:
    """A scatter of posterior means, coloured by class.

    More than two dimensions are projected: on the `discriminant_plane` of three or more classes,
    else on the `principal_plane`. Short class names are the markers, so that nobody needs to tell
    classes by colour alone.

    Args:
        means: float [N, z_dim], z_dim >= 2.
        labels: long [N], with `classes`, their names; without names, labels are not shown.
    """
    names, found = ["z[0]", "z[1]"], labels.unique().tolist()
    if means.shape[1] > 2:
        if classes and len(found) > 2:
            (means, shares), kind = discriminant_plane(means, labels), "linear discriminant"
            what = "what separates the classes"
        else:
            (means, shares), kind = principal_plane(means), "principal component"
            what = "the variance"
        names = [f"{nth} {kind} ({shares[n]:.0%} of {what})" for n, nth in enumerate(NTH)]
    width, height = (means.amax(dim=0) - means.amin(dim=0)).clamp(min=1e-6).tolist()
    longer = max(width, height)  # the figure is as wide as its data, or nearly
    size = [1 + 7.5 * max(0.5, side / longer) for side in (width, height)]
    figure = Figure(figsize=(size[0], size[1] + 0.5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    every = math.ceil(len(means) / SHOWN)
    colours = CLASS_COLOURS * math.ceil((max(found) + 1) / len(CLASS_COLOURS))
    as_names = bool(classes) and all(len(name) <= 2 and name.isalnum() for name in classes)
    for label in found:
        points = means[::every][labels[::every] == label].T.numpy()
        style = {"s": 8}
        if as_names:
            style = {"s": 28, "marker": f"${classes[label]}$", "linewidths": 0.4}
        axes.scatter(*points, color=colours[label], **style)
    if classes:
        centres = torch.stack([means[labels == label].median(dim=0).values for label in found])
        near = 0.05 * min(1, math.sqrt(10 / len(found))) * (means.amax() - means.amin()).item()
        centres = pushed_apart(centres, near).clamp(means.amin(dim=0), means.amax(dim=0))
        style = {"weight": "bold", "path_effects": [withStroke(linewidth=4, foreground="w")]}
        for label, centre in zip(found, centres.tolist(), strict=True):
            name, colour = short(classes[label]), "black" if as_names else colours[label]
            size = 20 if len(name) <= 2 else 12
            axes.text(*centre, name, ha="center", va="center", size=size, color=colour, **style)
    axes.set(xlabel=names[0], ylabel=names[1], aspect="equal")
    part = f"{len(means[::every]):,} of " if every > 1 else ""
    legend = f"{part}{len(means):,} images"
    if classes:
        legend += f"{', each as its class' if as_names else ''}; large: near the class's median"
    axes.set_title(f"{title}\n{legend}", fontsize=10)
    return figure


def grid_figure(rows: list[Tensor], title: str, names: Sequence[str] = ()) -> Figure:
    """Rows of images, float [columns, 1, H, W] in [0, 1] each, with names at the left."""
    grid = make_grid(torch.cat(rows), nrow=len(rows[0]), padding=2, pad_value=0.25)
    return image_figure({"": grid}, title, names, left=130 if names else MARGIN)[0]


def captioned_figure(rows: dict[str, Tensor], captions: list[str], title: str) -> Figure:
    """N columns of images, eight beside each other, each under a caption of up to three lines.

    rows: by name, float [N, 1, 28, 28] in [0, 1] each.
    """
    left, gap, side = 120, 76, ZOOM * 30  # pixels: for names, captions, an image with its edges
    block = gap + len(rows) * side + 2 * ZOOM
    width = left + max(480, min(8, len(captions)) * side) + 2 * MARGIN
    height = 50 + math.ceil(len(captions) / 8) * block
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    figure.suptitle(title, fontsize=9, y=1 - 10 / height)
    for start in range(0, len(captions), 8):
        beside = captions[start : start + 8]
        images = torch.cat([row[start : start + 8] for row in rows.values()])
        bottom = height - 44 - (start // 8 + 1) * block
        axes = add_image(figure, make_grid(images, nrow=len(beside)), left, bottom)
        name_rows(axes, list(rows))
        for column, caption in enumerate(beside):
            axes.text(30 * column + 16, -3, caption, ha="center", va="bottom", fontsize=7)
    return figure
