"""Files that torch wrote: a damaged one is refused, and no code in one runs."""

import zipfile
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import TypeVar

import torch
from torch import nn

from inputs.command_line import InputError, one_line

Model = TypeVar("Model", bound=nn.Module)
# What damaged files and those of something else raise; a full memory is none of it.
DAMAGED = (EOFError, KeyError, OSError, RuntimeError, TypeError, UnpicklingError, ValueError)
DAMAGED += (zipfile.BadZipFile, zlib.error)


def _read(path: str | Path) -> object:
    """What torch.save wrote, on the CPU; raises one of `DAMAGED` where it did not write it."""
    with zipfile.ZipFile(path) as archive:  # torch itself compares no checksum
        if damaged := archive.testzip():
            raise ValueError(f"its part {damaged} is damaged")
    return torch.load(path, map_location="cpu", weights_only=True)


def read_checkpoint(path: str | Path) -> dict:
    """What a checkpoint file contains, on the CPU.

    A damaged file is found out by its checksums. Only tensors and plain values are unpickled
    (weights_only=True), so that no code in a file can run.

    Raises:
        InputError: the file is missing, damaged or not a checkpoint.
    """
    try:
        checkpoint = _read(path)
        if not isinstance(checkpoint, dict):
            raise TypeError(f"it contains a {type(checkpoint).__name__} in place of a dictionary")
    except DAMAGED as error:
        raise InputError(
            f"checkpoint {path} cannot be used ({one_line(error)}): give a .ckpt file that "
            "train_pl.py wrote"
        ) from error
    return checkpoint


def load_shipped(model: Model, path: Path) -> Model:
    """The model with the weights of a file of this repository, in eval mode.

    Raises:
        InputError: the file is missing or holds another model.
    """
    try:
        model.load_state_dict(_read(path))
    except DAMAGED as error:
        raise InputError(
            f"{path} cannot be used ({one_line(error)}): take it from the repository again"
        ) from error
    return model.eval()
