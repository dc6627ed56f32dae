"""What `result.json` says of a run beside its options: both bounds, what they depend on."""

import math
import os
import platform
from collections.abc import Mapping
from contextlib import suppress

import matplotlib
import numpy as np
import pytorch_lightning as pl
import tensorboard
import torch
import torchvision
from torch import nn

MODULES = (torch, torchvision, pl, tensorboard, np, matplotlib)


def both_bounds(test: Mapping[str, float], num_pixels: int) -> dict[str, float]:
    """The test result with the parts of the bound with the learned prior, in nats per image.

    Args:
        test: test_prior_bpd, test_reconstruction_loss and more, as `train_vae` returns it.
        num_pixels: of an image.
    Returns:
        also test_prior_ELBO, the negative one, and test_prior_regularization_loss, the KL to the
        learned prior: what remains of it without the reconstruction.
    """
    negative_elbo = test["test_prior_bpd"] * num_pixels * math.log(2)
    return {
        **test,
        "test_prior_ELBO": negative_elbo,
        "test_prior_regularization_loss": negative_elbo - test["test_reconstruction_loss"],
    }


def circumstances(trainer: pl.Trainer, model: nn.Module) -> dict[str, object]:
    """What a result depends on beside the options: number of parameters, versions, machine."""
    device = trainer.strategy.root_device
    return {
        "parameters": {name: num_parameters(part) for name, part in model.named_children()},
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: str(module.__version__) for module in MODULES},
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
