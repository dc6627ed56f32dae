"""All images of a file or folder: read, brought to one form, divided and recorded."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fmnist import DATASETS, DiscreteImages, as_bits, split_positions
from inputs.command_line import InputError, one_line
from reading.arrays import read_arrays
from reading.forms import as_classes, as_form
from reading.pictures import read_folder

HELD_OUT = 10  # of so many images one is for validation and one for the test
FEWEST = 200


class OwnData(NamedTuple):
    """All images of one's own, in the order of the file or of the names; see `read_own`."""

    data: DiscreteImages
    record: dict[str, object]

    def split(self) -> tuple[DiscreteImages, DiscreteImages, DiscreteImages]:
        """Training, validation and test images, in an order that depends on their number only."""
        held_out = len(self.data) // HELD_OUT
        parts = split_positions(len(self.data) - 2 * held_out, held_out, held_out)
        train, val, test = map(self.data.subset, parts)
        return train, val, test


def read_own(
    path: str | Path, levels: int = 256, like_mnist: bool = False, bits: int = 4
) -> OwnData:
    """Images of one's own from a file or folder, see above, in 16 levels or, of 1 bit, in two.

    Args:
        levels: 256 or 16, the grey levels of the images in an array: 0..255 or 0..15.
        like_mnist: bring every image to MNIST's form, see `mnist_form`.
        bits: 4 or 1, see `as_bits`.
    Returns:
        the images, and what a checkpoint says of them: dataset, a name that no official data set
        has; data, their path; levels, like_mnist, bits; classes; digest, which tells them from
        others.
    Raises:
        InputError: they cannot be read, do not fit or are too few.
    """
    path = Path(path).absolute()
    try:
        if path.is_dir():
            if levels != 256:
                raise ValueError("pictures have 256 grey levels: leave --levels out")
            images, labels = read_folder(path, like_mnist)
        else:
            images, labels = read_arrays(path)
            images = as_form(images, levels, like_mnist)
        if len(images) < FEWEST:
            count = f"number of images: {len(images)}"
            raise ValueError(f"{count}, expected at least {FEWEST}, better some thousand")
        numbers, classes = as_classes(labels, len(images))
    except Exception as error:  # there is no end to what a damaged file can raise
        why = getattr(error, "strerror", None) or error  # without the path, which is named here
        raise InputError(f"argument --data: {path}: {one_line(why)}") from error
    if levels == 16 and not like_mnist:  # to 0..255, which 16 levels are made of again
        images = images * np.uint8(17 if bits == 1 else 16)
    data = as_bits(images, numbers, classes, bits)
    pixels = (data.grey or data).images.numpy()
    names = "\n".join(classes).encode(errors="surrogateescape")  # folders may be named in any bytes
    digest = hashlib.sha256(names + pixels.tobytes() + numbers.tobytes())
    record = {
        "dataset": f"own {path.name}" if path.name in DATASETS else path.name,
        "data": str(path),
        "levels": levels,
        "like_mnist": like_mnist,
        "bits": bits,
        "classes": list(classes),
        "digest": digest.hexdigest()[:16],
    }
    return OwnData(data, record)
