"""Encoder and decoder at several moments of a training: kept by a run, read by the page."""

import copy
import math
from io import BytesIO
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn

from inputs.checkpoints import read_checkpoint
from inputs.command_line import InputError, one_line
from inputs.files import write_whole
from runs.folders import CHECKPOINTS, LAST
from runs.logs import log_folder

FOLDER = "epochs"  # in that of the run
EARLY = (1 / 8, 1 / 4, 1 / 2, 3 / 2)  # epochs: most is learned early
NETWORKS = ("encoder", "decoder")


class KeepEpochs(Callback):
    """Keeps encoder and decoder before training, at the moments `EARLY`, and after every epoch.

    The files, such as `epochs/epoch_0.125.pt` in the run's folder, have epoch, hyper_parameters,
    and state_dict in 16-bit floats. Keeping them does not change the training.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.folder = log_folder(trainer) / FOLDER
        if trainer.global_step == 0:
            self._keep(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *batch: object
    ) -> None:
        steps = trainer.num_training_batches
        early = (round(epoch * steps) for epoch in EARLY)
        if trainer.global_step % steps == 0 or trainer.global_step in early:
            self._keep(trainer, pl_module)

    def _keep(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        epoch = trainer.global_step / trainer.num_training_batches
        weights = {k: v.half() for k, v in model.state_dict().items() if k.startswith(NETWORKS)}
        kept = {"epoch": epoch, "hyper_parameters": dict(model.hparams), "state_dict": weights}
        content = BytesIO()
        torch.save(kept, content)
        write_whole(self.folder / f"epoch_{epoch:.3f}.pt", content.getvalue())


def kept_epochs(run: Path, model: nn.Module) -> list[tuple[float, nn.Module]]:
    """What `KeepEpochs` kept in a run's folder: pairs of epoch and model, in order.

    The models are copies of the run's `model`. What an interrupted epoch kept is left out.

    Raises:
        InputError: a file is damaged or of another model.
    """
    found, last = [], run / CHECKPOINTS / LAST
    whole = read_checkpoint(last)["run"]["epochs"] if last.exists() else math.inf
    for path in run.glob(f"{FOLDER}/epoch_*.pt"):
        kept, then = read_checkpoint(path), copy.deepcopy(model)
        try:
            others = then.load_state_dict(kept["state_dict"], strict=False)
            if others.unexpected_keys or any(k.startswith(NETWORKS) for k in others.missing_keys):
                raise ValueError("it has other layers")
            if kept["epoch"] <= whole:
                found.append((float(kept["epoch"]), then.eval()))
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} is not of this run's model ({one_line(error)}): remove the folder {FOLDER}"
            ) from error
    return sorted(found, key=lambda pair: pair[0])
