"""One thing on paper as MNIST's digits are: in a box of 20x20 in the middle of 28x28."""

import numpy as np
from PIL import Image, ImageOps

from fmnist import SIDE

BOX = 20  # pixels of the box that MNIST's digits are fitted into
LIGHT = 127  # grey levels above are light


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
    rows, columns = np.nonzero(ink > ink.max() / 5)  # fainter is the paper's grain
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
    size, smooth = (SIDE, SIDE), Image.Resampling.BILINEAR
    return np.asarray(ImageOps.pad(Image.fromarray(grey), size, smooth, color=0))
