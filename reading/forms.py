"""Arrays of any kind to grey levels uint8 [N, 28, 28], and labels of any kind to classes."""

import math
from collections.abc import Sequence

import numpy as np

from fmnist import SIDE
from reading.photo import fitted, mnist_form

MOST_CLASSES = 100


def as_form(
    parts: Sequence[np.ndarray], levels: int, like_mnist: bool, bits: int
) -> list[np.ndarray]:
    """The images of all parts in 0..255, uint8 [N, 28, 28] each.

    Args:
        parts: [N, H, W], [N, H * H], or with one or three colours before or after H and W; bool,
            whole numbers or floats, in 0..1 or 0..255.
        levels: 16 where the values are 0..15.
        bits: those that `fmnist.as_bits` will be asked for: 16 levels come out of it as they were.
    Raises:
        ValueError: they are something else; the message says what.
    """
    formed = []
    for images in as_bytes([as_planes(images) for images in parts], levels):
        grey = as_grey(images)
        if grey.shape[1:] == (SIDE, SIDE) and not like_mnist:
            formed.append(grey if levels == 256 else grey * np.uint8(17 if bits == 1 else 16))
            continue
        small = np.empty((len(grey), SIDE, SIDE), np.uint8)
        for number, image in enumerate(grey * np.uint8(255 // (levels - 1))):
            try:
                small[number] = mnist_form(image) if like_mnist else fitted(image)
            except ValueError as error:
                raise ValueError(f"image {number}, counted from 0: {error}") from error
        formed.append(small)
    return formed


def as_planes(images: np.ndarray) -> np.ndarray:
    """[N, H, W] or [N, H, W, 3] of the shapes that `as_form` takes."""
    shape = images.shape
    if images.ndim == 2 and math.isqrt(shape[1]) ** 2 == shape[1] > 1:
        return images.reshape(len(images), math.isqrt(shape[1]), -1)
    if images.ndim == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        images = np.moveaxis(images, 1, 3)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)) or 0 in shape[1:]:
        raise ValueError(f"images are {list(shape)}, expected [N, 28, 28] or [N, 784]")
    return images


def as_bytes(parts: Sequence[np.ndarray], levels: int) -> list[np.ndarray]:
    """Values of any type as uint8 in 0..255, or 0..15 if that is what `levels` says."""
    if odd := [images.dtype for images in parts if images.dtype.kind not in "buif"]:
        raise ValueError(f"images are {odd[0]}, expected numbers")
    low, high = (float(f([f(images, initial=0) for images in parts])) for f in (np.min, np.max))
    if not 0 <= low <= high <= 255:  # also where one is not a number
        raise ValueError(f"grey levels are {low:g} to {high:g}, expected 0..255, or 0..1 of floats")
    if levels == 16 and high > 15:
        raise ValueError(f"grey levels go up to {high:g}, expected 0..15: leave --levels out")
    if levels == 256 and 1 < high < 32:
        raise ValueError(
            f"grey levels go up to {high:g}, expected 255, or 1: --levels 16 is for 0..15"
        )
    scale = 255 if levels == 256 and high <= 1 else 1
    if scale == 1 and all(images.dtype == np.uint8 for images in parts):
        return [*parts]
    return [np.rint(scale * images.astype(np.float32)).astype(np.uint8) for images in parts]


def as_grey(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W] of these or of colours [N, H, W, 3], by the luma of ITU-R BT.601."""
    if images.ndim == 4:
        images = np.rint(images @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return np.ascontiguousarray(images)


def plain_labels(labels: np.ndarray, count: int) -> np.ndarray:
    """Labels of any values as whole numbers or names, [N].

    Raises:
        ValueError: they are not one for each of so many images.
    """
    found = f"labels are {labels.dtype} {list(labels.shape)}"
    if labels.ndim == 2 and 1 in labels.shape:
        labels = labels.ravel()
    if labels.ndim == 2 and labels.dtype.kind in "buif" and is_one_hot(labels):
        labels = labels.argmax(axis=1)
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "surrogateescape")
    whole = labels.dtype.kind == "f" and (labels == np.rint(labels)).all()
    if whole or labels.dtype.kind == "b":
        labels = labels.astype(np.int64)
    if labels.shape != (count,) or labels.dtype.kind not in "iuU":
        raise ValueError(f"{found}, expected a whole number or a name for each of {count} images")
    return labels


def as_classes(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels [N] as numbers from 0 on, int64 [N], and what each number stands for."""
    names, numbers = np.unique(labels, return_inverse=True)
    if len(names) > MOST_CLASSES:
        raise ValueError(f"there are {len(names)} classes, expected at most {MOST_CLASSES}")
    return numbers.astype(np.int64), tuple(map(str, names.tolist()))


def is_one_hot(labels: np.ndarray) -> bool:
    """Whether each row of [N, C] has a single one among zeros."""
    return bool((((labels == 0) | (labels == 1)).all(axis=1) & (labels.sum(axis=1) == 1)).all())
