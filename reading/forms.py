"""Arrays of any kind to uint8 [N, 28, 28], and labels of any kind to classes."""

import numpy as np

from fmnist import SIDE
from reading.photo import mnist_form

MOST_CLASSES = 100


def as_form(images: np.ndarray, levels: int, like_mnist: bool) -> np.ndarray:
    """Images of an array, uint8 [N, H, W] or [N, 1, H, W], as uint8 [N, 28, 28]."""
    if images.dtype != np.uint8:
        floats = "of floats in 0..1, save (255 * images).round().astype('uint8')"
        raise ValueError(f"images are {images.dtype}, expected uint8: {floats}")
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    shape = f"images are {list(images.shape)}, expected [N, 28, 28]"
    if images.ndim != 3 or 0 in images.shape[1:]:
        raise ValueError(shape)
    highest = int(images.max(initial=0))
    if levels == 16 and highest > 15:
        raise ValueError(f"grey levels go up to {highest}, expected 0..15: leave --levels out")
    if levels == 256 and highest < 32 and len(images):
        raise ValueError(f"grey levels go up to {highest}, expected 255: --levels 16 is for 0..15")
    if like_mnist:
        formed = np.empty((len(images), SIDE, SIDE), np.uint8)
        for number, image in enumerate(images):
            try:
                formed[number] = mnist_form(image * np.uint8(255 // (levels - 1)))
            except ValueError as error:
                raise ValueError(f"image {number}, counted from 0: {error}") from error
        return formed
    if images.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"{shape}: --like_mnist takes any size")
    return np.ascontiguousarray(images)


def as_classes(labels: np.ndarray | None, count: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of any values as numbers from 0 on, int64 [N], and what each number stands for."""
    if labels is None:
        return np.zeros(count, np.int64), ()
    if labels.shape != (count,) or labels.dtype.kind not in "iuUS":
        found = f"labels are {labels.dtype} {list(labels.shape)}"
        raise ValueError(f"{found}, expected a whole number or a name for each of {count} images")
    names, numbers = np.unique(labels, return_inverse=True)
    if len(names) > MOST_CLASSES:
        raise ValueError(f"there are {len(names)} classes, expected at most {MOST_CLASSES}")
    return numbers.astype(np.int64), tuple(map(str, names.tolist()))
