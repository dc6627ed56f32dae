"""Arrays of images in .npz, .npy and IDX files."""

from pathlib import Path

import numpy as np

from inputs.files import read_idx


def read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Images and labels, where there are any, in a file as they are."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            if "images" not in arrays:
                raise ValueError(f"has no array `images`, only {', '.join(arrays) or 'none'}")
            return arrays["images"], arrays.get("labels")
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False), None
    try:
        images = read_idx(path)
    except ValueError as error:
        raise ValueError(f"{error}: give one, .npz, .npy or a folder of pictures") from error
    if path.name.startswith("emnist"):  # its files have rows and columns exchanged
        images = images.transpose(0, 2, 1)
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    return images, read_idx(beside) if beside != path and beside.exists() else None
