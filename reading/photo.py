"""One picture: its grey levels, and the things on it as MNIST's digits are, 20x20 in 28x28 pixels.

page/paper.js does the same with a photo, step by step.
"""

import warnings
from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageOps

from fmnist import SIDE
from inputs.command_line import one_line

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # some others run code
HEIF = (".heic", ".heif")
BOX = 20  # pixels of the box that MNIST's digits are fitted into
LIGHT = 127  # grey levels above are light
LOOKED_AT, CELLS = 512, 64  # pixels of a photo's longer side; squares that things are told apart by
FAINT = 0.12  # the share of the way from the paper to the darkest below which there is no ink


def needed(module: str, package: str, what: str) -> ModuleType:
    """A module that only one kind of file needs; ImportError names its package."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{what} need the package {package}: pip install {package}") from error


def things_in(path: Path, like_mnist: bool | None) -> list[np.ndarray]:
    """The things in a picture of any colours and size: uint8 [28, 28] in 0..255, light on dark.

    Args:
        like_mnist: True, take it for a photo, see `photographed`; False, all of it is one thing,
            which becomes as large as it can be; None, that for 28x28 pixels, else a photo.
    Raises:
        ValueError: it is none, or nothing is on it; the message is one line.
        ImportError: a package is needed for it.
    """
    grey = read_grey(path)
    if like_mnist or (like_mnist is None and grey.shape != (SIDE, SIDE)):
        if found := photographed(grey):
            return found
        raise ValueError("no strokes stand out on it")
    return [fitted(light_on_dark(grey))]


def read_grey(file: Path | BytesIO) -> np.ndarray:
    """A picture in any colours, as uint8 [H, W] in 0..255; raises as `things_in`.

    What is transparent is background: light, if the rest is dark, and the other way round.
    """
    formats = FORMATS
    if isinstance(file, Path) and file.suffix.lower() in HEIF:
        needed("pillow_heif", "pillow-heif", f"{file.suffix} pictures").register_heif_opener()
        formats = ("HEIF",)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=formats) as opened:
            picture = ImageOps.exif_transpose(opened)
    except Image.UnidentifiedImageError as error:
        raise ValueError("it is of none of the kinds that are read") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises all kinds of them where a file is damaged
        raise ValueError(one_line(getattr(error, "strerror", None) or error)) from error
    if picture.mode.startswith(("I", "F")):
        raise ValueError("it has more than 8 bits for a colour: save it with 8")
    if not picture.has_transparency_data:
        return np.asarray(picture.convert("L"))
    grey, opaque = np.moveaxis(np.asarray(picture.convert("RGBA").convert("LA"), float), 2, 0)
    opaque /= 255
    dark = (grey * opaque).sum() <= LIGHT * opaque.sum()
    return (grey * opaque + 255 * dark * (1 - opaque)).round().astype(np.uint8)


def photographed(grey: np.ndarray) -> list[np.ndarray]:
    """The things on a photo of paper, each as MNIST's digits are.

    The paper is what stays where all that is narrower than two sevenths of the photo is taken away
    (an opening, Serra 1982): shadows and the edge of a table stay, strokes do not. Whether they are
    dark or light is told by the third moment around local means, as strokes are few and far off.

    Args:
        grey: uint8 [H, W] of any size, dark on light or light on dark.
    Returns:
        uint8 [28, 28] each, light on dark: the largest thing near the middle, then those at least
        half as large, from left to right. None where nothing stands out.
    """
    step = -(-max(grey.shape) // LOOKED_AT)
    height, width = (side // step for side in grey.shape)
    blocks = grey[: height * step, : width * step].reshape(height, step, width, step)
    seen = blocks.mean(axis=(1, 3))
    smooth, radius = windowed(seen, 1, np.mean), max(1, max(seen.shape) // 7)
    nearness = np.outer(*(1 - (np.arange(0.5, n) / n * 2 - 1) ** 2 for n in seen.shape))
    if (nearness * (smooth - windowed(smooth, radius, np.mean)) ** 3).sum() < 0:
        seen, smooth = 255 - seen, 255 - smooth
    paper = windowed(windowed(smooth, radius, np.min), radius, np.max)
    ink, smooth = ((part - paper).clip(0) / (256 - paper) for part in (seen, smooth))
    if smooth.max() < FAINT:
        return []
    side = -(-max(seen.shape) // CELLS)
    marked = np.pad(smooth > 0.3 * smooth.max(), [(0, -n % side) for n in seen.shape])
    marked = marked.reshape(-(-height // side), side, -(-width // side), side).any(axis=(1, 3))
    found = []
    for thing in things(marked):
        near = np.zeros(marked.shape, bool)
        near[tuple(thing.T)] = True
        near = windowed(near, 1, np.max).repeat(side, 0).repeat(side, 1)[:height, :width]
        strokes = near * ((ink / (smooth * near).max() - 0.2) * 2).clip(0, 1)
        found.append(centred(strokes, strokes > 0.3))
    return found


def windowed(values: np.ndarray, radius: int, what: Callable) -> np.ndarray:
    """np.min, np.max or np.mean of all values of [H, W] up to a radius away, along both axes."""
    for axis in (0, 1):
        widths = [(radius, radius) if axis == n else (0, 0) for n in (0, 1)]
        padded = np.pad(values, widths, "edge")
        values = what(sliding_window_view(padded, 2 * radius + 1, axis), axis=-1)
    return values


def things(marked: np.ndarray) -> list[np.ndarray]:
    """Groups of touching squares, each with its strokes that stand apart; see `photographed`.

    Args:
        marked: bool [H, W].
    Returns:
        int [n, 2] each, rows and columns.
    """

    def at_edge(group: np.ndarray) -> bool:
        return group.min() == 0 or (group.max(axis=0) == np.array(marked.shape) - 1).any()

    def weight(group: np.ndarray) -> float:
        """Its size, less far from the middle, and hardly anything at the edge."""
        away = np.abs((group.mean(axis=0) + 0.5) / marked.shape - 0.5).max()
        return len(group) * (1 - 1.6 * away) * (0.02 if at_edge(group) else 1)

    left, groups = dict.fromkeys(map(tuple, np.argwhere(marked).tolist())), []
    while left:
        group = [left.popitem()[0]]
        for row, column in group:  # which grows while it is gone through
            near = [(row + n // 3 - 1, column + n % 3 - 1) for n in range(9)]
            group += [place for place in near if left.pop(place, True) is None]
        groups.append(np.array(group))
    whole = []
    for group in sorted(groups, key=weight, reverse=True):
        for n, thing in enumerate(whole):
            low, high = thing.min(axis=0), thing.max(axis=0)
            reach = max(1, 0.2 * (high - low + 1).max())
            first, last = group.min(axis=0), group.max(axis=0)
            inside = (first >= low - reach).all() and (last <= high + reach).all()
            beside = (last >= low - reach).all() and (first <= high + reach).all()
            flat = 2 * (last - first)[0] < (high - low)[0] and not at_edge(group)
            if inside or (beside and flat):  # as the bar of a 5
                whole[n] = np.concatenate([thing, group])
                break
        else:
            whole.append(group)
    least, size = weight(whole[0]) / 4, np.ptp(whole[0], axis=0).max() / 2
    others = [t for t in whole[1:] if weight(t) >= least and np.ptp(t, axis=0).max() >= size]
    return [whole[0], *sorted(others, key=lambda thing: thing[:, 1].min())]


def edge(grey: np.ndarray) -> np.ndarray:
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def light_on_dark(grey: np.ndarray) -> np.ndarray:
    """uint8 [H, W], turned around where the edge is light."""
    return 255 - grey if (edge(grey) > LIGHT).mean() >= 0.75 else grey


def mnist_form(grey: np.ndarray) -> np.ndarray:
    """A picture of one thing as MNIST's are: in a box of 20x20, its centre of mass in the middle.

    MNIST's images were made so (LeCun et al. 1998), and so is what is drawn in explore.py's page.

    Args:
        grey: uint8 [H, W] of any size, light on dark or dark on light.
    Returns:
        uint8 [28, 28], light on dark, the lightest pixel 255.
    Raises:
        ValueError: there is nothing on the paper.
    """
    grey = light_on_dark(grey)
    ink = np.clip(grey - np.median(edge(grey)), 0, None)
    if ink.max() < 32:
        raise ValueError("nothing is on it")
    return centred(ink, ink > ink.max() / 5)  # fainter is the paper's grain


def centred(ink: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Ink, float [H, W], of which the marked is fitted into the box: uint8 [28, 28] in 0..255."""
    rows, columns = np.nonzero(marked)
    ink = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = (max(1, round(BOX * side / max(ink.shape))) for side in ink.shape)
    picture = Image.fromarray(ink.astype(np.float32))
    ink = np.clip(np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)), 0, None)
    down = ink.sum(axis=1) @ np.arange(height) / ink.sum()
    right = ink.sum(axis=0) @ np.arange(width) / ink.sum()
    top = int(np.clip(round(SIDE / 2 - down), 0, SIDE - height))
    left = int(np.clip(round(SIDE / 2 - right), 0, SIDE - width))
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + height, left : left + width] = (255 * ink / ink.max()).round()
    return image


def fitted(grey: np.ndarray) -> np.ndarray:
    """uint8 [H, W] as large as it can be in 28x28, with black beside it."""
    picture = Image.fromarray(grey)
    return np.asarray(ImageOps.pad(picture, (SIDE, SIDE), Image.Resampling.BILINEAR, color=0))
