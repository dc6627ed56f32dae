"""What explore.py writes into the page: the model as lists of layers, and figures to check it by.

The page computes everything itself, in plain JavaScript (beside this file): the networks are lists
of layers with their weights in 16 bits each. A library would be the larger part of the page:
onnxruntime-web 1.30 alone has 14 MB.
"""

import base64
import json
import math
import re
from pathlib import Path

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torchvision import datasets

import fmnist
from boundary.checks import check_finite
from boundary.command_line import (
    InputError,
)
from cnn_encoder_decoder import ResidualBlock
from fmnist import DiscreteImages
from prior import LatentPrior
from utils import KLD, elbo_to_bpd, kl_per_dimension, reconstruction_loss

PARTS = Path(__file__).resolve().parent  # page.html and what it takes in
NUM_JUDGED = 2000  # test images that the mean figures come from
PER_CLASS = 2  # test images in the page, from each of the ten classes; the self-test uses them
NUM_POINTS = 600  # test images shown as points in a latent plane
CHECKED = 8  # the self-test compares every eighth pixel's logits, of other pixels for every image
NUM_DRAWS = 5000  # from the learned prior, for the ends of the sliders
BLOCK = 64  # weights that share a scale
SEED = 42
NOUNS = {"MNIST": "digit", "FashionMNIST": "garment", "KMNIST": "character"}


def packed(values: Tensor, dtype: str) -> str:
    """Numbers as base64, in the order of the tensor; "<f4" are little-endian 32-bit floats."""
    return base64.b64encode(values.detach().cpu().numpy().astype(dtype).tobytes()).decode()


class Weights:
    """The numbers of all networks in one row; the networks say which part of it is whose."""

    def __init__(self) -> None:
        self.parts: list[Tensor] = []
        self.length = 0

    def add(self, tensor: Tensor) -> dict[str, int]:
        """Appends a tensor; where it begins and how many numbers it has."""
        part = {"start": self.length, "length": tensor.numel()}
        self.parts.append(tensor.detach().float().flatten())
        self.length += tensor.numel()
        return part

    def packed(self) -> dict[str, object]:
        """All numbers as 16-bit integers; each block of them has a scale of its own.

        That takes the place of 16-bit floats, but is some ten times closer: with those, the logits
        of a model of 32 latents are wrong by 0.03.
        """
        row = torch.cat(self.parts)
        blocks = nn.functional.pad(row, (0, -len(row) % BLOCK)).view(-1, BLOCK)
        scales = (blocks.abs().amax(dim=1, keepdim=True) / 32767).clamp(min=1e-30)
        return {
            "block": BLOCK,
            "scales": packed(scales, "<f4"),
            "integers": packed((blocks / scales).round(), "<i2"),
        }


def describe(layer: nn.Module, weights: Weights) -> list[dict[str, object]]:
    """A network as the page runs it: a list of layers, each with its kind, sizes and weights.

    Only exact types count, as a subclass may compute something else.

    Raises:
        InputError: the page has no such layer; page and this function have to be extended.
    """
    kind = type(layer)
    if kind is nn.Sequential:
        return [described for child in layer for described in describe(child, weights)]
    if kind is ResidualBlock:
        return [{"kind": "residual", "layers": describe(layer.net, weights)}]
    if kind is nn.SiLU:
        return [{"kind": "silu"}]
    if kind is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1):
        return [{"kind": "flatten"}]
    if kind is nn.Unflatten and layer.dim == 1 and len(layer.unflattened_size) == 3:
        sizes = zip(("channels", "height", "width"), layer.unflattened_size, strict=True)
        return [{"kind": "unflatten", **dict(sizes)}]
    if kind is nn.Linear:
        return [
            {
                "kind": "linear",
                "features": layer.out_features,
                "weight": weights.add(layer.weight),
                "bias": weights.add(bias_of(layer, layer.out_features)),
            }
        ]
    if kind in (nn.Conv2d, nn.ConvTranspose2d) and is_plain(layer):
        transposed = kind is nn.ConvTranspose2d
        order = (2, 3, 1, 0) if transposed else (0, 2, 3, 1)  # the page's channels are innermost
        return [
            {
                "kind": "conv_transpose2d" if transposed else "conv2d",
                "channels": layer.out_channels,
                "kernel": layer.kernel_size,
                "stride": layer.stride,
                "padding": layer.padding,
                "weight": weights.add(layer.weight.permute(order)),
                "bias": weights.add(bias_of(layer, layer.out_channels)),
            }
        ]
    raise InputError(
        f"the page cannot compute {layer}: add this kind of layer to page/networks.js "
        "and to describe in page/contents.py, or give another checkpoint"
    )


def is_plain(layer: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Whether a convolution has nothing but a kernel, a stride and zeros around the image."""
    return (
        (layer.groups, layer.dilation, layer.padding_mode) == (1, (1, 1), "zeros")
        and layer.output_padding == (0, 0)
        and not isinstance(layer.padding, str)
    )


def bias_of(layer: nn.Module, size: int) -> Tensor:
    return torch.zeros(size) if layer.bias is None else layer.bias


def describe_prior(prior: LatentPrior, weights: Weights) -> dict[str, object]:
    """The learned prior as the page runs it, latent by latent.

    Of a masked layer's row the page gets the inputs that the mask lets through. These are its first
    ones, as hidden units stand in the order of how many latents they see.

    Returns:
        width, components; known[i], how many hidden units see no more than the latents before i;
        classes, float [10, width]; first, middle and last: weight (the rows, one after the other),
        bias, and starts, where each row begins in weight, with the end of the last one.
    """
    layers = {"first": prior.first, "middle": prior.middle, "last": prior.last}
    width = prior.first.out_features
    described, lengths = {}, {}
    for name, layer in layers.items():
        mask = getattr(prior, f"{name}_mask").bool()
        lengths[name] = mask.sum(dim=1)
        described[name] = {
            "weight": weights.add(layer.weight[mask]),
            "bias": weights.add(layer.bias),
            "starts": [0, *lengths[name].cumsum(dim=0).tolist()],
        }
    return {
        "width": width,
        "components": prior.num_components,
        "known": lengths["last"][:: 3 * prior.num_components].tolist(),
        "classes": weights.add(prior.class_embedding.weight),
        **described,
    }


def examples(data: DiscreteImages) -> DiscreteImages:
    """The first images of every class, one class after the other."""
    firsts = [(data.labels == label).nonzero()[:PER_CLASS, 0] for label in range(10)]
    return data.subset(torch.cat(firsts))


@torch.no_grad()
def typical(model: nn.Module, data: DiscreteImages) -> dict[str, object]:
    """What images cost on the average, and the latents in the order of what they tell.

    Returns:
        images, how many; bpd, the mean over them with one z each; latents, a list of {index, kl
        (nats), low, high (the slider's ends)}.
    """
    imgs = data.images[:NUM_JUDGED].long()
    encoded = [model.encoder(part) for part in imgs.split(250)]
    mean, log_std = (torch.cat(part) for part in zip(*encoded, strict=True))
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(SEED))
    z = mean + log_std.exp() * noise
    pairs = zip(z.split(250), imgs.split(250), strict=True)
    L_rec = torch.cat([reconstruction_loss(model.decoder(part), x) for part, x in pairs])
    kl = kl_per_dimension(mean, log_std).mean(dim=0)
    low, high = slider_range(model)
    return {
        "images": len(imgs),
        "bpd": elbo_to_bpd(L_rec + KLD(mean, log_std), imgs.shape).mean().item(),
        "latents": [
            {
                "index": d,
                "kl": kl[d].item(),
                "low": math.floor(10 * low[d]) / 10,
                "high": math.ceil(10 * high[d]) / 10,
            }
            for d in kl.argsort(descending=True).tolist()
        ],
    }


def slider_range(model: nn.Module) -> tuple[Tensor, Tensor]:
    """The ends of the sliders, float [z_dim] each: what the prior reaches, all but 1 in 500."""
    with isolate_rng(include_cuda=False):
        torch.manual_seed(SEED)
        z = model.prior.sample(NUM_DRAWS)
    return z.quantile(0.001, dim=0), z.quantile(0.999, dim=0)


@torch.no_grad()
def self_test(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, object]:
    """What PyTorch computes for these images, with the weights as they are, in 32 bits.

    Args:
        images: uint8 [N, 1, 28, 28], values 0..15.
        labels: long [N], their classes.
    """
    imgs = images.long()
    mean, log_std = model.encoder(imgs)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(SEED))
    z = mean + log_std.exp() * noise
    logits = model.decoder(z)
    L_rec, L_reg = reconstruction_loss(logits, imgs), KLD(mean, log_std)
    pixels = logits.flatten(2).mT  # [N, 784, 16]
    checked = [image[-n % CHECKED :: CHECKED] for n, image in enumerate(pixels)]
    mixtures = torch.stack(model.prior.conditionals(z, labels), dim=2)
    return {
        "every": CHECKED,
        "noise": packed(noise, "<f4"),
        "mean": packed(mean, "<f4"),
        "logStd": packed(log_std, "<f4"),
        "logits": packed(torch.cat(checked), "<f4"),
        "bpd": elbo_to_bpd(L_rec + L_reg, imgs.shape).tolist(),
        "mixtures": packed(mixtures, "<f4"),
        "logPrior": model.prior.log_prob(z, labels).tolist(),
    }


def points(model: nn.Module, data: DiscreteImages) -> dict[str, object] | None:
    """Where test images lie in a latent space of one or two dimensions, which has a map."""
    if model.prior.z_dim > 2:
        return None
    shown = data.subset(torch.arange(min(NUM_POINTS, len(data))))
    mean, _ = model.encoder(shown.images.long())
    return {"mean": packed(mean, "<f4"), "labels": shown.labels.tolist()}


def class_names(dataset: str) -> list[str]:
    """What the ten classes are called."""
    return [name.split(" - ")[0] for name in getattr(datasets, dataset).classes]


def networks(model: nn.Module) -> dict[str, object]:
    """The model itself: encoder, decoder and prior as the page runs them, with their weights."""
    weights = Weights()
    return {
        "zDim": model.prior.z_dim,
        "temperature": model.hparams.temperature,
        "encoder": describe(model.encoder.net, weights),
        "decoder": describe(model.decoder.net, weights),
        "prior": describe_prior(model.prior, weights),
        "weights": weights.packed(),
    }


def contents(model: nn.Module, data: DiscreteImages, name: str, dataset: str) -> dict[str, object]:
    """All that the page knows, ready to be written as JSON."""
    chosen = examples(data)
    return {
        "name": name,
        "dataset": dataset,
        "classes": class_names(dataset),
        **networks(model),
        "typical": typical(model, data),
        "images": packed(chosen.images, "u1"),
        "labels": chosen.labels.tolist(),
        "points": points(model, data),
        "check": self_test(model, chosen.images, chosen.labels),
    }


def page(model: nn.Module, data: DiscreteImages, name: str, dataset: str) -> str:
    """The whole page.

    Args:
        name: the checkpoint's, for the reader.
        dataset: of the images, for the reader.
    Raises:
        InputError: a layer that the page cannot have.
        FloatingPointError: the model's outputs are not finite numbers.
    """
    known = contents(model, data, name, dataset)
    check_finite(torch.tensor([known["typical"]["bpd"], *known["check"]["bpd"]]))
    return filled(known)


def filled(known: dict[str, object]) -> str:
    """The page of these `contents`: page.html with all that it takes in."""
    model_json = json.dumps(known, separators=(",", ":"))
    values = {
        "model": model_json.replace("<", r"\u003c"),  # nothing in it can end the script
        "size": "one number" if known["zDim"] == 1 else f"{known['zDim']} numbers",
        "images": f"{fmnist.NUM_TRAIN:,}",
        "noun": NOUNS[known["dataset"]],
        "dataset": known["dataset"],
    }

    def value(found: re.Match) -> str:
        name = found[1]
        return values[name] if name in values else (PARTS / name).read_text(encoding="utf-8")

    return re.sub("@@(.+?)@@", value, (PARTS / "page.html").read_text(encoding="utf-8"))
