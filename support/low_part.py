"""The low bits of 8-bit images, onto the stack of an archive and off it again."""

from collections.abc import Iterator

import numpy as np
import torch
from constriction import stream
from torch import Tensor

from low_bits import FIRST, LEVEL, SIZE, LowBits, Pixels

PIXEL = stream.model.Categorical(perfect=False)

# The offset of a pixel that `Pixels` leaves out is 0 as good as always.
BLACK = np.array([1] + [2**-16] * (int(SIZE[0]) - 1), np.float32)
PLAINLY_BLACK = stream.model.Categorical(BLACK / BLACK.sum(), perfect=False)

BATCH = 64  # images: more are a tenth faster, but 64 white ones take 600 MB already


def parts(count: int) -> Iterator[slice]:
    """The batches of so many images, in the order of decoding."""
    return (slice(start, min(start + BATCH, count)) for start in range(0, count, BATCH))


def push(stack: stream.stack.AnsCoder, model: LowBits, values: Tensor) -> None:
    """The offsets of all pixels onto the stack: long [B, 28, 28], 0..255."""
    levels = LEVEL[values]
    pixels, offsets = Pixels(levels), values - FIRST[levels]
    offset = offsets[pixels.image, pixels.row, pixels.column]
    conditionals, sent, probabilities = model.conditionals(levels), None, []
    for step in pixels.steps:
        probabilities.append(conditionals.send(sent))
        sent = offset[step]
    if probabilities:
        stack.encode_reverse(to_symbols(offset), PIXEL, torch.cat(probabilities).numpy())
    stack.encode_reverse(to_symbols(offsets[~pixels.near]), PLAINLY_BLACK)


def pop(stack: stream.stack.AnsCoder, model: LowBits, levels: Tensor) -> Tensor:
    """`push` backwards: the levels long [B, 28, 28], 0..15, to the values long [B, 28, 28]."""
    pixels, offsets = Pixels(levels), torch.zeros_like(levels)
    black = stack.decode(PLAINLY_BLACK, int((~pixels.near).sum()))
    offsets[~pixels.near] = torch.from_numpy(black).long()
    conditionals, sent = model.conditionals(levels), None
    for step in pixels.steps:
        probabilities = conditionals.send(sent)
        sent = torch.from_numpy(stack.decode(PIXEL, probabilities.numpy())).long()
        offsets[pixels.image[step], pixels.row[step], pixels.column[step]] = sent
    return FIRST[levels] + offsets


def to_symbols(values: Tensor) -> np.ndarray:
    return values.numpy().astype(np.int32)
