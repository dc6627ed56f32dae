"""What keeps a run from being lost: its folder, its last checkpoint, its lock.

A run that is killed at any moment goes on from `last.ckpt` and ends with the same files, because
- all randomness of an epoch derives from (seed, epoch, process), never from what came before;
- a file is complete beside its place before it is moved there (`write_whole`);
- what `last.ckpt` does not know of is dropped: TensorBoard's `purge_step` hides the points after
  it, and `metrics.csv` is written anew from the rows in it;
- an outdated best checkpoint is removed only after a `last.ckpt` that names another one.
"""

import argparse
import difflib
import json
import math
import os
import shlex
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only

from inputs.checkpoints import read_checkpoint
from inputs.command_line import InputError, check_writable, given_options, one_line, to_argv
from inputs.files import write_csv
from runs.folders import CHECKPOINTS, LAST, RESULT, SETTINGS, TABLE, find_run, locked, new_folder
from runs.from_checkpoint import check_classes

# Options that may be others when a run is resumed, as they do not change its result; of --devices
# and --num_nodes only the product does, the number of processes.
MAY_DIFFER = {"data_dir", "data", "num_workers", "progress_bar", "resume"}
MAY_DIFFER |= {"accelerator", "strategy", "devices", "num_nodes"}
PLACE = {"log_dir", "resume"}  # options that say where a run is, and are none of its own


def images_of(record: Mapping[str, object]) -> object:
    """What tells a data module's images from others, of its hyperparameters; not where they are."""
    return record.get("digest") or (record.get("dataset"), record.get("bits"))


def check_plain(what: str, hparams: Mapping[str, object]) -> None:
    """Raises InputError for hyperparameters that a checkpoint without code cannot hold."""
    for name, value in hparams.items():
        try:
            json.dumps(value)
        except TypeError as error:
            raise InputError(
                f"{what}: its hyperparameter {name} is a {type(value).__name__}, not plain values: "
                f"leave it out by save_hyperparameters(ignore=[{name!r}]), or take its name"
            ) from error


@dataclass
class State:
    """What a checkpoint holds of a run beside the state of Lightning's trainer."""

    options: dict[str, object] = field(default_factory=dict)
    hparams: dict[str, object] = field(default_factory=dict)  # the model's, when the run began
    seeded: bool = True  # whether the seed covers the model's weights at the start
    lengths: list[int] = field(default_factory=list)  # epochs asked for, by each extension too
    processes: int = 1  # that train together
    step: int = 0  # optimiser steps and whole epochs that are done
    epochs: int = 0
    seconds: float = 0.0  # since the run began, without the time between its parts
    rows: list[dict[str, object]] = field(default_factory=list)  # of metrics.csv
    best: float = math.inf  # value of the monitored metric, the file of that model, and its epoch
    best_name: str = ""
    best_epoch: int = 0  # counted from 1


class Run:
    """A run at work: its options, its folder and, if it is resumed, what its last checkpoint says.

    `settings` are all options, `state` is that of the last whole epoch, `folder` is set by `begin`;
    `maker` is what --model needs to continue: "" nothing, None where the command cannot do it.

    Args:
        parser: of the command line; its types and defaults are those of the options.
        options: the options that are given, by name; others take the run's or the parser's values.
        held: holds the folder's lock, so that no other process and no other thread works there.
            Only rank zero holds it, and writes.
    Raises:
        InputError: an option makes no sense or contradicts those of the run to resume; that run
            is not there, damaged, finished, or at work.
    """

    def __init__(
        self, parser: argparse.ArgumentParser, options: Mapping[str, object], held: ExitStack
    ):
        known = vars(parser.parse_args([]))
        for name in options.keys() - known.keys():
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise InputError(f"there is no option {name!r}: did you mean {nearest!r}?")
        self.state, self.held, self.maker = State(), held, ""
        given = given_options(parser, to_argv(options))
        self.settings = argparse.Namespace(**{**known, **given})
        self.resumed = self.settings.resume is not False
        if self.resumed:
            self._hold(find_run(self.settings.resume, self.settings.log_dir))
            self._read(known, given)
        check_writable("--log_dir", self.settings.log_dir)

    @property
    def last(self) -> Path:
        return self.folder / CHECKPOINTS / LAST

    @property
    def best(self) -> Path:
        return self.folder / CHECKPOINTS / self.state.best_name

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    @property
    def options(self) -> dict[str, object]:
        return {k: v for k, v in vars(self.settings).items() if k not in PLACE}

    @property
    def remedy(self) -> str:
        """How to go on after its end by whatever cause."""
        if not self.last.exists():
            return "no checkpoint is left: start again"
        folder, epochs = str(self.folder), self.settings.epochs
        if self.maker is None:
            more = f", epochs={epochs}" if self.resumed else ""
            return f"continue with train_vae(Namespace(resume={folder!r}{more}), ...), as before"
        more = f" --epochs {epochs}" if self.resumed else ""
        more += f" --model {shlex.quote(self.maker)}" if self.maker else ""
        return f"continue with: python train_pl.py --resume {shlex.quote(folder)}{more}"

    def _hold(self, folder: Path) -> None:
        self.folder = folder
        if rank_zero_only.rank == 0:
            self.held.enter_context(locked(folder))

    def _read(self, known: dict[str, object], given: dict[str, object]) -> None:
        """Takes the options from the run; those that are given must not contradict them."""
        self.saved = read_checkpoint(self.last)
        try:
            self.state = State(**self.saved["run"])
            before = {**self.state.options, "log_dir": str(self.folder.parent), "resume": False}
            if before.keys() != known.keys():
                raise ValueError("it has other options")
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"argument --resume: {self.last} is not of this version ({one_line(repr(error))}): "
                "continue it with the version that began it"
            ) from error
        if "log_dir" in given:
            given["log_dir"] = os.path.abspath(given["log_dir"])
        for name, value in given.items():
            more = name == "epochs" and value > before[name]
            if name not in MAY_DIFFER and value != before[name] and not more:
                raise InputError(
                    f"argument --{name}: the run in {self.folder} has {before[name]}, not {value}: "
                    f"leave it out{', or give more' if name == 'epochs' else ''}"
                )
        self.settings = argparse.Namespace(**{**before, **given})
        if (self.folder / RESULT).exists() and self.settings.epochs <= self.state.epochs:
            raise InputError(
                f"argument --resume: the run in {self.folder} is finished: to train it for more "
                f"than its {before['epochs']} epochs, give --epochs"
            )
        if self.state.best_name and not self.best.exists():
            raise InputError(f"argument --resume: {self.best}, the best so far, is missing")

    def begin(
        self,
        processes: int,
        model: pl.LightningModule,
        data: pl.LightningDataModule,
        seeded: bool,
    ) -> None:
        """Makes a new run's folder; a resumed one's table of epochs is again as it was saved.

        Args:
            processes: that train together.
            seeded: whether the seed covers the model's weights at the start.
        Raises:
            InputError: the run to resume had another number of processes, another model or other
                images; a checkpoint could not be read that has these hyperparameters.
        """
        first = rank_zero_only.rank == 0
        check_plain("model", model.hparams)
        check_plain("data", data.hparams)
        if not self.resumed:
            log_dir = Path(self.settings.log_dir)  # the others are told the folder by Lightning
            self._hold(new_folder(log_dir) if first else log_dir / "none")
            self.state.hparams, self.state.processes = dict(model.hparams), processes
            self.state.seeded = seeded
        elif (before := self.state.processes) != processes:
            raise InputError(
                f"argument --devices: the run in {self.folder} has {before} processes, not "
                f"{processes}: give as many, as the batches of a step depend on it"
            )
        else:
            self._check(model, data)
            if first:
                write_csv(self.folder / TABLE, self.state.rows)
        given = {name: self.options[name] for name in ("data_dir", "data") if self.options[name]}
        self.state.options = self.options | {k: os.path.abspath(v) for k, v in given.items()}
        if self.settings.epochs not in self.state.lengths[-1:]:
            self.state.lengths.append(self.settings.epochs)
        self.begun = time.monotonic() - self.state.seconds

    def _check(self, model: pl.LightningModule, data: pl.LightningDataModule) -> None:
        """Raises InputError unless the run began with such a model and the same images."""
        began = self.saved.get("datamodule_hyper_parameters") or {}
        if images_of(began) != images_of(data.hparams):
            now = data.hparams.get("dataset", type(data).__name__)
            then = began.get("dataset", "a data module of its own")
            raise InputError(
                f"argument --resume: the images ({now}) are not those that the run in "
                f"{self.folder} began with ({then}): give the same again, or start a new run"
            )
        check_classes(model, self.saved, f"argument --resume: {self.last}")
        weights = self.saved["state_dict"], model.state_dict()
        shapes = ({name: w.shape for name, w in each.items()} for each in weights)
        for one, other in ((self.state.hparams, dict(model.hparams)), shapes):
            if differ := [str(k) for k in one | other if one.get(k) != other.get(k)]:
                raise InputError(
                    f"argument --resume: the model of {self.folder} has another "
                    f"{', '.join(differ[:3])}: continue it by train_vae(..., model=...) with the "
                    "model that it began with"
                )
        self.saved.clear()

    def discard_result(self) -> None:
        """Removes what a finished run says of its end, as one more epoch or test replaces it."""
        if rank_zero_only.rank == 0:
            for outdated in (RESULT, SETTINGS):
                (self.folder / outdated).unlink(missing_ok=True)
