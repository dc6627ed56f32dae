"""The low bits of 8-bit images, onto the stack of an archive and off it again."""

from collections.abc import Callable

import numpy as np
import torch
from constriction import stream
from torch import Tensor

from compression.latents import TABLE, Stack
from compression.low_bits import LEVEL, OFFSET, SIZE, SMALLEST, LowBits, Pixels, near_ink
from fmnist import four_bit

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


def push(stack: Stack, model: LowBits, images: np.ndarray, progress: Callable) -> np.ndarray:
    """The low bits of 8-bit images [N, 28, 28] onto the stack.

    Args:
        progress: tqdm.
    Returns:
        the 4-bit images, uint8 [N, 28, 28].
    """
    levels = four_bit(images)
    for part in progress(parts(levels)[::-1], desc="encoding low bits"):
        values = torch.from_numpy(images[part]).long()
        pixels, offsets = Pixels(LEVEL[values]), OFFSET[values]
        offset = offsets[pixels.where]
        probabilities = [each for _, each in model.conditionals(pixels, offset)]
        if probabilities:
            stack.encode_reverse(to_symbols(offset), TABLE, torch.cat(probabilities).numpy())
        stack.encode_reverse(to_symbols(offsets[~pixels.near]), PLAINLY_BLACK)
    return levels


def pop(stack: Stack, model: LowBits, levels: np.ndarray, progress: Callable) -> np.ndarray:
    """`push` backwards: the 4-bit images to the 8-bit images, uint8 [N, 28, 28]."""
    images = np.empty_like(levels)
    for part in progress(parts(levels), desc="decoding low bits"):
        known = torch.from_numpy(levels[part]).long()
        pixels, offsets = Pixels(known), torch.zeros_like(known)
        black = stack.decode(PLAINLY_BLACK, int((~pixels.near).sum()))
        offsets[~pixels.near] = torch.from_numpy(black).long()
        offset = torch.zeros_like(pixels.level)
        for step, probabilities in model.conditionals(pixels, offset):
            offset[step] = torch.from_numpy(stack.decode(TABLE, probabilities.numpy())).long()
        offsets[pixels.where] = offset
        images[part] = (SMALLEST[known] + offsets).numpy()
    return images


def to_symbols(values: Tensor) -> np.ndarray:
    return values.numpy().astype(np.int32)
