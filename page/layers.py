"""A model as the page runs it: lists of layers, with their weights in 16 bits each.

The page computes everything itself, in plain JavaScript. A library would be the larger part of it:
onnxruntime-web 1.30 alone has 14 MB.
"""

import base64

import torch
from torch import Tensor, nn

from cnn_encoder_decoder import CNNDecoder, CNNEncoder, Conv1x1, ResidualBlock
from inputs.command_line import InputError
from prior import LatentPrior

BLOCK = 64  # weights that share a scale


def packed(values: Tensor, dtype: str = "<f4") -> str:
    """Numbers as base64, in the order of the tensor; "<f4" are little-endian 32-bit floats."""
    return base64.b64encode(values.detach().cpu().numpy().astype(dtype).tobytes()).decode()


class Weights:
    """The weights of all networks in one row; each layer knows its part of it."""

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
        """All numbers as 16-bit integers, with a scale for each block.

        This is some ten times closer than 16-bit floats, with which the logits of a model of 32
        latents are wrong by 0.03.
        """
        row = torch.cat(self.parts)
        blocks = nn.functional.pad(row, (0, -len(row) % BLOCK)).view(-1, BLOCK)
        scales = (blocks.abs().amax(dim=1, keepdim=True) / 32767).clamp(min=1e-30)
        return {
            "block": BLOCK,
            "scales": packed(scales),
            "integers": packed((blocks / scales).round(), "<i2"),
        }


def describe(layer: nn.Module, weights: Weights) -> list[dict[str, object]]:
    """A network as the page runs it: a list of layers, each with its kind, sizes and weights.

    Raises InputError for other layers, and for subclasses, which may compute something else.
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
        described = {"kind": "linear", "features": layer.out_features}
        weight, size = layer.weight, layer.out_features
    elif kind in (nn.Conv2d, Conv1x1, nn.ConvTranspose2d) and is_plain(layer):
        transposed = kind is nn.ConvTranspose2d
        described = {
            "kind": "conv_transpose2d" if transposed else "conv2d",
            "channels": layer.out_channels,
            "kernel": layer.kernel_size,
            "stride": layer.stride,
            "padding": layer.padding,
        }
        order = (2, 3, 1, 0) if transposed else (0, 2, 3, 1)  # the page's channels are innermost
        weight, size = layer.weight.permute(order), layer.out_channels
    else:
        raise InputError(
            f"the page cannot compute {layer}: add this kind of layer to page/networks.js "
            "and to describe in page/layers.py, or give another checkpoint"
        )
    bias = torch.zeros(size) if layer.bias is None else layer.bias
    return [{**described, "weight": weights.add(weight), "bias": weights.add(bias)}]


def is_plain(layer: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Whether a convolution has only a kernel, a stride and zeros around the image."""
    more = (layer.groups, layer.dilation, layer.output_padding, layer.padding_mode)
    return more == (1, (1, 1), (0, 0), "zeros") and not isinstance(layer.padding, str)


def describe_prior(prior: LatentPrior, weights: Weights) -> dict[str, object]:
    """The learned prior as the page runs it, latent by latent.

    The page gets only the weights that are not masked: the first ones of each row.

    Returns:
        width, components; known[i], how many hidden units see only the latents before i; classes;
        first, middle and last: weight, bias, and starts, where each row begins in weight.
    """
    described = {}
    for name in ("first", "middle", "last"):
        layer, mask = getattr(prior, name), getattr(prior, f"{name}_mask").bool()
        lengths = mask.sum(dim=1)
        described[name] = {
            "weight": weights.add(layer.weight[mask]),
            "bias": weights.add(layer.bias),
            "starts": [0, *lengths.cumsum(dim=0).tolist()],
        }
    return {
        "width": prior.first.out_features,
        "components": prior.num_components,
        "known": lengths[:: 3 * prior.num_components].tolist(),  # of the last layer
        "classes": weights.add(prior.class_embedding.weight),
        **described,
    }


def networks(model: nn.Module) -> dict[str, object]:
    """Encoder, decoder and prior as the page runs them; their weights are in this order."""
    known = {"encoder": CNNEncoder, "decoder": CNNDecoder, "prior": LatentPrior}
    for part, kind in known.items():
        if (found := type(getattr(model, part))) is not kind:  # what it computes is not known
            raise InputError(
                f"the page cannot compute {found.__name__} as {part}: give a model with "
                f"{kind.__name__}"
            )
    weights = Weights()
    return {
        "zDim": model.prior.z_dim,
        "temperature": model.hparams.temperature,
        "encoder": describe(model.encoder.net, weights),
        "decoder": describe(model.decoder.net, weights),
        "prior": describe_prior(model.prior, weights),
        "weights": weights.packed(),
    }


def weights_at(model: nn.Module) -> dict[str, object]:
    """The weights of a model's encoder and decoder, in the places that `networks` gives them."""
    weights = Weights()
    describe(model.encoder.net, weights)
    describe(model.decoder.net, weights)
    return weights.packed()
