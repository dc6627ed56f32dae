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
from runs.folders import RESULT, TABLE
from runs.logs import print_once, watch_commands
from runs.run import Run

PACKAGES = ("torchvision", "pytorch_lightning", "tensorboard", "numpy", "matplotlib")
COMPARED = ("z_dim", "seed", "beta", "epochs", "lr", "num_filters", "batch_size", "dataset")


def test_best(
    run: Run, trainer: pl.Trainer, model: pl.LightningModule, data: object
) -> dict[str, float]:
    """Lightning's test result of the run's best checkpoint, which the model has from then on."""
    run.discard_result()
    print_once("Testing the best epoch, placing the test images, judging samples: a minute or so")
    (test,) = trainer.test(
        model, datamodule=data, ckpt_path=run.best, weights_only=True, verbose=False
    )
    model.eval()  # Lightning has put it back into training
    return test


def finish(
    run: Run, trainer: pl.Trainer, model: nn.Module, result: Mapping[str, object], words: str
) -> None:
    """Logs the result's numbers, writes `result.json`, prints these words and where everything is.

    On TensorBoard's page "HParams" a run is a line of options and results.

    Args:
        result: what Lightning's test and others have found out.
    """
    numbers = {name: value for name, value in result.items() if isinstance(value, float)}
    metrics = {name.replace("test_", "test/"): numbers[name] for name in sorted(numbers)}
    data = trainer.datamodule
    trained_on = {"dataset": type(data).__name__, **data.hparams}
    options = {name: (run.options | trained_on)[name] for name in COMPARED}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(options, metrics, step=trainer.global_step)
        logger.finalize("success")
    about = {
        "best_epoch": run.state.best_epoch,
        "best_checkpoint": run.state.best_name,
        "trained_on": trained_on,
        **environment(trainer),
        "model": {"class": type(model).__name__, **run.state.hparams},
        "options": run.options,
        "lengths": run.state.lengths,
        "seeded": run.state.seeded,
        "seconds": round(run.seconds, 1),
    }
    if trainer.is_global_zero:
        write_whole(run.folder / RESULT, json.dumps({**result, **about}, indent=2).encode())
    print_once(f"{words}\nPictures:      {run.folder / '*.png'}")
    print_once(f"Results:       {run.folder / RESULT}, {TABLE}")
    print_once("\n".join([f"Checkpoint:    {run.best}", *watch_commands(trainer)]))


def environment(trainer: pl.Trainer) -> dict[str, object]:
    """What a result depends on beside the options: versions and machine."""
    device = trainer.strategy.root_device
    return {
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


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    with suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
