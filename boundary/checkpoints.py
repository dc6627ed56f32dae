"""Checkpoint files: reading those that are not trusted, writing them whole."""

import os
import pickletools
import re
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import TorchCheckpointIO
from torch import Tensor, nn

from boundary.command_line import InputError, one_line
from boundary.files import check_memory, check_regular, write_whole

Model = TypeVar("Model", bound=nn.Module)

_TENSORS = r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch \w+Storage"
# What torch.save writes. Torch would find its parts in any case of letters.
_PARTS = (
    r"[^/]+/(data\.pkl|data/\d+|byteorder|version|\.(format_version|storage_alignment)|\.data/.*)"
)
_PER_OBJECT = 1 << 10  # bytes, about what the dearest single instruction of a pickle takes


def _check_pickle(pickled: bytes, stored: int) -> None:
    """Raises ValueError unless only tensors and plain values are built, and not too many.

    Even bytearray(10**12) would be a danger, and a tuple of two tuples of two tuples ... of which
    torch has to compute a hash.
    """
    tuples, reused, before = set(), 0, ""
    for count, (code, what, _) in enumerate(pickletools.genops(pickled)):
        if code.name in ("GLOBAL", "INST", "STACK_GLOBAL"):
            if not re.fullmatch(_TENSORS, str(what)):
                raise ValueError(f"it contains {what}, which is no part of a tensor")
        elif code.name in ("BINPUT", "LONG_BINPUT"):
            (tuples.add if before == "tuple" else tuples.discard)(what)
            continue  # what is on top stays the same
        elif code.name in ("BINGET", "LONG_BINGET"):
            reused += what in tuples
            before = "tuple" if what in tuples else ""
            continue
        before = "tuple" if "TUPLE" in code.name else ""
        check_memory(count * _PER_OBJECT, stored)
    if reused > 30:  # tuples of tuples could then be worth millions
        raise ValueError("its tuples are used again and again")


def _check_claims(content: object, stored: int) -> None:
    """Raises ValueError where content, every part written out as often as it occurs, is too much.

    A tensor may claim more memory than its file has, by strides of 0, and a list may contain
    itself.
    """
    claimed, waiting = 0, [content]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Tensor):
            claimed += part.numel() * part.element_size()
        elif isinstance(part, dict | list | tuple | set):
            claimed += _PER_OBJECT * len(part)
        check_memory(claimed, stored)
        if isinstance(part, dict):
            waiting += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple | set):
            waiting += part


def _read_parts(path: str | Path, stored: int) -> dict[str, bytes]:
    """The parts of a zip archive that torch.save may have written, compared with their checksums.

    Raises:
        ValueError, zipfile.BadZipFile: it is another kind of archive, or damaged.
    """
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        for part in parts:
            if part.compress_type != zipfile.ZIP_STORED or part.compress_size != part.file_size:
                raise ValueError("it is compressed, which torch.save never does")
            if not re.fullmatch(_PARTS, part.filename):
                raise ValueError(f"torch.save writes no {part.filename}")
        if sum(part.file_size for part in parts) > stored:
            raise ValueError("its parts overlap")
        if len({part.filename.split("/")[0] for part in parts}) != 1:
            raise ValueError("it is not one archive of torch.save")
        return {part.filename: archive.read(part) for part in parts}


def read_checkpoint(path: str | Path) -> dict:
    """What a checkpoint file of this program contains; the file is not trusted.

    Only tensors and plain values are unpickled (weights_only=True), so that no code in the file can
    run, and no part may take more memory than `check_memory` allows. Torch gets the parts, once
    they are compared with their checksums, in a new archive, as a damaged directory can make it
    read other bytes of the file than Python does.

    Raises:
        InputError: the file is missing, damaged or not a checkpoint of this program.
    """
    try:
        check_regular(path)
        stored = os.path.getsize(path)
        compared = BytesIO()
        with zipfile.ZipFile(compared, "w") as archive:
            for name, content in _read_parts(path, stored).items():
                if name.endswith("/data.pkl"):
                    _check_pickle(content, stored)
                archive.writestr(name, content)
        compared.seek(0)
        checkpoint = torch.load(compared, map_location="cpu", weights_only=True)
        _check_claims(checkpoint, stored)
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


def fill_model(
    build: Callable[..., Model], checkpoint: dict, path: str | Path, may_lack: str | None = None
) -> Model:
    """A model with the hyperparameters and weights of a checkpoint, on the CPU.

    Args:
        build: makes the model from the checkpoint's hyperparameters, given as keywords.
        checkpoint: what `read_checkpoint` returned.
        path: its file, which the error names.
        may_lack: a part that a checkpoint may be without; then the model is without it, too.
    Raises:
        InputError: hyperparameters or weights are those of another model, or not finite.
    """
    weights = dict(checkpoint["state_dict"])
    try:
        with torch.device("meta"):  # no memory for the sizes in the file until its weights fit
            model = build(**checkpoint["hyper_parameters"])
        if may_lack and not any(str(name).startswith(f"{may_lack}.") for name in weights):
            delattr(model, may_lack)
        for name, expected in model.state_dict().items():
            found = weights.get(name)
            if not isinstance(found, Tensor):
                raise ValueError(f"{name} is missing")
            if found.shape != expected.shape or not found.is_floating_point():
                raise ValueError(
                    f"{name} is {found.dtype} {list(found.shape)}, not float {list(expected.shape)}"
                )
            # Strides of 0 would let training write several weights in one place.
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


def check_like(found: object, expected: object, name: str) -> None:
    """Raises ValueError unless both have the same keys, lengths and types of values throughout.

    Numbers in `found` must also be finite and at least 0.
    """
    if type(found) is not type(expected):
        raise ValueError(f"{name} is a {type(found).__name__}, not {type(expected).__name__}")
    if isinstance(found, dict):
        if found.keys() != expected.keys():
            raise ValueError(f"{name} has other entries than {list(expected)}")
        for key, value in found.items():
            check_like(value, expected[key], f"{name}.{key}")
    elif isinstance(found, list | tuple):
        if len(found) != len(expected):
            raise ValueError(f"{name} has {len(found)} entries, not {len(expected)}")
        for number, value in enumerate(found):
            check_like(value, expected[number], f"{name}.{number}")
    elif isinstance(found, int | float) and not 0 <= found < 1 << 53:  # also refuses NaN
        raise ValueError(f"{name} is {found:g}")


def check_training_state(checkpoint: dict, trainer: pl.Trainer) -> None:
    """Whether a trainer, about to restore a checkpoint of whole epochs, can go on from there.

    Lightning takes counts and options of the optimizers as they are, and fails later, if at all.

    Raises:
        KeyError, TypeError, ValueError: the state of loops, optimizers or schedulers is another.
    """
    check_like(checkpoint["loops"]["fit_loop"], trainer.fit_loop.state_dict(), "fit_loop")
    epochs, step = checkpoint["epoch"] + 1, checkpoint["global_step"]
    batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    counts = {*batches["total"].values(), *(epochs * n for n in batches["current"].values())}
    if counts != {step}:
        raise ValueError(f"{epochs} epochs of {batches} are not {step} steps")
    schedulers = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
    check_like(checkpoint["lr_schedulers"], schedulers, "lr_schedulers")
    for saved, optimizer in zip(checkpoint["optimizer_states"], trainer.optimizers, strict=True):
        check_like(saved["param_groups"], optimizer.state_dict()["param_groups"], "param_groups")
        groups = [(group, p) for group in optimizer.param_groups for p in group["params"]]
        names = {}  # of a parameter's states, by its group
        for number, (group, p) in enumerate(groups):
            state = saved["state"][number]
            if not state or names.setdefault(id(group), state.keys()) != state.keys():
                raise ValueError(f"the optimizer's state of weight {number} is not complete")
            if any(t.shape != p.shape or not t.is_floating_point() for t in state.values()):
                raise ValueError(f"the optimizer's state of weight {number} is of another model")


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


def load_shipped(model: Model, path: Path) -> Model:
    """The model with the weights of a file of this repository, in eval mode.

    Raises:
        InputError: the file is missing or holds another model.
    """
    try:
        model.load_state_dict(torch.load(path, weights_only=True))
    except Exception as error:
        raise InputError(
            f"{path} cannot be used ({one_line(error)}): take it from the repository again"
        ) from error
    return model.eval()


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
