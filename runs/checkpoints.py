"""Checkpoints of runs: the one that is meant, the model in it, and how Lightning writes them."""

from io import BytesIO
from pathlib import Path
from typing import TypeVar

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins import TorchCheckpointIO

from inputs.checkpoints import read_checkpoint
from inputs.command_line import InputError, one_line
from inputs.files import write_whole

Model = TypeVar("Model", bound=LightningModule)


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
        path = found[0]  # the names sort by bpd
    if not path.is_file():
        raise InputError(f"checkpoint {path} is no file: give a .ckpt file or a log directory")
    return path


def read_model(model_class: type[Model], path: Path, **more: object) -> Model:
    """The Lightning module in a checkpoint, on the CPU.

    Args:
        more: arguments that its class takes beside the hyperparameters in the checkpoint.
    Raises:
        InputError: see `read_checkpoint`, and for a checkpoint of another model or with weights
            that are not finite.
    """
    read_checkpoint(path)  # finds out a damaged file, which Lightning and torch do not
    try:
        model = model_class.load_from_checkpoint(
            path, map_location="cpu", weights_only=True, **more
        )
        for name, weights in model.state_dict().items():
            if not weights.isfinite().all():
                raise ValueError(f"{name} has values that are not finite")
    except Exception as error:  # there is no end to what the file of another model can raise
        raise InputError(
            f"checkpoint {path} is of another model ({one_line(error)}): give one that this "
            f"version of {model_class.__name__} wrote"
        ) from error
    return model


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, by `write_whole` and `read_checkpoint`.

    Lightning itself writes into the system's temporary folder; where that is another file system,
    what then puts the file into place is a copy, which a kill can leave half-done.
    """

    def save_checkpoint(
        self, checkpoint: dict, path: str | Path, storage_options: object = None
    ) -> None:
        buffer = BytesIO()
        torch.save(checkpoint, buffer)
        write_whole(path, buffer.getvalue())

    def load_checkpoint(
        self, path: str | Path, map_location: object = None, weights_only: bool | None = None
    ) -> dict:
        return read_checkpoint(path)
