"""Files of arrays: one function per kind, which gives all arrays of a file by their names."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from inputs.files import read_idx

Arrays = dict[str, np.ndarray]


def needed(module: str, package: str, what: str) -> ModuleType:
    """A module that only one kind of file needs; ImportError names its package."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{what} need the package {package}: pip install {package}") from error


def read_npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays}


def read_npy(path: Path) -> Arrays:
    return {"": np.load(path, allow_pickle=False)}


def read_idx_file(path: Path) -> Arrays:
    """Images or labels; QMNIST's labels, eight numbers each, have the class first."""
    values = read_idx(path)
    return {"": upright(path, values[:, 0] if values.ndim == 2 else values)}


def upright(path: Path, images: np.ndarray) -> np.ndarray:
    """EMNIST's files have rows and columns exchanged: images [N, 28, 28] or [N, 784]."""
    if not path.name.startswith("emnist") or images[:1].size != 784:
        return images
    return images.reshape(len(images), 28, 28).transpose(0, 2, 1)


def read_pt(path: Path) -> Arrays:
    """What torch.save wrote: torchvision's pair of images and labels, a tensor, or a dictionary."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, LookupError, TypeError, AttributeError) as error:  # of a damaged file
        raise ValueError(error) from error
    if isinstance(content, torch.Tensor):
        content = {"": content}
    if isinstance(content, tuple | list) and len(content) == 2:
        content = {"images": content[0], "labels": content[1]}
    if not isinstance(content, dict):
        raise ValueError(f"it has a {type(content).__name__}, expected tensors")
    return {k: v.numpy() for k, v in content.items() if isinstance(v, torch.Tensor)}


def read_mat(path: Path) -> Arrays:
    """MATLAB's arrays, also those in structures; images may stand last: [H, W, N]."""
    io = needed("scipy.io", "scipy", ".mat files")
    content, arrays = [("", io.loadmat(path, simplify_cells=True))], {}
    while content:
        name, value = content.pop()
        if isinstance(value, dict):
            content += [(f"{name} {key}", part) for key, part in value.items()]
        elif isinstance(value, np.ndarray) and value.dtype.kind != "O":
            last = value.ndim > 2 and value.shape[0] == value.shape[1]
            arrays[name] = upright(path, np.moveaxis(value, -1, 0) if last else value)
    return arrays
