"""The low bits of 8-bit pixels when the 4-bit image is known; low_bits_training.py fits the model.

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

Pixels of level 0 with only such pixels around them, two thirds of all, are 0 as good as always.
They have a fixed probability, and the network is not run for them.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from constriction import stream
from torch import Tensor, nn

from compression.latents import TABLE, Stack
from fmnist import SIDE, four_bit
from inputs.checkpoints import load_shipped

WEIGHTS = Path(__file__).resolve().parent.parent / "pretrained" / "low_bits.pt"

LEVEL = torch.from_numpy(four_bit(np.arange(256, dtype=np.uint8))).long()  # of every value
SIZE = LEVEL.bincount()  # values in a level: 8, 14 times 16, 24
SMALLEST = SIZE.cumsum(0) - SIZE  # value of every level
OFFSET = torch.arange(256) - SMALLEST[LEVEL]  # of every value
OFFSETS = 24  # most values that a level has
# What the network sees of a value that is known, [256, 2]: its offset from its level's middle, 0
# for the value 0, and whether it is another value of level 0.
FROM_MIDDLE = ((OFFSET - (SIZE[LEVEL] - 1) / 2) / 8).masked_fill(torch.arange(256) == 0, 0)
SEEN = torch.stack([FROM_MIDDLE, ((LEVEL == 0) & (OFFSET > 0)).float()], dim=1)
IMPOSSIBLE = torch.arange(OFFSETS) >= SIZE.unsqueeze(1)  # [16, 24], the offsets of other levels

REACH = 3  # the surroundings of a pixel are 7x7
WIDE = SIDE + 2 * REACH  # side of an image with a margin for them
AROUND = torch.tensor(
    [row * WIDE + column for row in range(-REACH, REACH + 1) for column in range(-REACH, REACH + 1)]
)
BEFORE = AROUND[AROUND < 0]
VOTERS = 64  # the latest pixels of the same level that a pixel looks back at
CHUNK = 1024  # pixels that are looked at together, few enough for the processor's cache
FROM_EDGE = 22  # distances to the digit's edges that are told apart; a digit is 20 high or wide

# What is coded at once: no more than so many images, and so many pixels of the network or a few
# more, which take about 300 MB.
MOST_IMAGES, MOST_PIXELS = 256, 2**15

# The offset of a pixel that `Pixels` leaves out is 0 as good as always.
BLACK = np.array([1] + [2**-16] * (int(SIZE[0]) - 1), np.float32)
PLAINLY_BLACK = stream.model.Categorical(BLACK / BLACK.sum(), perfect=False)


def near_ink(levels: Tensor) -> Tensor:
    """The pixels that the network is run for, all but those of level 0 amid level 0: bool.

    Args:
        levels: [B, 28, 28], values 0..15.
    """
    return F.max_pool2d((levels > 0).float(), kernel_size=3, stride=1, padding=1) > 0


class Pixels:
    """The pixels of a batch that the network is run for, and which of them look at which.

    The first ones of all images come first, then the second ones, and so on: `steps` are the slices
    of those that can be coded at once. Every step has one pixel of each image, or none.

    Args:
        levels: long [B, 28, 28], values 0..15.
    """

    def __init__(self, levels: Tensor):
        near = near_ink(levels)
        image, row, column = near.nonzero(as_tuple=True)
        per_image = near.flatten(1).sum(1)
        step = torch.arange(len(image)) - (per_image.cumsum(0) - per_image)[image]
        order = step.argsort(stable=True)
        self.near = near
        self.image, self.row, self.column = image[order], row[order], column[order]
        self.where = self.image, self.row, self.column  # in the batch
        self.level = levels[self.where]
        stops = step.bincount().cumsum(0).tolist()
        self.steps = [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]
        # Position in the flattened batch with margins
        self.place = (self.image * WIDE + self.row + REACH) * WIDE + self.column + REACH
        self.canvas = F.pad(levels, (REACH,) * 4).flatten()
        self.edges = self._from_edges(levels)
        self._look_back()

    def _from_edges(self, levels: Tensor) -> Tensor:
        """How far from the digit's first and last row and column: long [N, 4], 0..21."""
        edges = []
        for axis, position in ((2, self.row), (1, self.column)):
            inside = (levels > 0).any(axis).int()
            first, last = inside.argmax(1), SIDE - 1 - inside.flip(1).argmax(1)
            edges += [position - first[self.image], last[self.image] - position]
        return (torch.stack(edges, dim=1) + 1).clamp(0, FROM_EDGE - 1)

    def known(self, part: slice) -> Tensor:
        """What is known of some pixels from the levels alone: float [n, 251].

        The 7x7 levels around it, which of them are black and white, its own level one-hot, and how
        far it is from the first and last row and column of the digit, one-hot.
        """
        around = (self.place[part, None] + AROUND).flatten()
        around = self.canvas.index_select(0, around).view(-1, len(AROUND))
        return torch.cat(
            [
                around / 15,
                around == 0,
                around == 15,
                F.one_hot(self.level[part], 16),
                F.one_hot(self.edges[part], FROM_EDGE).flatten(1),
            ],
            dim=1,
        )

    def _look_back(self) -> None:
        """Pairs of a pixel and one that votes for its offset: long [M] each, ordered by pixel."""
        group = self.image * 16 + self.level
        order = group.argsort(stable=True)
        index = torch.arange(len(group))
        sizes = group.bincount()
        place = torch.empty_like(index).scatter(0, order, index)  # in that order
        earlier = place - (sizes.cumsum(0) - sizes)[group]  # pixels of the group before this one
        # Black pixels need no votes, their offset is nearly always 0.
        voters = earlier.clamp(max=VOTERS) * (self.level > 0)
        self.stops = [0, *voters.cumsum(0).tolist()]
        self.pixel = index.repeat_interleave(voters)
        nth = torch.arange(len(self.pixel)) - (voters.cumsum(0) - voters)[self.pixel]
        self.voter = order.index_select(0, nth.add_((place - voters).index_select(0, self.pixel)))
        # 0..27 rows and -27..27 columns apart
        where = self.row * (2 * SIDE - 1) + self.column
        self.apart = where.index_select(0, self.pixel) - where.index_select(0, self.voter)
        self.apart += SIDE - 1


class LowBits(nn.Module):
    """The context model.

    Args:
        width: of the hidden layers.
        heads: ways in which pixels can be alike.
        key_dim: numbers by which each is judged.
    """

    def __init__(self, width: int = 192, heads: int = 4, key_dim: int = 16):
        super().__init__()
        self.heads, self.key_dim = heads, key_dim
        known = 3 * len(AROUND) + 16 + 4 * FROM_EDGE
        self.embed = nn.Linear(known, width)
        self.query = nn.Linear(width, heads * key_dim)
        self.key = nn.Linear(width, heads * key_dim)
        self.apart = nn.Parameter(torch.zeros(SIDE * (2 * SIDE - 1), heads))
        self.doubt = nn.Parameter(torch.full((heads,), -3.0))  # log of a uniform vote's weight
        self.static = nn.Linear(width, width)
        self.dynamic = nn.Linear(2 * len(BEFORE) + (OFFSETS + 1) * heads, width, bias=False)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, OFFSETS)
        self.trust = nn.Linear(width, heads)
        nn.init.zeros_(self.trust.weight)
        nn.init.constant_(self.trust.bias, 0.3)

    def look(self, pixels: Pixels) -> tuple[Tensor, Tensor, Tensor]:
        """What depends on the levels alone: a hidden layer's part, queries and keys."""
        shape, parts = (-1, self.heads, self.key_dim), []
        for start in range(0, max(1, len(pixels.level)), CHUNK):
            embedded = self.embed(pixels.known(slice(start, start + CHUNK))).relu()
            query, key = self.query(embedded).view(shape), self.key(embedded).view(shape)
            parts.append((self.static(embedded), query / self.key_dim**0.5, key))
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def votes(self, weights: Tensor, pixel: Tensor, offset: Tensor, count: int) -> Tensor:
        """Log of the weighted share of each offset, and last of their weight in all.

        Args:
            weights: float [M, heads], of each pair.
            pixel, offset: long [M], the pixel and its voter's offset.
        Returns:
            float [count, 25, heads]
        """
        table = weights.new_zeros(count * OFFSETS, self.heads)
        table = table.index_add(0, pixel * OFFSETS + offset, weights)
        table = table.view(count, OFFSETS, self.heads)
        doubt = self.doubt.exp()
        total = table.sum(1, keepdim=True) + doubt
        return torch.cat([(OFFSETS * table + doubt).log() - total.log(), total.log()], dim=1)

    def logits(self, looked, pixels: Pixels, step: slice, canvas: Tensor, offset: Tensor) -> Tensor:
        """Of the offsets of the pixels in a step: float [n, 24].

        Args:
            canvas: float [B * 34 * 34, 2], `SEEN` of the values; later pixels may have any.
            offset: long [N], likewise.
        """
        static, query, key = looked
        pairs = slice(pixels.stops[step.start], pixels.stops[step.stop])
        pixel, voter = pixels.pixel[pairs], pixels.voter[pairs]
        alike = (query.index_select(0, pixel) * key.index_select(0, voter)).sum(2)
        alike = alike + self.apart.index_select(0, pixels.apart[pairs])
        level = pixels.level[step]
        voted = offset.index_select(0, voter)
        votes = self.votes(alike.clamp(-15, 8).exp(), pixel - step.start, voted, len(level))
        before = (pixels.place[step, None] + BEFORE).flatten()
        before = canvas.index_select(0, before).view(len(level), -1)
        seen = torch.cat([before, votes.flatten(1)], dim=1)
        hidden = self.hidden((static[step] + self.dynamic(seen)).relu()).relu()
        copied = (votes[:, :OFFSETS] @ self.trust(hidden).unsqueeze(2)).squeeze(2)
        impossible = IMPOSSIBLE.index_select(0, level)
        return (self.out(hidden) + copied).masked_fill(impossible, -torch.inf)

    def forward(self, values: Tensor) -> Tensor:
        """The cost of the offsets, in nats.

        Args:
            values: long [B, 28, 28], 0..255.
        Returns:
            float [N], for every pixel that is not plainly black.
        """
        pixels = Pixels(LEVEL[values])
        offset = OFFSET[values][pixels.where]
        canvas = torch.zeros(len(pixels.canvas), 2)
        canvas[pixels.place] = SEEN[values[pixels.where]]
        whole = slice(0, len(offset))
        logits = self.logits(self.look(pixels), pixels, whole, canvas, offset)
        return F.cross_entropy(logits, offset, reduction="none")

    def conditionals(self, pixels: Pixels, offset: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The probabilities of the offsets, step by step.

        Encoding and decoding run the same operations on the same shapes, and so see the same
        numbers.

        Args:
            offset: long [N], of all pixels; those of a step may be filled in when its
                probabilities have been seen.
        Yields:
            the step, and float [n, 24], the probabilities of one pixel's offset in each of n
            images.
        """
        looked = self.look(pixels)
        canvas = torch.zeros(len(pixels.canvas), 2)
        for step in pixels.steps:
            yield step, self.logits(looked, pixels, step, canvas, offset).softmax(1)
            canvas[pixels.place[step]] = SEEN[SMALLEST[pixels.level[step]] + offset[step]]

    def push(self, stack: Stack, images: np.ndarray, progress: Callable) -> np.ndarray:
        """The low bits of 8-bit images [N, 28, 28] onto the stack.

        Args:
            progress: tqdm.
        Returns:
            the 4-bit images, uint8 [N, 28, 28].
        """
        levels = four_bit(images)
        for part in progress(together(levels)[::-1], desc="encoding low bits"):
            values = torch.from_numpy(images[part]).long()
            pixels, offsets = Pixels(LEVEL[values]), OFFSET[values]
            offset = offsets[pixels.where]
            probabilities = [each for _, each in self.conditionals(pixels, offset)]
            if probabilities:
                stack.encode_reverse(to_symbols(offset), TABLE, torch.cat(probabilities).numpy())
            stack.encode_reverse(to_symbols(offsets[~pixels.near]), PLAINLY_BLACK)
        return levels

    def pop(self, stack: Stack, levels: np.ndarray, progress: Callable) -> np.ndarray:
        """`push` backwards: the 4-bit images to the 8-bit images, uint8 [N, 28, 28]."""
        images = np.empty_like(levels)
        for part in progress(together(levels), desc="decoding low bits"):
            known = torch.from_numpy(levels[part]).long()
            pixels, offsets = Pixels(known), torch.zeros_like(known)
            black = stack.decode(PLAINLY_BLACK, int((~pixels.near).sum()))
            offsets[~pixels.near] = torch.from_numpy(black).long()
            offset = torch.zeros_like(pixels.level)
            for step, probabilities in self.conditionals(pixels, offset):
                offset[step] = torch.from_numpy(stack.decode(TABLE, probabilities.numpy())).long()
            offsets[pixels.where] = offset
            images[part] = (SMALLEST[known] + offsets).numpy()
        return images


def together(levels: np.ndarray) -> list[np.ndarray]:
    """Which images are coded together, in the order of decoding: long arrays of their indices.

    Images with about as many pixels for the network go together, so that hardly a step is left to
    a few of them.

    Args:
        levels: the 4-bit images, uint8 [N, 28, 28].
    """
    if len(levels) == 0:
        return []
    parts = torch.from_numpy(levels).split(MOST_IMAGES)
    count, order = torch.cat([near_ink(part).flatten(1).sum(1) for part in parts]).sort(stable=True)
    group = count.cumsum(0) // MOST_PIXELS
    groups = order.split(group.bincount().tolist())
    return [part.numpy() for group in groups for part in group.split(MOST_IMAGES)]


def to_symbols(values: Tensor) -> np.ndarray:
    return values.numpy().astype(np.int32)


def load(path: Path = WEIGHTS) -> LowBits:
    """Raises InputError where the file is missing or holds another model."""
    return load_shipped(LowBits(), path)
