"""How large a model is."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def sizes(model: nn.Module) -> dict[str, dict[str, int]]:
    """How many parameters each part of a model has, and its `flops_per_image`."""
    parts = {name: num_parameters(part) for name, part in model.named_children()}
    return {"parameters": parts, "flops_per_image": flops_per_image(model)}


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
