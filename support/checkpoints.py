"""Checkpoint files: reading those that are not trusted, writing them whole."""

import os
import pickletools
import re
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import torch
from pytorch_lightning.plugins import TorchCheckpointIO
from torch import Tensor, nn

from fmnist import DATASETS
from support.command_line import InputError, one_line

Model = TypeVar("Model", bound=nn.Module)

_TENSORS = r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch \w+Storage"


def _check_pickle(pickled: bytes) -> None:
    """Raises ValueError unless only tensors are built: even bytearray(10**12) would be a danger."""
    for code, what, _ in pickletools.genops(pickled):
        if code.name in ("GLOBAL", "INST", "STACK_GLOBAL"):
            if not re.fullmatch(_TENSORS, str(what)):
                raise ValueError(f"it contains {what}, which is no part of a tensor")


def read_checkpoint(path: str | Path) -> dict:
    """What a checkpoint file of this program contains; the file is not trusted.

    Only tensors and plain values are unpickled (weights_only=True), so that no code in the file can
    run. Every part is first compared with its checksum, and must be stored as it is: a file cannot
    claim more memory than it has bytes. torch gets the compared parts in a new archive, as a
    damaged directory can make it read other bytes of the file than Python does.

    Raises:
        InputError: the file is missing, damaged or not a checkpoint of this program.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise ValueError("it is compressed, which torch.save never does")
            parts = {name: archive.read(name) for name in archive.namelist()}
        compared = BytesIO()
        with zipfile.ZipFile(compared, "w") as archive:
            for name, content in parts.items():
                if name.endswith("/data.pkl"):
                    _check_pickle(content)
                archive.writestr(name, content)
        compared.seek(0)
        checkpoint = torch.load(compared, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint, dict):
            raise TypeError(f"it contains a {type(checkpoint).__name__} in place of a dictionary")
        for name in ("hyper_parameters", "state_dict"):
            if not isinstance(checkpoint.get(name), dict):
                raise KeyError(f"it has no {name}")
    except Exception as error:  # there is no end to what a damaged file can raise
        raise InputError(
            f"checkpoint {path} cannot be used ({one_line(error)}): give a .ckpt file that "
            "train_pl.py wrote"
        ) from error
    return checkpoint


def fill_model(build: Callable[..., Model], checkpoint: dict, path: str | Path) -> Model:
    """A model with the hyperparameters and weights of a checkpoint, on the CPU.

    Args:
        build: makes the model from the checkpoint's hyperparameters, given as keywords.
        checkpoint: what `read_checkpoint` returned.
        path: its file, which the error names.
    Raises:
        InputError: hyperparameters or weights are those of another model, or not finite.
    """
    weights = dict(checkpoint["state_dict"])
    try:
        with torch.device("meta"):  # no memory for the sizes in the file until its weights fit
            model = build(**checkpoint["hyper_parameters"])
        for name, expected in model.state_dict().items():
            found = weights.get(name)
            if not isinstance(found, Tensor):
                raise ValueError(f"{name} is missing")
            if found.shape != expected.shape or not found.is_floating_point():
                raise ValueError(
                    f"{name} is {found.dtype} {list(found.shape)}, not float {list(expected.shape)}"
                )
            # A tensor may claim more memory than its file has, by strides of 0.
            formats = (torch.contiguous_format, torch.channels_last)
            if not any(found.is_contiguous(memory_format=layout) for layout in formats):
                raise ValueError(f"{name} is neither contiguous nor channels_last")
            if not found.isfinite().all():
                raise ValueError(f"{name} has values that are not finite")
            weights[name] = found.float()  # of --precision 64-true and the like
        model.load_state_dict(weights, assign=True)
    except (AttributeError, OverflowError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"checkpoint {path} is of another model ({one_line(error)}): give one that this "
            "version of train_pl.py wrote"
        ) from error
    return model


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint file itself or, for a run's log directory, its best one.

    Raises:
        InputError: there is no such file, or the directory is not that of a run.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(path.glob("checkpoints/best_val_bpd_*.ckpt"))
        if not found:
            raise InputError(
                f"{path} has no checkpoints/best_val_bpd_*.ckpt: give a checkpoint file or a run's "
                "log directory, such as VAE_logs/version_0"
            )
        return found[0]  # the names sort by bpd
    if not path.exists():
        raise InputError(f"checkpoint {path} does not exist: give a .ckpt file or a log directory")
    return path


def trained_on(path: str | Path) -> str | None:
    """The data set that a checkpoint's model was trained on; None in files that do not say it.

    Raises:
        InputError: see `read_checkpoint`, and for a data set that this program does not have.
    """
    data = read_checkpoint(path).get("datamodule_hyper_parameters", {})
    dataset = data.get("dataset") if isinstance(data, dict) else data
    if not (dataset is None or (isinstance(dataset, str) and dataset in DATASETS)):
        raise InputError(
            f"checkpoint {path} is of the data set {one_line(dataset)!r}: give one that this "
            "version of train_pl.py wrote"
        )
    return dataset


def atomic_write(path: str | Path, content: bytes) -> None:
    """Writes a file so that, whatever happens, either the old or the new one is there, complete."""
    beside = Path(path).with_name("unfinished")
    with open(beside, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, by `atomic_write` and `read_checkpoint`.

    Lightning itself writes into the system's temporary folder; where that is another file system,
    what then puts the file into place is a copy, which a kill can leave half-done.
    """

    def save_checkpoint(
        self, checkpoint: dict, path: str | Path, storage_options: object = None
    ) -> None:
        buffer = BytesIO()
        torch.save(checkpoint, buffer)
        atomic_write(path, buffer.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: object = None, weights_only: bool | None = None
    ) -> dict:
        return read_checkpoint(path)
