"""The low bits of 8-bit images, onto the stack of an archive and off it again."""

import numpy as np
import torch
from constriction import stream
from torch import Tensor

from compression.latents import TABLE, Stack
from compression.low_bits import LEVEL, SIZE, SMALLEST, LowBits, Pixels, near_ink

# The offset of a pixel that `Pixels` leaves out is 0 as good as always.
BLACK = np.array([1] + [2**-16] * (int(SIZE[0]) - 1), np.float32)
PLAINLY_BLACK = stream.model.Categorical(BLACK / BLACK.sum(), perfect=False)

# What is coded at once: no more than so many images, and so many pixels of the network or a few
# more, which take about 300 MB.
IMAGES, PIXELS = 256, 2**15


def parts(levels: np.ndarray) -> list[np.ndarray]:
    """Which images are coded together, in the order of decoding: long arrays of their indices.

    Images with about as many pixels for the network go together, so that hardly a step is left to
    a few of them.

    Args:
        levels: the 4-bit images, uint8 [N, 28, 28].
    """
    if len(levels) == 0:
        return []
    count = [near_ink(some).flatten(1).sum(1) for some in torch.from_numpy(levels).split(IMAGES)]
    count, order = torch.cat(count).sort(stable=True)
    group = count.cumsum(0) // PIXELS
    groups = order.split(group.bincount().tolist())
    return [some.numpy() for group in groups for some in group.split(IMAGES)]


def push(stack: Stack, model: LowBits, values: Tensor) -> None:
    """The offsets of all pixels onto the stack: long [B, 28, 28], 0..255."""
    levels = LEVEL[values]
    pixels, offsets = Pixels(levels), values - SMALLEST[levels]
    offset = offsets[pixels.image, pixels.row, pixels.column]
    conditionals, sent, probabilities = model.conditionals(levels), None, []
    for step in pixels.steps:
        probabilities.append(conditionals.send(sent))
        sent = offset[step]
    if probabilities:
        stack.encode_reverse(to_symbols(offset), TABLE, torch.cat(probabilities).numpy())
    stack.encode_reverse(to_symbols(offsets[~pixels.near]), PLAINLY_BLACK)


def pop(stack: Stack, model: LowBits, levels: Tensor) -> Tensor:
    """`push` backwards: the levels long [B, 28, 28], 0..15, to the values long [B, 28, 28]."""
    pixels, offsets = Pixels(levels), torch.zeros_like(levels)
    black = stack.decode(PLAINLY_BLACK, int((~pixels.near).sum()))
    offsets[~pixels.near] = torch.from_numpy(black).long()
    conditionals, sent = model.conditionals(levels), None
    for step in pixels.steps:
        probabilities = conditionals.send(sent)
        sent = torch.from_numpy(stack.decode(TABLE, probabilities.numpy())).long()
        offsets[pixels.image[step], pixels.row[step], pixels.column[step]] = sent
    return SMALLEST[levels] + offsets


def to_symbols(values: Tensor) -> np.ndarray:
    return values.numpy().astype(np.int32)
