"""A model as its checkpoint says it is: its class, its arguments, its weights; also one's own."""

import argparse
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from pytorch_lightning import LightningModule
from torch import nn

from inputs.checkpoints import read_checkpoint
from inputs.command_line import InputError, one_line, path_name

Model = TypeVar("Model", bound=LightningModule)


def add_checkpoint(parser: argparse.ArgumentParser, default: Path) -> None:
    """The argument of all commands that begin with a trained model."""
    help = "a .ckpt file, or a run's log directory for its best one"
    parser.add_argument("checkpoint", nargs="?", type=path_name, default=str(default), help=help)
    add_model(parser)


def add_model(parser: argparse.ArgumentParser) -> None:
    """The option for models of one's own, beside every checkpoint that is given."""
    help = "the class or function that makes your own model, such as research.py:Logistic"
    parser.add_argument("--model", type=named_in_file, metavar="FILE:NAME", help=help)


def named_in_file(text: str) -> Callable:
    """An argparse type: what has this name in a Python file, "file.py:name", which it imports."""
    file, _, name = text.rpartition(":")
    path = Path(file).resolve()
    if path.suffix != ".py" or not path.is_file():
        raise argparse.ArgumentTypeError(f"{text!r}: give a Python file and a name in it, a.py:B")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # for what it imports too, as `python file.py` does
    try:
        module = importlib.import_module(path.stem)
        if getattr(module, "__file__", None) != str(path):
            raise ImportError("a module has this name already, rename the file")
        return getattr(module, name)
    except Exception as error:  # anything, as it is the user's own code that runs
        what = f"{type(error).__name__}: {one_line(error)}"
        raise argparse.ArgumentTypeError(f"{text!r}: {what}: try `python {file}` alone") from error


def built(make: Callable[..., Model], values: Mapping[str, object]) -> Model:
    """What a class or function makes of those of the values, by name, that it has arguments for."""
    arguments = inspect.signature(make).parameters.values()
    known = {argument.name for argument in arguments}
    if any(argument.kind is argument.VAR_KEYWORD for argument in arguments):
        known |= {name for name in values if not name.startswith("_")}  # those are LightningCLI's
    return make(**{name: value for name, value in values.items() if name in known})


def file_of(made: Callable) -> str | None:
    """The file of a class or function; none of a notebook's."""
    return getattr(sys.modules.get(getattr(made, "__module__", None)), "__file__", None)


def maker_of(make: Callable) -> str | None:
    """What --model needs to find a class or function: None where it has no file or name.

    None also of a script that is at work, as it may train again when it is imported.
    """
    make = getattr(make, "func", make)  # that of a functools.partial
    name, file = getattr(make, "__qualname__", "<object>"), file_of(make)
    at_work = getattr(make, "__module__", None) == "__main__"
    return None if file is None or at_work or "<" in name else f"{os.path.relpath(file)}:{name}"


def classes_of(model: nn.Module) -> dict[str, str]:
    """The classes of a model and of its parts, "file.py:Name" each, as a checkpoint says them."""
    kinds = {"model": type(model)}
    kinds |= {part: type(module) for part, module in model.named_children()}
    files = {part: Path(file_of(kind) or "FILE").name for part, kind in kinds.items()}
    return {part: f"{files[part]}:{kind.__qualname__}" for part, kind in kinds.items()}


def check_classes(
    model: nn.Module, checkpoint: Mapping[str, object], where: str = "the checkpoint"
) -> None:
    """Raises InputError where a checkpoint says that it is of other classes: by name, in any file.

    Without this, weights that happen to fit would be used by networks that compute something else.
    """
    own = classes_of(model)
    for part, name in checkpoint.get("model_classes", {}).items():
        if name.split(":")[-1] != own.get(part, "").split(":")[-1]:
            if part == "model":
                raise InputError(f"{where} is of a {name}: give --model {name}")
            raise InputError(
                f"{where} has a {name} as {part}: give what made it, --model FILE:NAME"
            )


def read_model(make: Callable[..., Model], path: Path, **more: object) -> Model:
    """The Lightning module in a checkpoint, on the CPU.

    Args:
        make: its class, or a function that makes it; gets the hyperparameters in the checkpoint.
        more: arguments that it takes beside these.
    Raises:
        InputError: see `read_checkpoint`, and for a checkpoint of another model or with weights
            that are not finite.
    """
    checkpoint = read_checkpoint(path)
    try:
        model = built(make, {**checkpoint["hyper_parameters"], **more})
        check_classes(model, checkpoint, f"checkpoint {path}")
        model.load_state_dict(checkpoint["state_dict"])
        for name, weights in model.state_dict().items():
            if not weights.isfinite().all():
                raise ValueError(f"{name} has values that are not finite")
    except InputError:
        raise
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"checkpoint {path} is of another model ({one_line(error)}): give one that this "
            "version wrote, or what made it by --model FILE:NAME"
        ) from error
    return model
