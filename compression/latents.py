"""How latents are coded: on a grid, under the encoder's posterior and the learned prior's mixtures.

A latent is a whole number of bins of 1/64. What the entropy coder is handed are whole numbers in
proportion to a Gaussian's density at every bin, from a table: see exact.py.
"""

from collections.abc import Iterator
from decimal import Context, Decimal, localcontext
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from constriction import stream
from numpy.typing import NDArray

from compression import exact
from compression.exact import EXP, ONE, Array, frequencies, linear, silu

Stack = stream.stack.AnsCoder
TABLE = stream.model.Categorical(perfect=False)  # divides and adds, no more, to make probabilities

BIN = ONE // 64  # a finer grid is not better
RADIUS = 256  # bins from 0 that a latent may be away: -4 to 4
ANYWHERE = np.arange(-RADIUS, RADIUS + 1)

# constriction gives every bin a probability of at least 2^-24. Among all bins, one draw of z in a
# thousand would fall where the decoder knows nothing, and its image would cost a hundred times the
# usual. So a posterior is cut off where it ends: it has the smallest of these numbers of bins to
# either side that is at least TAILS standard deviations.
WINDOWS = (32, 64, 128, RADIUS)
TAILS = 8

STD_STEP = ONE // 16  # log stds are multiples of 1/16; that costs some 0.0003 nats per latent
LOG_STDS = range(-100, 34)  # of these: an eighth of a bin to 512 bins; of no use outside of this


def gaussian_tables() -> tuple[Array, NDArray[np.int64], Array]:
    """Of every std: 1 / (2 std^2) for -log N, its window, and frequencies by BIN and distance."""
    with localcontext(Context(prec=30)):
        stds = [(Decimal(n) / 16).exp() for n in LOG_STDS]
        steepness = np.array([float(1 / (2 * ONE * std * std)) for std in stds])
        reach = [next((w for w in WINDOWS if w >= TAILS * 64 * std), RADIUS) for std in stds]
    bins = np.arange(-3 * RADIUS, 3 * RADIUS + 1)  # means reach to twice the radius
    distance = BIN * bins - np.arange(BIN)[:, np.newaxis]
    nats = np.floor(distance * distance * steepness[:, np.newaxis, np.newaxis] + 0.5)
    return steepness, np.array(reach), EXP.take(nats.astype(np.int64), mode="clip")


STEEPNESS, REACH, DENSITY = gaussian_tables()


def gaussian(mean: Array, std: NDArray[np.int64], bins: NDArray[np.int64]) -> Array:
    """Frequencies of bins under Gaussians.

    Args:
        mean: [N], whole numbers of 1/256, up to 2 * RADIUS bins.
        std: [N], places in LOG_STDS.
        bins: [N or 1, W], up to RADIUS each.
    Returns:
        [N, W]
    """
    mean = mean.astype(np.int64)
    middle = mean // BIN
    row = (std * BIN + mean % BIN) * DENSITY.shape[2] + DENSITY.shape[2] // 2
    return DENSITY.take((row - middle)[:, np.newaxis] + bins)


def std_of(log_std: Array, most: int = LOG_STDS[-1]) -> NDArray[np.int64]:
    """Log stds, whole numbers of 1/256, to the places in LOG_STDS that are closest."""
    nearest = np.floor(log_std / STD_STEP + 0.5)
    return np.clip(nearest, LOG_STDS[0], most).astype(np.int64) - LOG_STDS[0]


def push_chosen(stack: Stack, chosen: NDArray[np.int32], weights: Array) -> None:
    """Choices int32 [N] under frequencies [N, K] each; where there is but one, it needs no bits."""
    if weights.shape[1] > 1:
        stack.encode_reverse(chosen, TABLE, weights)


def pop_chosen(stack: Stack, weights: Array) -> NDArray[np.int32]:
    """`push_chosen` backwards: int32 [N]."""
    if weights.shape[1] > 1:
        return stack.decode(TABLE, weights)
    return np.zeros(len(weights), np.int32)


class EmptyStackError(Exception):
    """The model takes more bits back than its images cost."""


class Posterior(NamedTuple):
    """q(z|x) of every latent of a batch, [B * z_dim] each, as it is coded.

    The latent is `centre`, in bins, and an offset from it of -window..window.
    """

    mean: Array
    std: NDArray[np.int64]
    centre: NDArray[np.int32]
    window: NDArray[np.int64]

    @classmethod
    def of(cls, mean: Array, log_std: Array) -> "Posterior":
        """That of what the encoder gives, [B, z_dim] each."""
        mean = np.clip(mean.ravel(), -RADIUS * BIN, RADIUS * BIN)
        std = std_of(log_std.ravel(), most=22)  # 256 bins
        window = REACH[std]
        centre = np.clip(np.floor(mean / BIN + 0.5), window - RADIUS, RADIUS - window)
        return cls(mean, std, centre.astype(np.int32), window)

    def pop(self, stack: Stack) -> NDArray[np.int32]:
        """Draws the latents with the bits of the stack: int32 [B * z_dim]."""
        z = self.centre.copy()
        for window in WINDOWS:
            here, weights = self._weights(window)
            z[here] += stack.decode(TABLE, weights) - window
        return z

    def push(self, stack: Stack, z: NDArray[np.int32]) -> None:
        """Puts these bits back: `pop` backwards."""
        for window in reversed(WINDOWS):
            here, weights = self._weights(window)
            # Others than these are there only in an archive that nobody has encoded.
            offset = (z - self.centre)[here].clip(-window, window)
            stack.encode_reverse(offset + np.int32(window), TABLE, weights)

    def _weights(self, window: int) -> tuple[NDArray[np.bool_], Array]:
        here = self.window == window
        bins = self.centre[here, np.newaxis] + np.arange(-window, window + 1)
        return here, gaussian(self.mean[here], self.std[here], bins)


class Mixtures(NamedTuple):
    """Gaussians of the learned prior, [..., K] each."""

    log_weights: Array
    means: Array
    stds: NDArray[np.int64]

    @classmethod
    def of(cls, outputs: Array, num_latents: int) -> "Mixtures":
        """What the network gives, [..., num_latents * 3 * K], to mixtures [..., num_latents, K]."""
        parts = outputs.reshape(*outputs.shape[:-1], num_latents, 3, -1)
        log_weights, means, log_stds = np.moveaxis(parts, -2, 0)
        most = 2 * RADIUS * BIN
        return cls(log_weights, np.clip(means, -most, most), std_of(log_stds))

    def at(self, *index: object) -> "Mixtures":
        return Mixtures(*(part[index] for part in self))

    def bin_weights(self, k: NDArray[np.int32]) -> Array:
        """Frequencies of every bin under Gaussian k of each mixture, int32 [B]: [B, 513]."""
        chosen = self.at(np.arange(len(k)), k)
        return gaussian(chosen.means, chosen.stds, ANYWHERE)

    def log_joint(self, z: NDArray[np.int32]) -> Array:
        """log p(k, z) of latents [...] in bins, but for a constant: [..., K]."""
        distance = (BIN * z)[..., np.newaxis] - self.means
        nats = np.floor(distance * distance * STEEPNESS.take(self.stds) + 0.5)
        return self.log_weights - nats - STD_STEP * self.stds


class Prior:
    """The learned prior, see prior.py, on whole numbers: z costs exactly -log p(z).

    Its parts are latents too. The class y is taken off the stack under p(y|z) and put back under
    p(y) = 1/10. Given y, every z_i has Gaussians to choose from: which one, k, is taken off under
    p(k|z,y), z_i is put on under that Gaussian, and k under its weight.

    Args:
        weights: of the classes' embedding, the first, the middle and the last layer. A hidden unit
            of degree d sees the first d latents; they are in the order of their degrees.
    """

    def __init__(self, weights: Iterator[NDArray[np.int32]]):
        self.classes = np.floor(next(weights) * (ONE / exact.WEIGHT_ONE) + 0.5)
        self.layers = [exact.dense(weights) for _ in range(3)]
        self.z_dim, width = self.layers[0][0].shape
        degrees = np.arange(width) * self.z_dim // width
        self.stops = np.bincount(degrees, minlength=self.z_dim).cumsum().tolist()
        count = len(self.classes)
        self.class_model = stream.model.Uniform(count) if count > 1 else None
        self.least = self.z_dim + 4  # words of a stack without which something is wrong

    def mixtures(self, z: NDArray[np.int32]) -> Mixtures:
        """Of all classes, in one pass: latents in bins [B, z_dim] to [B, classes, z_dim, K]."""
        first, middle, last = self.layers
        hidden = silu(linear(BIN * z, *first)[:, np.newaxis] + self.classes)
        return Mixtures.of(linear(silu(linear(hidden, *middle)), *last), self.z_dim)

    def steps(self, y: NDArray[np.int32], z: NDArray[np.int32]) -> Iterator[Mixtures]:
        """The same of class y, int32 [B], latent by latent: [B, K].

        Latent i, in z, may be filled in when its mixture has been seen: so decoding does.
        """
        (first, first_bias), (middle, middle_bias), (last, last_bias) = self.layers
        classes, size = self.classes[y], last.shape[1] // self.z_dim
        below, above = np.zeros_like(classes), np.zeros_like(classes)
        for i, (start, stop) in enumerate(pairwise([0, *self.stops])):
            new, rows = slice(start, stop), slice(i * size, (i + 1) * size)
            seen = linear(BIN * z, first[:, new], first_bias[new])
            below[:, new] = silu(seen + classes[:, new])
            above[:, new] = silu(linear(below[:, :stop], middle[:stop, new], middle_bias[new]))
            outputs = linear(above[:, :stop], last[:stop, rows], last_bias[rows])
            yield Mixtures.of(outputs, 1).at(slice(None), 0)

    def class_weights(self, mixtures: Mixtures, joint: Array) -> Array:
        """p(y|z), frequencies [B, classes], of what `mixtures` and their `log_joint` give."""
        log_pz = exact.log_sum_exp(joint) - exact.log_sum_exp(mixtures.log_weights)
        return frequencies(log_pz.sum(-1))

    def push(self, stack: Stack, z: NDArray[np.int32]) -> None:
        """Latents in bins, int32 [B, z_dim], onto the stack."""
        all_classes = self.mixtures(z)
        joint = all_classes.log_joint(z[:, np.newaxis])
        y = pop_chosen(stack, self.class_weights(all_classes, joint))
        own = np.arange(len(z)), y
        k = pop_chosen(stack, frequencies(joint[own].reshape(z.size, -1))).reshape(z.shape)
        self.check_not_empty(stack)
        mixtures = all_classes.at(*own)
        for i in reversed(range(self.z_dim)):
            mixture, chosen = mixtures.at(slice(None), i), np.ascontiguousarray(k[:, i])
            stack.encode_reverse(z[:, i] + np.int32(RADIUS), TABLE, mixture.bin_weights(chosen))
            push_chosen(stack, chosen, frequencies(mixture.log_weights))
        if self.class_model:
            stack.encode_reverse(y, self.class_model)

    def pop(self, stack: Stack, size: int) -> NDArray[np.int32]:
        """`push` backwards: int32 [size, z_dim]."""
        y = stack.decode(self.class_model, size) if self.class_model else np.zeros(size, np.int32)
        z, k = (np.zeros((size, self.z_dim), np.int32) for _ in range(2))
        for i, mixture in enumerate(self.steps(y, z)):
            k[:, i] = pop_chosen(stack, frequencies(mixture.log_weights))
            z[:, i] = stack.decode(TABLE, mixture.bin_weights(k[:, i])) - RADIUS
        all_classes = self.mixtures(z)
        joint = all_classes.log_joint(z[:, np.newaxis])
        own = joint[np.arange(size), y]
        push_chosen(stack, k.ravel(), frequencies(own.reshape(z.size, -1)))
        push_chosen(stack, y, self.class_weights(all_classes, joint))
        return z

    def check_not_empty(self, stack: Stack) -> None:
        """Raises EmptyStackError where more is taken off the stack than is put onto it."""
        if stack.num_words() < self.least:
            raise EmptyStackError
