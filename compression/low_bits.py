"""The low bits of 8-bit pixels when the 4-bit image is known.

A level of the 4-bit images stands for 8, 16 or 24 of the 256 grey levels. What is left to say
about a pixel is its offset, its value less the smallest one of its level. `LowBits` gives the
offsets' probabilities pixel by pixel, in reading order, from all 16-level pixels (also the later
ones) and from the offsets before it:

    p(offsets | levels) = prod_i p(offset_i | levels, offset_1, ..., offset_{i-1})

Most of what it knows it copies. MNIST's digits are black and white scans, reduced and smoothed,
and the same edge at the same place between two pixels gives the same value again. So a pixel looks
back at the earlier pixels of its level, and each votes for its own offset, with a weight by how
much the surroundings of the two are alike: attention (https://arxiv.org/abs/1706.03762) that
copies, as a pointer network does (https://arxiv.org/abs/1506.03134).

Pixels of level 0 with only such pixels around them, two thirds of all, are nearly always 0. They
have a fixed probability, and the network is not run for them.

benchmarks/low_bits_training.py trains the network; here it runs on whole numbers, see exact.py.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from constriction import stream
from numpy.typing import NDArray

from compression import exact
from compression.exact import EXP, LIMIT, ONE, Array, dense, linear, log, relu
from compression.latents import TABLE, Stack
from fmnist import SIDE, four_bit
from inputs.command_line import InputError, one_line

WEIGHTS = Path(__file__).resolve().parent.parent / "pretrained" / "low_bits.npz"

LEVEL = four_bit(np.arange(256, dtype=np.uint8))  # of every value
SIZE = np.bincount(LEVEL)  # values in a level: 8, 14 times 16, 24
SMALLEST = SIZE.cumsum() - SIZE  # value of every level
OFFSET = np.arange(256) - SMALLEST[LEVEL]  # of every value
OFFSETS = 24  # most values that a level has
# What the network sees of a value that is known, [256, 2]: its offset from its level's middle in
# eighths, 0 for the value 0, and whether it is another value of level 0.
FROM_MIDDLE = np.where(np.arange(256) == 0, 0, (OFFSET - (SIZE[LEVEL] - 1) / 2) / 8)
SEEN = np.stack([FROM_MIDDLE, (LEVEL == 0) & (OFFSET > 0)], axis=1)
IMPOSSIBLE = np.arange(OFFSETS) >= SIZE[:, np.newaxis]  # [16, 24], the offsets of other levels

REACH = 3  # the surroundings of a pixel are 7x7
WIDE = SIDE + 2 * REACH  # side of an image with a margin for them
AROUND = (np.arange(-REACH, REACH + 1)[:, np.newaxis] * WIDE + np.arange(-REACH, REACH + 1)).ravel()
BEFORE = AROUND[AROUND < 0]
VOTERS = 64  # the latest pixels of the same level that a pixel looks back at
CHUNK = 1024  # pixels that are looked at together, few enough for the processor's cache
FROM_EDGE = 22  # distances to the digit's edges that are told apart; a digit is 20 high or wide

# What is coded at once: no more than so many images, and so many pixels of the network or a few
# more, which take about 300 MB.
MOST_IMAGES, MOST_PIXELS = 256, 2**15

# The offset of a pixel that `Pixels` leaves out is nearly always 0.
BLACK = np.array([2.0**16] + [1] * (int(SIZE[0]) - 1))
PLAINLY_BLACK = stream.model.Categorical(BLACK, perfect=False)

MOST_ALIKE = 8 * ONE  # logs of votes' weights are cut off at 8, and at 8 - 30 ln 2 they are 0


def near_ink(levels: NDArray) -> NDArray[np.bool_]:
    """The pixels that the network is run for, all but those of level 0 amid level 0.

    Args:
        levels: [B, 28, 28], values 0..15.
    """
    ink = np.pad(levels > 0, ((0, 0), (1, 1), (1, 1)))
    rows = ink[:, :-2] | ink[:, 1:-1] | ink[:, 2:]
    return rows[:, :, :-2] | rows[:, :, 1:-1] | rows[:, :, 2:]


class Pixels:
    """The pixels of a batch that the network is run for, and which of them look at which.

    The first ones of all images come first, then the second ones, and so on: `steps` are the slices
    of those that can be coded at once. Every step has one pixel of each image, or none.

    Args:
        levels: [B, 28, 28], values 0..15.
    """

    def __init__(self, levels: NDArray):
        near, levels = near_ink(levels), levels.astype(np.int64)
        image, row, column = near.nonzero()
        per_image = near.sum((1, 2))
        step = np.arange(len(image)) - (per_image.cumsum() - per_image)[image]
        order = step.argsort(kind="stable")
        self.near = near
        self.image, self.row, self.column = image[order], row[order], column[order]
        self.where = self.image, self.row, self.column  # in the batch
        self.level = levels[self.where]
        self.steps = [slice(*ends) for ends in pairwise([0, *np.bincount(step).cumsum().tolist()])]
        ends = [*range(0, len(order), CHUNK), len(order)]
        self.chunks = [slice(*each) for each in pairwise(ends)]
        # Position in the flattened batch with margins
        self.place = (self.image * WIDE + self.row + REACH) * WIDE + self.column + REACH
        self.canvas = np.pad(levels, ((0, 0), (REACH, REACH), (REACH, REACH))).ravel()
        self.edges = self._from_edges(levels)
        self._look_back()

    def _from_edges(self, levels: NDArray[np.int64]) -> NDArray[np.int64]:
        """How far from the digit's first and last row and column: [N, 4], 0..21."""
        edges = []
        for axis, position in ((2, self.row), (1, self.column)):
            inside = (levels > 0).any(axis)
            first, last = inside.argmax(1), SIDE - 1 - inside[:, ::-1].argmax(1)
            edges += [position - first[self.image], last[self.image] - position]
        return (np.stack(edges, axis=1) + 1).clip(0, FROM_EDGE - 1)

    def known(self, part: slice) -> Array:
        """What is known of some pixels from the levels alone, in whole numbers of 1/256: [n, 251].

        The 7x7 levels around it (1 is white), which of them are black and white, its own level
        one-hot, and how far it is from the first and last row and column of the digit, one-hot.
        """
        around = self.canvas.take(self.place[part, np.newaxis] + AROUND)
        edges = self.edges[part, :, np.newaxis] == np.arange(FROM_EDGE)
        own = self.level[part, np.newaxis] == np.arange(16)
        hot = np.concatenate([around == 0, around == 15, own, edges.reshape(len(own), -1)], axis=1)
        grey = (2 * ONE * around + 15) // 30  # rounded
        return np.concatenate([grey, ONE * hot], axis=1).astype(np.float64)

    def _look_back(self) -> None:
        """Pairs of a pixel and one that votes for its offset: [M] each, ordered by pixel."""
        group = self.image * 16 + self.level
        order = group.argsort(kind="stable")
        index = np.arange(len(group))
        sizes = np.bincount(group)
        place = np.empty_like(index)
        place[order] = index  # in that order
        earlier = place - (sizes.cumsum() - sizes)[group]  # pixels of the group before this one
        # Black pixels need no votes, their offset is nearly always 0.
        voters = earlier.clip(max=VOTERS) * (self.level > 0)
        self.stops = [0, *voters.cumsum().tolist()]
        self.pixel = index.repeat(voters)
        nth = np.arange(len(self.pixel)) - (voters.cumsum() - voters)[self.pixel]
        self.voter = order.take(nth + (place - voters).take(self.pixel))
        # 0..27 rows and -27..27 columns apart
        where = self.row * (2 * SIDE - 1) + self.column
        self.apart = where.take(self.pixel) - where.take(self.voter) + SIDE - 1


class LowBits:
    """The network.

    Args:
        weights: whole numbers of 2^-12: `apart`, a row for every distance and a column for each
            head, a way in which pixels can be alike; `doubt`, the log of the weight of a uniform
            vote; then matrix and bias of the layers, in the order of LAYERS.
    """

    LAYERS = ("embed", "query", "key", "static", "dynamic", "hidden", "out", "trust")

    def __init__(self, weights: Iterator[NDArray[np.int32]]):
        scale = ONE / exact.WEIGHT_ONE
        self.apart, doubt = next(weights) * scale + 0.5, np.floor(next(weights) * scale + 0.5)
        self.heads = len(doubt)
        self.doubt = EXP.take((MOST_ALIKE - doubt).astype(np.int64), mode="clip").clip(1)
        self.embed, self.query, self.key, self.static = (dense(weights) for _ in range(4))
        self.dynamic, self.hidden, self.out, self.trust = (dense(weights) for _ in range(4))
        self.scale = 1 / (ONE * math.sqrt(self.query[0].shape[1] / self.heads))

    def look(self, pixels: Pixels) -> tuple[Array, Array, Array]:
        """What depends on the levels alone: a hidden layer's part, queries and keys."""
        parts = []
        for part in pixels.chunks:
            seen = relu(linear(pixels.known(part), *self.embed))
            query, key = linear(seen, *self.query), linear(seen, *self.key)
            shape = (len(seen), self.heads, -1)
            # Products of keys and queries of up to LIMIT each are whole and below 2^53.
            query, key = (x.clip(-LIMIT, LIMIT).reshape(shape) for x in (query, key))
            parts.append((linear(seen, *self.static), query, key))
        return tuple(np.concatenate(part) for part in zip(*parts, strict=True))

    def votes(self, weights: Array, pixel: NDArray, offset: NDArray, count: int) -> Array:
        """Log of the weighted share of each offset, and last of all weight: [count, 25, heads].

        Of pairs: weights [M, heads], the pixels and their voters' offsets [M].
        """
        place = (pixel * OFFSETS + offset)[:, np.newaxis] * self.heads + np.arange(self.heads)
        # Whole numbers: at most 64 of up to 2^30, in any order.
        table = np.bincount(place.ravel(), weights.ravel(), count * OFFSETS * self.heads)
        table = table.reshape(count, OFFSETS, self.heads)
        total = log(table.sum(1, keepdims=True) + self.doubt)
        shares = log(OFFSETS * table + self.doubt) - total
        return np.concatenate([shares, total + MOST_ALIKE], axis=1)

    def logits(self, looked: tuple, pixels: Pixels, part: slice, canvas: Array, offset: NDArray):
        """Of the offsets of some pixels: [n, 24].

        In canvas, `SEEN` [B * 34 * 34, 2], and offset [N], later pixels may have any values.
        """
        static, query, key = looked
        pairs = slice(pixels.stops[part.start], pixels.stops[part.stop])
        pixel, voter = pixels.pixel[pairs], pixels.voter[pairs]
        alike = np.einsum("mhd,mhd->mh", query.take(pixel, axis=0), key.take(voter, axis=0))
        alike = np.floor(alike * self.scale + self.apart.take(pixels.apart[pairs], axis=0))
        weights = EXP.take((MOST_ALIKE - alike).astype(np.int64), mode="clip")
        level = pixels.level[part]
        votes = self.votes(weights, pixel - part.start, offset.take(voter), len(level))
        before = canvas.take(pixels.place[part, np.newaxis] + BEFORE, axis=0)
        seen = np.concatenate([before.reshape(len(level), -1), votes.reshape(len(level), -1)], 1)
        hidden = relu(linear(relu(static[part] + linear(seen, *self.dynamic)), *self.hidden))
        trust = linear(hidden, *self.trust).clip(-LIMIT, LIMIT)[..., np.newaxis]
        copied = np.floor((votes[:, :OFFSETS] @ trust)[..., 0] / ONE + 0.5)
        return np.where(IMPOSSIBLE[level], -(2.0**40), linear(hidden, *self.out) + copied)

    def conditionals(
        self, pixels: Pixels, offset: NDArray[np.int64], parts: Sequence[slice]
    ) -> Iterator[tuple[slice, Array]]:
        """The frequencies [n, 24] of the offsets, part by part: `pixels.steps` or `pixels.chunks`.

        The offsets [N] of a step may be filled in when its frequencies have been seen.
        """
        looked = self.look(pixels)
        canvas = np.zeros((len(pixels.canvas), 2))
        canvas[pixels.place] = ONE * SEEN[SMALLEST[pixels.level] + offset]
        for part in parts:
            yield part, exact.frequencies(self.logits(looked, pixels, part, canvas, offset))
            canvas[pixels.place[part]] = ONE * SEEN[SMALLEST[pixels.level[part]] + offset[part]]

    def push(self, stack: Stack, images: NDArray[np.uint8], progress: Callable) -> NDArray:
        """The low bits of 8-bit images [N, 28, 28] onto the stack; returns the 4-bit images."""
        levels = LEVEL[images]
        for part in progress(together(levels)[::-1], desc="encoding low bits"):
            pixels, offsets = Pixels(levels[part]), OFFSET[images[part]]
            offset = offsets[pixels.where]
            coded = list(self.conditionals(pixels, offset, pixels.chunks))
            for here, weights in reversed(coded):
                stack.encode_reverse(offset[here].astype(np.int32), TABLE, weights)
            stack.encode_reverse(offsets[~pixels.near].astype(np.int32), PLAINLY_BLACK)
        return levels

    def pop(self, stack: Stack, levels: NDArray[np.uint8], progress: Callable) -> NDArray:
        """`push` backwards: the 4-bit images to the 8-bit images, uint8 [N, 28, 28]."""
        images = np.empty_like(levels)
        for part in progress(together(levels), desc="decoding low bits"):
            pixels, offsets = Pixels(levels[part]), np.zeros(levels[part].shape, np.int64)
            offsets[~pixels.near] = stack.decode(PLAINLY_BLACK, int((~pixels.near).sum()))
            offset = np.zeros_like(pixels.level)
            for step, weights in self.conditionals(pixels, offset, pixels.steps):
                offset[step] = stack.decode(TABLE, weights)
            offsets[pixels.where] = offset
            images[part] = SMALLEST[levels[part]] + offsets
        return images


def together(levels: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Which 4-bit images are coded together, in the order of decoding: arrays of their indices.

    Those with about as many pixels for the network, so that hardly a step is left to a few of them.
    """
    count = near_ink(levels).sum((1, 2))
    order = count.argsort(kind="stable")
    group = count[order].cumsum() // MOST_PIXELS
    groups = np.split(order, np.flatnonzero(np.diff(group)) + 1)
    return [part[i : i + MOST_IMAGES] for part in groups for i in range(0, len(part), MOST_IMAGES)]


def load(path: Path = WEIGHTS) -> list[NDArray[np.int32]]:
    """The shipped weights, as `LowBits` takes them.

    Raises:
        InputError: the file is missing or holds something else.
    """
    try:
        with np.load(path) as file:
            weights = list(file.values())
        LowBits(iter(weights))
    except (OSError, ValueError, EOFError, StopIteration, BadZipFile) as error:
        why = f"{path} cannot be used ({one_line(error)})"
        raise InputError(f"{why}: take it from the repository again") from error
    return weights
