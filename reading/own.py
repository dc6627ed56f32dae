"""All images of a file or folder: read, brought to one form, divided and recorded."""

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fmnist import DATASETS, SIDE, DiscreteImages, as_bits, split_positions
from inputs.command_line import InputError, one_line
from reading.parts import Found, Part
from reading.photo import fitted, mnist_form
from reading.sources import read_source

HELD_OUT = 10  # of so many images one is for validation and one for the test
FEWEST = 200
MOST_CLASSES = 100
PARTS = ("train", "val", "test")
LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue in grey (ITU-R BT.601)


class OwnData(NamedTuple):
    """All images of one's own, in the order of the file or of the names; see `read_own`.

    `sizes` are those of the parts train, val and test, one after the other, 0 for one that the
    source does not have. `notes` say what was not used.
    """

    data: DiscreteImages
    record: dict[str, object]
    sizes: tuple[int, int, int]
    notes: list[str]

    def split(self) -> tuple[DiscreteImages, DiscreteImages, DiscreteImages]:
        """Training, validation and test images.

        A part that the source has is that part. A tenth of the others is each part that it has not,
        in an order that depends on their number only.
        """
        train, val, test = torch.arange(len(self.data)).split(self.sizes)
        tenth = len(train) // HELD_OUT
        missing = [0 if len(part) else tenth for part in (val, test)]
        order = split_positions(len(train) - sum(missing), *missing)
        val, test = val if len(val) else order[1], test if len(test) else order[2]
        return tuple(map(self.data.subset, (order[0], val, test)))

    def summary(self) -> str:
        """How many images there are, of which classes, for what, and what was not used."""
        counts = self.data.labels.bincount(minlength=len(self.data.classes)).tolist()
        classes = ", ".join(f"{c} {n}" for c, n in zip(self.data.classes, counts, strict=False))
        sizes = zip(("training", "validation", "test"), map(len, self.split()), strict=True)
        split = ", ".join(f"{n:,} for {name}" for name, n in sizes)
        if published := self.record["published"]:
            split += f" ({' and '.join(published)} as published)"
        said = (f"{len(self.data):,} images", classes or "no labels found", split, *self.notes)
        return "; ".join(said)


def read_own(
    path: str | Path, levels: int = 256, like_mnist: bool = False, bits: int = 4
) -> OwnData:
    """Images of one's own from a file or folder of a kind that docs/own_data.md has.

    Args:
        levels: 256 or 16, the grey levels of the images in an array: 0..255 or 0..15.
        like_mnist: bring every image to MNIST's form, see `mnist_form`.
        bits: 4 or 1, see `as_bits`.
    Returns:
        the images, and what a checkpoint says of them: dataset, a name that no official data set
        has; data, their path; levels, like_mnist, bits; classes; published, the parts that the
        source itself has; digest, which tells the images, labels and parts from others.
    Raises:
        InputError: they cannot be read, do not fit or are too few.
    """
    path = Path(path).absolute()
    try:
        found = read_source(path, like_mnist)
        parts, notes = usable(found)
        pixels = np.concatenate([part.images for part in parts.values()])
        if not found.formed:
            pixels = as_form(pixels, levels, like_mnist, bits)
        if len(pixels) < FEWEST:
            count = f"number of images: {len(pixels)}"
            raise ValueError(f"{count}, expected at least {FEWEST}, better some thousand")
        numbers, classes = np.zeros(len(pixels), np.int64), ()
        if parts["train"].labels is not None:
            numbers, classes = as_classes(np.concatenate([p.labels for p in parts.values()]))
    except (OSError, ValueError, ImportError) as error:
        where, why = getattr(error, "filename", None) or path, getattr(error, "strerror", None)
        raise InputError(f"argument --data: {where}: {one_line(why or error)}") from error
    data = as_bits(pixels, numbers, classes, bits)
    pixels = (data.grey or data).images.numpy()
    sizes = tuple(len(parts[name].images) if name in parts else 0 for name in PARTS)
    names = "\n".join(classes).encode(errors="surrogateescape")  # folders may be named in any bytes
    published = [name for name, size in zip(PARTS, sizes, strict=True) if size][1:]
    divided = str(sizes).encode() if published else b""
    digest = hashlib.sha256(names + pixels.tobytes() + numbers.tobytes() + divided)
    record = {
        "dataset": f"own {path.name}" if path.name in DATASETS else path.name,
        "data": str(path),
        "levels": levels,
        "like_mnist": like_mnist,
        "bits": bits,
        "classes": list(classes),
        "published": published,
        "digest": digest.hexdigest()[:16],
    }
    return OwnData(data, record, sizes, notes)


def usable(found: Found) -> tuple[dict[str, Part], list[str]]:
    """The parts that can be used together, train first, and the notes on all that is not used.

    All of them have labels, or none.
    """
    parts, notes = {n: part for n, part in found.parts.items() if len(part.images)}, []
    if len(parts) < 2:
        parts = {"train": next(iter((parts or found.parts).values()))}
    if "train" not in parts:
        raise ValueError(f"it is not clear what to train on: there are {', '.join(parts)}")
    for name, part in [*parts.items()]:
        if part.labels is None and parts["train"].labels is not None:
            del parts[name]
            notes.append(f"left out: {len(part.images):,} {name} images, which have no labels")
        elif part.labels is not None and parts["train"].labels is None:
            parts[name] = Part(part.images)
            notes.append(f"the labels of the {name} images are not used, as others have none")
    return {name: parts[name] for name in PARTS if name in parts}, [*found.notes, *notes]


def as_form(images: np.ndarray, levels: int, like_mnist: bool, bits: int) -> np.ndarray:
    """Images of many forms as uint8 [N, 28, 28] in 0..255.

    Args:
        images: [N, H, W], [N, H * H], or with an axis of one or three colours before or after the
            pixels'; bool, whole numbers or floats, in 0..1 or 0..255.
        levels: 16 where the values are 0..15.
        bits: those that `fmnist.as_bits` will be asked for: 16 levels come out of it as they were.
    Raises:
        ValueError: they are something else; the message says what.
    """
    grey = as_bytes(as_planes(images), levels, bits)
    if grey.ndim == 4:
        grey = np.rint(grey @ LUMA).astype(np.uint8)
    if grey.shape[1:] == (SIDE, SIDE) and not like_mnist:
        return grey
    formed = np.empty((len(grey), SIDE, SIDE), np.uint8)
    for number, image in enumerate(grey):
        try:
            formed[number] = mnist_form(image) if like_mnist else fitted(image)
        except ValueError as error:
            raise ValueError(f"image {number}, counted from 0: {error}") from error
    return formed


def as_planes(images: np.ndarray) -> np.ndarray:
    """Images with their pixels and colours where `as_form` has them: [N, H, W] or [N, H, W, 3]."""
    shape = images.shape
    if images.ndim == 2 and math.isqrt(shape[1]) ** 2 == shape[1]:
        images = images.reshape(len(images), math.isqrt(shape[1]), -1)
    if images.ndim == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
        images = np.moveaxis(images, 1, 3)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    fits = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if not fits or 0 in shape[1:] or images.dtype.kind not in "buif":
        expected = "expected numbers [N, 28, 28] or [N, 784]"
        raise ValueError(f"images are {images.dtype} {list(shape)}, {expected}")
    return images


def as_bytes(images: np.ndarray, levels: int, bits: int) -> np.ndarray:
    """Values of any type as uint8 in 0..255; see `as_form`."""
    low, high = float(images.min(initial=0)), float(images.max(initial=0))
    if not 0 <= low <= high <= 255:  # also where one is not a number
        raise ValueError(f"grey levels are {low:g} to {high:g}, expected 0..255, or 0..1 of floats")
    if high > 15 if levels == 16 else 1 < high < 32:
        how = "with --levels 16, 0..15 are expected, without it 0..255 or 0..1"
        raise ValueError(f"grey levels go up to {high:g}: {how}")
    scale = 255 if high <= 1 else 1
    if levels == 16:
        scale = 17 if bits == 1 else 16
    if scale == 1 and images.dtype == np.uint8:
        return images
    return np.rint(scale * images.astype(np.float32)).astype(np.uint8)


def as_classes(labels: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as numbers from 0 on, int64 [N], and what each number stands for.

    Args:
        labels: whole numbers or names, [N] or [N, 1], or one-hot.
    Raises:
        ValueError: they are something else, or of too many classes.
    """
    found = f"labels are {labels.dtype} {list(labels.shape)}"
    numbers = labels.dtype.kind in "buif"
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and numbers and ((labels != 0).sum(1) == 1).all() and labels.max() == 1:
        labels = labels.argmax(axis=1)  # one-hot
    if numbers and (labels == labels.astype(np.int64)).all():
        labels = labels.astype(np.int64)
    if labels.ndim != 1 or labels.dtype.kind not in "iU":
        raise ValueError(f"{found}, expected a whole number or a name for each image")
    names, numbers = np.unique(labels, return_inverse=True)
    if len(names) > MOST_CLASSES:
        raise ValueError(f"there are {len(names)} classes, expected at most {MOST_CLASSES}")
    return numbers.astype(np.int64), tuple(map(str, names.tolist()))
