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
from torch.utils.flop_counter import FlopCounterMode

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
    if note := beta_note(run.options["beta"]):
        about["note"] = note
    if trainer.is_global_zero:
        write_whole(run.folder / RESULT, json.dumps({**result, **about}, indent=2).encode())
    print_once(summary(run, trainer, result))


def beta_note(beta: float) -> str:
    """What has to stand beside bounds of a model that was not trained on them; else nothing."""
    if beta == 1:
        return ""
    return f"trained with beta {beta:g}; all bounds are the ELBO's, where the KL has weight 1"


def environment(trainer: pl.Trainer, model: nn.Module) -> dict[str, object]:
    """What a result depends on beside the options: number of parameters, versions, machine."""
    device = trainer.strategy.root_device
    return {
        "model": {"class": type(model).__name__, **model.hparams},
        "parameters": {name: num_parameters(part) for name, part in model.named_children()},
        "flops_per_image": flops_per_image(model),
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


@torch.no_grad()
def flops_per_image(model: nn.Module) -> dict[str, int]:
    """Floating point operations of each part for one image, a multiplication and addition being 2.

    Torch counts those of convolutions and matrix products. The prior's are for one class.
    """
    imgs = torch.zeros(1, 1, 28, 28, dtype=torch.long, device=model.device)
    (mean, _), label = model.encoder(imgs), imgs.new_zeros(1)
    parts = {
        "encoder": lambda: model.encoder(imgs),
        "decoder": lambda: model.decoder(mean),
        "prior": lambda: model.prior.log_prob(mean, label),
    }
    counts = {}
    for name, run in parts.items():
        with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
            run()
        counts[name] = counter.get_total_flops()
    return counts


def num_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    with suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def summary(run: Run, trainer: pl.Trainer, test: Mapping[str, float]) -> str:
    """What a run prints at its end: both bounds, and where everything is."""
    lines = [
        "\nTest of the best checkpoint (by the validation bpd with the unit Gaussian):",
        f"unit Gaussian  {test['test_bpd']:.4f} bpd"
        f" = {test['test_reconstruction_loss']:.1f} nats reconstruction"
        f" + {test['test_regularization_loss']:.1f} nats KL",
        f"learned prior  {test['test_prior_bpd']:.4f} bpd",
        *(f"Note:          {note}" for note in [beta_note(run.options["beta"])] if note),
        f"Pictures:      {run.folder / '*.png'}",
        f"Results:       {run.folder / RESULT}, {TABLE}",
        f"Checkpoint:    {run.best}",
    ]
    if test.get("test_active_units") == 0:
        lines.append("No latent is active, z says nothing: give more --epochs or a smaller --beta")
    return "\n".join([*lines, *(f"TensorBoard:   {each}" for each in watch_commands(trainer))])
