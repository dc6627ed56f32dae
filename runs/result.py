"""The end of a run: its best model is tested, and `result.json` says all that comes of it."""

import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn

from inputs.files import write_whole
from runs.folders import RESULT
from runs.logs import print_once, watch_commands
from runs.run import Run
from runs.table import TABLE, log_step
from runs.tensorboard import RunTensorBoard

PACKAGES = ("torchvision", "pytorch_lightning", "tensorboard", "numpy", "matplotlib")
COMPARED = ("z_dim", "seed", "beta", "epochs", "lr", "num_filters", "batch_size", "dataset")


def test_best(
    run: Run, trainer: pl.Trainer, model: pl.LightningModule, data: object
) -> dict[str, float]:
    """Lightning's test result of the run's best checkpoint, which the model has from then on."""
    run.discard_result()
    print_once("Testing the best epoch, placing the test images, judging samples: a minute or so")
    for logger in trainer.loggers:
        if isinstance(logger, RunTensorBoard):
            logger.begin_results(log_step(trainer))
    (test,) = trainer.test(
        model, datamodule=data, ckpt_path=run.best, weights_only=True, verbose=False
    )
    return test


def finish(run: Run, trainer: pl.Trainer, model: nn.Module, result: Mapping[str, object]) -> None:
    """Logs the result's numbers, writes `result.json` and prints the summary.

    On TensorBoard's page "HParams" a run is a line of options and results.

    Args:
        result: test_bpd and its parts, test_prior_bpd, and whatever else the run has found out.
    """
    numbers = {name: value for name, value in result.items() if isinstance(value, float)}
    bpd_first = sorted(numbers, key=lambda name: (name != "test_bpd", not name.endswith("bpd")))
    metrics = {name: numbers[name] for name in bpd_first}
    trained_on = dict(trainer.datamodule.hparams)
    options = {name: (run.options | trained_on)[name] for name in COMPARED}
    for logger in trainer.loggers:
        if isinstance(logger, RunTensorBoard):
            logger.log_result(options, metrics)
            logger.experiment.close()  # also ends the thread that writes its file
        else:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(options, metrics, step=log_step(trainer))
            logger.finalize("success")
    about = {"best_epoch": run.state.best_epoch, "trained_on": trained_on}
    about |= environment(trainer, model)
    about |= {"options": run.options, "seconds": round(run.seconds, 1)}
    if trainer.is_global_zero:
        write_whole(run.folder / RESULT, json.dumps({**result, **about}, indent=2).encode())
    print_once(summary(run, trainer, result))


def environment(trainer: pl.Trainer, model: nn.Module) -> dict[str, object]:
    """What a result depends on beside the options: number of parameters, versions, machine."""
    device = trainer.strategy.root_device
    return {
        "model": {"class": type(model).__name__, **model.hparams},
        "parameters": {name: num_parameters(part) for name, part in model.named_children()},
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,  # with its kind of device, such as +cpu
            **{name: metadata.version(name) for name in PACKAGES},
        },
        "machine": {
            "system": platform.platform(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "processes": trainer.world_size,
        },
    }


def num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    with suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def summary(run: Run, trainer: pl.Trainer, test: Mapping[str, object]) -> str:
    """What a run prints at its end: both bounds, and where everything is."""
    lines = [
        "\nTest of the best checkpoint (by the validation bpd with the unit Gaussian):",
        f"unit Gaussian  {test['test_bpd']:.4f} bpd"
        f" = {test['test_reconstruction_loss']:.1f} nats reconstruction"
        f" + {test['test_regularization_loss']:.1f} nats KL",
        f"learned prior  {test['test_prior_bpd']:.4f} bpd",
        *([f"Note:          {test['note']}"] if "note" in test else []),
        f"Pictures:      {run.folder / '*.png'}",
        f"Results:       {run.folder / RESULT}, {TABLE}",
        f"Checkpoint:    {run.best}",
    ]
    if test.get("test_active_units") == 0:
        lines.append("No latent is active, z says nothing: give more --epochs or a smaller --beta")
    return "\n".join([*lines, *(f"TensorBoard:   {each}" for each in watch_commands(trainer))])
