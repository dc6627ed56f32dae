"""All images of a file or folder: read, brought to one form, divided and recorded."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fmnist import DATASETS, DiscreteImages, as_bits, split_positions
from inputs.command_line import InputError, one_line
from reading.forms import as_classes, as_form, plain_labels
from reading.parts import Found, Part
from reading.sources import DAMAGED, read_source

HELD_OUT = 10  # of so many images one is for validation and one for the test
FEWEST = 200
PARTS = ("train", "val", "test")


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
        """Training, validation and test images; see `positions`."""
        return tuple(map(self.data.subset, self.positions()))

    def positions(self) -> tuple[Tensor, Tensor, Tensor]:
        """Which images are for training, validation and test: long [size] each.

        A part that the source has is that part. A tenth of the others is each part that it has not,
        in an order that depends on their number only.
        """
        train, val, test = torch.arange(len(self.data)).split(self.sizes)
        tenth = len(train) // HELD_OUT
        missing = [0 if len(part) else tenth for part in (val, test)]
        order = split_positions(len(train) - sum(missing), *missing)
        val, test = val if len(val) else order[1], test if len(test) else order[2]
        return order[0], val, test

    def summary(self) -> str:
        """How many images there are, of which classes, for what, and what was not used."""
        counts = self.data.labels.bincount(minlength=len(self.data.classes)).tolist()
        classes = ", ".join(f"{c} {n}" for c, n in zip(self.data.classes, counts, strict=False))
        sizes = zip(("training", "validation", "test"), map(len, self.positions()), strict=True)
        published = self.record["published"]
        split = ", ".join(f"{n:,} for {name}" for name, n in sizes)
        split += f" ({' and '.join(published)} as published)" if published else ""
        said = (f"{len(self.data):,} images", classes or "no labels found", split, *self.notes)
        return "; ".join(said)


def read_own(
    path: str | Path, levels: int = 256, like_mnist: bool = False, bits: int = 4
) -> OwnData:
    """Images of one's own from a file or folder, in 16 levels or, of 1 bit, in two.

    docs/own_data.md has the kinds of files and folders.

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
        if found.formed and levels != 256:
            raise ValueError("pictures have 256 grey levels: leave --levels out")
        parts, notes = usable(found)
        images = [part.images for part in parts.values()]
        images = images if found.formed else as_form(images, levels, like_mnist, bits)
        pixels = np.concatenate(images)
        if len(pixels) < FEWEST:
            count = f"number of images: {len(pixels)}"
            raise ValueError(f"{count}, expected at least {FEWEST}, better some thousand")
        numbers, classes = np.zeros(len(pixels), np.int64), ()
        if all(part.labels is not None for part in parts.values()):
            labels = [plain_labels(part.labels, len(part.images)) for part in parts.values()]
            numbers, classes = as_classes(np.concatenate(labels))
    except (*DAMAGED, ImportError) as error:
        why = getattr(error, "strerror", None) or error  # without the path, which is named here
        inside = getattr(error, "filename", None)
        why = f"{inside}: {why}" if inside and Path(inside) != path else why
        raise InputError(f"argument --data: {path}: {one_line(why)}") from error
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

    Raises:
        ValueError: there are parts, but none to train on.
    """
    parts, notes = {name: part for name, part in found.parts.items() if len(part.images)}, []
    if len(parts) < 2:
        parts = {"train": next(iter((parts or found.parts).values()))}
    elif "" in parts and "train" not in parts:
        parts["train"] = parts.pop("")
    if "train" not in parts or "" in parts:
        raise ValueError(f"it is not clear what to train on: there are {', '.join(found.parts)}")
    with_labels = parts["train"].labels is not None
    for name in [name for name in parts if (parts[name].labels is not None) != with_labels]:
        if with_labels:
            count = len(parts.pop(name).images)
            notes.append(f"left out: {count:,} {name} images, which have no labels")
        else:
            notes.append(f"the labels of the {name} images are not used, as others have none")
            parts[name] = Part(parts[name].images)
    return {name: parts[name] for name in PARTS if name in parts}, [*found.notes, *notes]
