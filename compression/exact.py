"""Networks on whole numbers: the same result, to the last bit, on every machine.

Float64 holds every whole number up to 2^53. Sums and products of whole numbers that stay below are
exact: in any order, on any processor, fused or not, in every version of every BLAS. So a network
runs on whole numbers here (Ballé et al. 2019, "Integer networks for data compression with
latent-variable models"):

    a weight is a whole number of 2^-12, what goes from layer to layer one of 2^-8,
    a layer is a float64 matrix product and floor(t + 1/2),
    exp, log and SiLU are tables over whole numbers.

All of it is NumPy, whose matrix products add up products and do nothing else; a fast convolution
(Winograd, FFT) would round. What torch is set to (default dtype, device, autocast) plays no part.
"""

from collections.abc import Callable, Iterator
from decimal import Context, Decimal, localcontext
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from cnn_encoder_decoder import CNNDecoder, CNNEncoder, ResidualBlock
from inputs.command_line import InputError, one_line

Array = NDArray[np.float64]  # whole numbers, but for the weights in `dense`

ONE = 2**8  # what stands for 1, of all that goes from layer to layer, and of logs in nats
WEIGHT_ONE = 2**12  # what stands for 1, of weights
LIMIT = 2**16  # no layer is given a larger number than this (256.0), or a smaller one than -LIMIT


with localcontext(Context(prec=50)):  # `decimal` rounds correctly on every machine
    RATIO = int((Decimal(-1) / ONE).exp() * 2**100)
    LOG_TWO = float(Decimal(2).ln() * ONE)


def exp_table() -> NDArray[np.int64]:
    """2^30 exp(-t/256) for t = 0, 1, ..., until it is 0, by Python's integers."""
    powers, power = [], 2**100
    while not powers or powers[-1]:
        powers.append((power + 2**69) >> 70)
        power = power * RATIO >> 100
    return np.array(powers)


def silu_table(powers: NDArray[np.int64]) -> Array:
    """SiLU of -LIMIT..LIMIT: x sigmoid(x) = max(x, 0) - |x| / (1 + exp|x|)."""
    x = np.arange(-LIMIT, LIMIT + 1)
    power = powers.take(np.abs(x), mode="clip")
    total = powers[0] + power
    below = (2 * np.abs(x) * power + total) // (2 * total)
    return (np.maximum(x, 0) - below).astype(np.float64)


def log_table(powers: NDArray[np.int64], size: int = 2**11) -> Array:
    """256 ln(m) of m = 1/2..1 in so many steps: the place of 2^30 m among the powers."""
    middles = (np.arange(size) + size + 0.5) / (2 * size)
    between = (powers[:ONE] + powers[1 : ONE + 1]) / 2
    return -np.searchsorted(-between, -powers[0] * middles).astype(np.float64)


POWERS = exp_table()
EXP, SILU, LOG = POWERS.astype(np.float64), silu_table(POWERS), log_table(POWERS)


def frequencies(logs: Array) -> Array:
    """Whole numbers up to 2^30 in proportion to exp(logs / 256), along the last axis."""
    return EXP.take((logs.max(-1, keepdims=True) - logs).astype(np.int64), mode="clip")


def log(x: Array) -> Array:
    """256 ln(x / 2^30), rounded, of whole numbers x > 0."""
    mantissa, exponent = np.frexp(x)  # exact
    part = LOG.take(((2 * mantissa - 1) * len(LOG)).astype(np.int64))
    return np.floor((exponent - 30) * LOG_TWO + part + 0.5)


def log_sum_exp(logs: Array) -> Array:
    """256 ln(sum(exp(logs / 256))) along the last axis, rounded."""
    return logs.max(-1) + log(frequencies(logs).sum(-1))  # up to 2^23 of them: below 2^53


def whole(weights: Tensor) -> NDArray[np.int32]:
    """Weights as whole numbers of 2^-12.

    Times a power of two, and so before it is rounded, a float32 is exact in float64.

    Raises:
        InputError: a weight is not finite, or 2^19 or more.
    """
    values = np.rint(weights.detach().cpu().double().numpy() * WEIGHT_ONE)
    if not (np.abs(values) < 2**31).all():
        raise InputError("the model has weights that are no numbers, or too large: train it anew")
    return values.astype(np.int32)


def describe(layer: nn.Module, weights: list[NDArray[np.int32]]) -> list[list]:
    """A network as `prepare` takes it: a list of [kind, sizes ...].

    Appends the weights of each layer to `weights`: its matrix [..., inputs, outputs], its bias.

    Raises:
        InputError: there is no such layer here, or `whole` refuses its weights.
    """
    if type(layer).forward in (CNNEncoder.forward, CNNDecoder.forward):
        return describe(layer.net, weights)
    if type(layer) is nn.Sequential:
        return [described for child in layer for described in describe(child, weights)]
    if isinstance(layer, ResidualBlock):
        return [["residual", describe(layer.net, weights)]]
    if type(layer) in (nn.SiLU, nn.ReLU, nn.Flatten):
        return [[type(layer).__name__.lower()]]
    if isinstance(layer, nn.Unflatten):
        return [["unflatten", *layer.unflattened_size]]
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        more = layer.groups, layer.dilation, layer.padding_mode, layer.output_padding
        square = len({*layer.stride}) == len({*layer.padding}) == 1
        plain = square and more == (1, (1, 1), "zeros", (0, 0))
        meets = plain and (layer.kernel_size, layer.padding) == (layer.stride, (0, 0))
    if isinstance(layer, nn.Linear):
        described, matrix = ["linear"], whole(layer.weight).T
    elif isinstance(layer, nn.Conv2d) and plain:
        described = ["conv", layer.stride[0], layer.padding[0]]
        matrix = whole(layer.weight).transpose(2, 3, 1, 0)
    elif isinstance(layer, nn.ConvTranspose2d) and meets:
        described = ["up", layer.stride[0]]
        matrix = whole(layer.weight).transpose(0, 2, 3, 1).reshape(layer.in_channels, -1)
    else:
        raise InputError(
            f"no archive can be made with {one_line(layer)}: compression/exact.py knows the layers "
            "that come out the same on every machine"
        )
    bias = np.zeros(1, np.int32) if layer.bias is None else whole(layer.bias)
    weights += [matrix, np.tile(bias, matrix.shape[-1] // len(bias))]
    return [described]


def dense(weights: Iterator[NDArray[np.int32]]) -> tuple[Array, Array]:
    """A layer's matrix and bias, 1/2 for the rounding included, as they are multiplied and added.

    What is added up are whole multiples of 2^-12. As inputs are up to LIMIT, no sum of a part of
    them can be larger than `most`. While that is below 2^41, they are whole numbers below 2^53.

    Raises:
        InputError: the weights are so large that it is not.
    """
    matrix = next(weights) / WEIGHT_ONE
    bias = next(weights) * (ONE / WEIGHT_ONE) + 0.5
    most = LIMIT * np.abs(matrix).reshape(-1, len(bias)).sum(0) + np.abs(bias)
    if most.max() >= 2**41:
        raise InputError("the model's weights are too large for exact sums: train it anew")
    return matrix, bias


def linear(x: Array, matrix: Array, bias: Array) -> Array:
    """Whole numbers [..., inputs] to whole numbers [..., outputs]."""
    total = x.reshape(-1, x.shape[-1]) @ matrix
    total += bias
    return np.floor(total, out=total).reshape(*x.shape[:-1], -1)


def silu(x: Array) -> Array:
    """Of x beyond LIMIT, that of LIMIT."""
    index = x.astype(np.int64)
    index += LIMIT
    return SILU.take(index, mode="clip")


def relu(x: Array) -> Array:
    """Of x beyond LIMIT, LIMIT."""
    return x.clip(0, LIMIT)


def convolve(x: Array, matrix: Array, bias: Array, stride: int, padding: int) -> Array:
    """Images [B, H, W, inputs], kernel [k, k, inputs, outputs]: see torch's conv2d."""
    if (*matrix.shape[:2], stride, padding) == (1, 1, 1, 0):
        return linear(x, matrix[0, 0], bias)
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x, (height, width) = np.pad(x, around), matrix.shape[:2]
    rows, columns = (x.shape[1] - height) // stride + 1, (x.shape[2] - width) // stride + 1
    total = np.broadcast_to(bias, (len(x), rows, columns, len(bias))).copy()
    for i, j in np.ndindex(height, width):
        here = x[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
        total += here @ matrix[i, j]
    return np.floor(total, out=total)


def up(x: Array, matrix: Array, bias: Array, scale: int) -> Array:
    """Each pixel of [B, H, W, inputs] to a square of scale x scale pixels that touch no others."""
    batch, height, width, _ = x.shape
    squares = linear(x, matrix, bias).reshape(batch, height, width, scale, scale, -1)
    return squares.swapaxes(2, 3).reshape(batch, height * scale, width * scale, -1)


KINDS = {
    **{"linear": linear, "conv": convolve, "up": up, "silu": silu, "relu": relu},
    "flatten": lambda x: x.transpose(0, 3, 1, 2).reshape(len(x), -1),
    "unflatten": lambda x, *sizes: x.reshape(-1, *sizes).transpose(0, 2, 3, 1),
}


def prepare(
    layers: list[list], weights: Iterator[NDArray[np.int32]], limited: bool = True
) -> Callable[[Array], Array]:
    """A network of `describe` as a function of whole numbers; images are [B, H, W, channels].

    Args:
        limited: what it is given is within LIMIT. Where that is not sure, it is made so before it
            is multiplied; behind SiLU and ReLU it is sure.
    Raises:
        InputError: see `dense`.
    """
    steps: list[Callable[[Array], Array]] = []
    for kind, *sizes in layers:
        if kind == "residual":
            inner = prepare(*sizes, weights, limited=False)
            steps.append(lambda x, inner=inner: x + inner(x))
        else:
            if kind in ("linear", "conv", "up"):
                sizes = [*dense(weights), *sizes]
                steps += [] if limited else [lambda x: x.clip(-LIMIT, LIMIT)]
            steps.append(lambda x, run=KINDS[kind], sizes=sizes: run(x, *sizes))
        limited = kind in ("silu", "relu") or (limited and kind in ("flatten", "unflatten"))
    return lambda x: reduce(lambda x, step: step(x), steps, x)
