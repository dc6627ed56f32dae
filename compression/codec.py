"""Bits-back coding: images to an archive and back, at the rate that a VAE's ELBO promises.

Bits-back coding with asymmetric numeral systems (Townsend, Bird & Barber 2019, section 2 and
algorithm 1, https://arxiv.org/abs/1901.04866). The compressed images are a stack of bits. An image
is pushed onto it in three steps, and popped from it by the same steps backwards:

    take z off it under the posterior q(z|x)     gives    log q(z|x)  bits back
    put x onto it under the decoder p(x|z)       costs   -log p(x|z)
    put z onto it under the prior p(z)           costs   -log p(z)

The sum is the negative ELBO, in bits. Only the first image finds nothing to take z from, and takes
it from random bits: the start-up cost of an archive.

The learned prior is a mixture, and its parts are latents too. The class y is taken off the stack
under p(y|z) and put back under p(y) = 1/10. Given y, every z_i has Gaussians to choose from: which
one, k, is taken off under p(k|z,y), z_i is put on under that Gaussian, and k under its weight.
So z costs exactly -log p(z), and nothing but Gaussians and small tables is ever coded with.

Of images with 256 grey levels, the low bits (see low_bits.py) lie below all 4-bit images. They cost
nothing to start up, and are where the first image takes its z from.

What is guaranteed. Both directions run the networks on the same batches, with one thread, in the
same memory layout, and the prior latent by latent. An archive is therefore decoded exactly by the
same versions of torch and constriction with the same torch settings on the same kind of processor,
whatever the number of threads and of images. Another processor or version may round a probability
differently, after which everything decoded is noise. The archive's checksum of the pixels then
makes the decoding an error, never a wrong image: keep the originals until an archive has been
decoded where it is to be used.
"""

import copy
import hashlib
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from constriction import stream
from numpy.typing import ArrayLike
from torch import Tensor, nn
from tqdm import tqdm

from boundary.command_line import InputError
from compression import low_bits_code
from compression.archive import (
    CHECKSUM,
    HEADER,
    MAGIC,
    SIDE,
    VERSION,
    Header,
    checked_images,
    read_header,
    seal,
)
from compression.low_bits import LEVEL, LowBits

BATCH = 64  # images per run of the networks; more are not faster

# Each latent is coded as a whole number of bins of width BIN. A finer grid is not better.
BIN = 2.0**-6
RADIUS = 256  # bins from 0 that a posterior mean may be away: -4 to 4

# constriction gives every bin a probability of at least 2^-24. Among all bins, one draw of z in a
# thousand would fall where the decoder knows nothing, and its image would cost a hundred times the
# usual. So a posterior is cut off where it ends: it has the smallest of these numbers of bins to
# either side that is at least TAILS standard deviations.
WINDOWS = (32, 64, 128, RADIUS)
TAILS = 8
POSTERIOR = {window: stream.model.QuantizedGaussian(-window, window) for window in WINDOWS}
GAUSSIAN = stream.model.QuantizedGaussian(-2 * RADIUS, 2 * RADIUS)  # of the prior's mixtures
TABLE = stream.model.Categorical(perfect=False)


def fingerprint(model: nn.Module, low_bits: nn.Module | None = None) -> bytes:
    """Eight bytes that tell the encoder, decoder and prior of one model from those of another.

    With `low_bits`, also its weights. Whatever else a model learns has no part in the code.
    """
    parts = [model.encoder, model.decoder, model.prior, *([low_bits] if low_bits else [])]
    digest = hashlib.sha256()
    for part in parts:
        for name, weights in sorted(part.state_dict().items()):
            digest.update(f"{name} {weights.dtype} {list(weights.shape)}".encode())
            digest.update(weights.contiguous().numpy().tobytes())
    return digest.digest()[:8]


def batches(count: int) -> Iterator[int]:
    """The sizes of the batches in the order of decoding: 64, 64, ..., 32, 16, ..., 2, 1, roughly.

    What is decoded last was encoded first: one image on random bits, then two on the bits of the
    first, and so on. The start-up cost is that of one image for any number of them.
    """
    while count:
        if count < BATCH:
            rest = (1 << (count.bit_length() - 1)) - 1
        else:
            rest = (count - BATCH) // BATCH * BATCH + BATCH - 1
        yield count - rest
        count = rest


class EmptyStackError(Exception):
    """More was taken off the stack than was put onto it."""


class Posterior(NamedTuple):
    """q(z|x) of every latent of a batch in bins, float32 [B * z_dim] each, as it is coded.

    The latent is `centre`, a whole number, and an offset from it of -window..window.
    """

    centre: np.ndarray
    window: np.ndarray
    mean: np.ndarray  # of the offset
    std: np.ndarray

    def pop(self, stack: stream.stack.AnsCoder) -> np.ndarray:
        """Draws the latents with the bits of the stack: int32 [B * z_dim]."""
        z = self.centre.astype(np.int32)
        for window, model in POSTERIOR.items():
            here = self.window == window
            z[here] += stack.decode(model, self.mean[here], self.std[here])
        return z

    def push(self, stack: stream.stack.AnsCoder, z: np.ndarray) -> None:
        """Puts these bits back: `pop` backwards."""
        offset = z - self.centre.astype(np.int32)
        for window, model in reversed(POSTERIOR.items()):
            here = self.window == window
            # Only where an archive is false are there others.
            offsets = offset[here].clip(-window, window)
            stack.encode_reverse(offsets, model, self.mean[here], self.std[here])


class Mixtures(NamedTuple):
    """The prior's Gaussians for every latent of a batch in bins, float32 [..., K] each."""

    log_weights: Tensor
    means: Tensor
    stds: Tensor

    @classmethod
    def in_bins(cls, log_weights: Tensor, means: Tensor, log_stds: Tensor) -> "Mixtures":
        """Those of `LatentPrior`, in its units."""
        means = (means / BIN).clamp(-2 * RADIUS, 2 * RADIUS)
        stds = (log_stds.exp() / BIN).clamp(1 / 8, 2 * RADIUS)  # of no use outside of this
        return cls(*finite(log_weights, means, stds))

    @property
    def weights(self) -> Tensor:
        return self.log_weights.exp()

    def chosen(self, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of Gaussian k of each mixture, int32 [B]: float32 [B]."""
        index = torch.from_numpy(k).long().unsqueeze(1)
        return tuple(part.gather(1, index).squeeze(1).numpy() for part in (self.means, self.stds))

    def responsibilities(self, z: Tensor) -> Tensor:
        """p(k|z,y), that z comes from this Gaussian: float [..., K] for z in bins, int [...]."""
        distance = (z.unsqueeze(-1) - self.means) / self.stds
        return (self.log_weights - 0.5 * distance.square() - self.stds.log()).softmax(dim=-1)


class Codec:
    """Compresses and decompresses images with one model.

    Args:
        model: has an `encoder`, images long [B, 1, 28, 28] to mean and log_std [B, z_dim], a
            `decoder` with `z_dim`, z [B, z_dim] to logits [B, 16, 28, 28], and a `prior`, see
            prior.py. Its weights are float32 and on the CPU; it is not changed.
        low_bits: of images with 256 grey levels; without, there are 16.
        progress: show a progress bar where there is a terminal.
    Raises:
        ValueError: the weights are something else.
    """

    def __init__(self, model: nn.Module, low_bits: LowBits | None = None, progress: bool = False):
        weights = [*model.parameters(), *(low_bits.parameters() if low_bits else [])]
        kinds = {f"{p.dtype} on {p.device.type}" for p in weights}
        if kinds != {"torch.float32 on cpu"}:
            raise ValueError(f"the model must be float32 on the CPU, got {', '.join(kinds)}")
        self.encoder, self.decoder = (
            copy.deepcopy(net).eval().to(memory_format=torch.channels_last)
            for net in (model.encoder, model.decoder)
        )
        self.prior, self.low_bits = copy.deepcopy(model.prior), copy.deepcopy(low_bits)
        self.class_model = stream.model.Uniform(model.prior.num_classes)
        self.bits = 8 if low_bits else 4
        self.z_dim = model.prior.z_dim
        self.weights = fingerprint(model, low_bits)
        self.progress = progress
        # A symbol takes at most 24 bits from the stack: a full batch, of z, k and y, leaves a
        # quarter of this. The one at the end is the head of an otherwise empty stack.
        most = BATCH * (2 * self.z_dim + 1) + 4
        known = hashlib.shake_128(MAGIC).digest(4 * most)
        self.start = np.append(np.frombuffer(known, "<u4"), 1).astype(np.uint32)
        self.least = self.z_dim + 4  # words without which something is wrong

    def encode(self, images: ArrayLike) -> bytes:
        """See `compress.encode`."""
        images = checked_images(images, levels=2**self.bits)
        stack = stream.stack.AnsCoder(self.start)
        try:
            with at_work():
                levels = self._push_low_part(stack, images) if self.low_bits else images
                self._push_all(stack, levels)
        except EmptyStackError:
            raise InputError(
                "this model takes more bits back than its images cost: train it anew"
            ) from None
        words = stack.get_compressed()
        overlap = min(len(words), len(self.start))
        differs = words[:overlap] != self.start[:overlap]
        untouched = int(differs.argmax()) if differs.any() else overlap
        startup, crc = len(self.start) - untouched, zlib.crc32(np.ascontiguousarray(images))
        sizes = (images.ndim, len(images), startup)
        header = Header(MAGIC, VERSION, self.bits, *sizes, self.weights, crc)
        archive = seal(header, words[untouched:].astype("<u4").tobytes())
        if len(images) > len(archive):
            raise InputError(
                f"with this model {len(images):,} images take {len(archive):,} bytes, and an "
                "archive needs at least one byte for each: put them into several archives with "
                "other images, or take another model"
            )
        return archive

    def decode(self, archive: bytes) -> np.ndarray:
        """See `compress.decode`."""
        header = read_header(archive)
        if header.bits != self.bits:
            raise InputError(f"the archive has {header.bits} bits per pixel, not {self.bits}")
        if header.weights != self.weights:
            raise InputError(
                f"the archive was made with another checkpoint, of fingerprint "
                f"{header.weights.hex()}, this one has {self.weights.hex()}: give that one"
            )
        mismatch = InputError(
            "the decoded pixels do not match the archive's checksum: decode it with the versions "
            "of torch and constriction and on the kind of processor that it was made with"
        )
        words = np.frombuffer(archive[HEADER.size : -CHECKSUM.size], "<u4").astype(np.uint32)
        if header.startup > len(self.start) or (len(words) and not words[-1]):
            raise mismatch
        untouched = self.start[: len(self.start) - header.startup]
        stack = stream.stack.AnsCoder(np.concatenate([untouched, words]))
        try:
            with at_work():
                images = self._pop_all(stack, header.count)
                if self.low_bits:
                    images = self._pop_low_part(stack, images)
        except EmptyStackError:
            raise mismatch from None
        whole = np.array_equal(stack.get_compressed(), self.start)
        if not whole or zlib.crc32(images) != header.pixels:
            raise mismatch
        return images.reshape(header.shape)

    def _bar(self, what: str, count: int) -> tqdm:
        hidden = None if self.progress else True  # None: shown on a terminal
        return tqdm(total=count, desc=what, unit=" images", disable=hidden)

    def _push_all(self, stack: stream.stack.AnsCoder, images: np.ndarray) -> None:
        """4-bit images uint8 [N, 28, 28] or [N, 1, 28, 28] onto the stack."""
        stop = len(images)
        with self._bar("encoding", stop) as bar:
            for size in reversed(list(batches(stop))):
                self._push(stack, images[stop - size : stop])
                stop -= size
                bar.update(size)

    def _pop_all(self, stack: stream.stack.AnsCoder, count: int) -> np.ndarray:
        """`_push_all` backwards: uint8 [count, 28, 28]."""
        pixels = bytearray()
        with self._bar("decoding", count) as bar:
            for size in batches(count):
                pixels += self._pop(stack, size).tobytes()
                bar.update(size)
        return np.frombuffer(pixels, np.uint8).reshape(count, SIDE, SIDE)

    def _push_low_part(self, stack: stream.stack.AnsCoder, images: np.ndarray) -> np.ndarray:
        """The low bits of 8-bit images onto the stack; returns the 4-bit images."""
        images = images.reshape(-1, SIDE, SIDE)
        levels = LEVEL.to(torch.uint8).numpy()[images]
        with self._bar("encoding low bits", len(images)) as bar:
            for part in reversed(low_bits_code.parts(levels)):
                values = torch.from_numpy(images[part].astype(np.int64))
                low_bits_code.push(stack, self.low_bits, values)
                bar.update(len(values))
        return levels

    def _pop_low_part(self, stack: stream.stack.AnsCoder, levels: np.ndarray) -> np.ndarray:
        """`_push_low_part` backwards: 4-bit images to 8-bit images, uint8 [N, 28, 28]."""
        images = np.empty_like(levels)
        with self._bar("decoding low bits", len(levels)) as bar:
            for part in low_bits_code.parts(levels):
                known = torch.from_numpy(levels[part].astype(np.int64))
                images[part] = low_bits_code.pop(stack, self.low_bits, known).numpy()
                bar.update(len(known))
        return images

    def _push(self, stack: stream.stack.AnsCoder, images: np.ndarray) -> None:
        """uint8 [B, 28, 28] or [B, 1, 28, 28] onto the stack."""
        z = self._posterior(images).pop(stack)
        self._check_not_empty(stack)
        stack.encode_reverse(images.ravel().astype(np.int32), TABLE, self._probabilities(z))
        self._push_latents(stack, torch.from_numpy(z).view(-1, self.z_dim))

    def _pop(self, stack: stream.stack.AnsCoder, size: int) -> np.ndarray:
        """`_push` backwards: uint8 [size, 28, 28] off the stack."""
        z = self._pop_latents(stack, size).flatten().numpy()
        pixels = stack.decode(TABLE, self._probabilities(z)).astype(np.uint8)
        images = pixels.reshape(size, SIDE, SIDE)
        self._check_not_empty(stack)
        self._posterior(images).push(stack, z)
        return images

    def _push_latents(self, stack: stream.stack.AnsCoder, z: Tensor) -> None:
        """Latents in bins, int32 [B, z_dim], onto the stack under the learned prior."""
        y = stack.decode(TABLE, self._class_probabilities(z))
        steps, sent, each = self.prior.autoregressive_steps(torch.from_numpy(y).long()), None, []
        for i in range(self.z_dim):
            each.append(Mixtures.in_bins(*steps.send(sent)))
            sent = z[:, i] * BIN
        k = stack.decode(TABLE, self._responsibilities(each, z)).reshape(z.shape)
        self._check_not_empty(stack)
        for i in reversed(range(self.z_dim)):
            chosen = np.ascontiguousarray(k[:, i])
            latent = np.ascontiguousarray(z[:, i].numpy())
            stack.encode_reverse(latent, GAUSSIAN, *each[i].chosen(chosen))
            stack.encode_reverse(chosen, TABLE, each[i].weights.numpy())
        stack.encode_reverse(y, self.class_model)

    def _pop_latents(self, stack: stream.stack.AnsCoder, size: int) -> Tensor:
        """`_push_latents` backwards: int32 [size, z_dim]."""
        y = stack.decode(self.class_model, size)
        steps, sent, each = self.prior.autoregressive_steps(torch.from_numpy(y).long()), None, []
        z = torch.zeros(size, self.z_dim, dtype=torch.int32)
        k = np.zeros((size, self.z_dim), np.int32)
        for i in range(self.z_dim):
            each.append(Mixtures.in_bins(*steps.send(sent)))
            k[:, i] = stack.decode(TABLE, each[i].weights.numpy())
            values = stack.decode(GAUSSIAN, *each[i].chosen(k[:, i]))
            z[:, i] = torch.from_numpy(values)
            sent = z[:, i] * BIN
        self._check_not_empty(stack)
        stack.encode_reverse(k.ravel(), TABLE, self._responsibilities(each, z))
        stack.encode_reverse(y, TABLE, self._class_probabilities(z))
        return z

    def _check_not_empty(self, stack: stream.stack.AnsCoder) -> None:
        if stack.num_words() < self.least:
            raise EmptyStackError

    def _posterior(self, images: np.ndarray) -> Posterior:
        x = torch.from_numpy(images.reshape(-1, 1, SIDE, SIDE).astype(np.int64))
        mean, log_std = (part.flatten() for part in finite(*self.encoder(x)))
        mean = (mean / BIN).clamp(-RADIUS, RADIUS)
        std = (log_std.exp() / BIN).clamp(1 / 8, RADIUS)  # of no use below a bin, or above all
        windows = torch.tensor(WINDOWS)
        fits = torch.bucketize(TAILS * std, windows).clamp(max=len(WINDOWS) - 1)
        window = windows[fits]
        centre = mean.round().clamp(window - RADIUS, RADIUS - window)
        return Posterior(*(part.numpy() for part in (centre, window, mean - centre, std)))

    def _probabilities(self, z: np.ndarray) -> np.ndarray:
        """Latents in bins, int32 [B * z_dim], to every pixel's: float32 [B * 784, 16]."""
        (logits,) = finite(self.decoder(torch.from_numpy(z).view(-1, self.z_dim) * BIN))
        return logits.permute(0, 2, 3, 1).flatten(0, 2).softmax(dim=1).numpy()

    def _class_probabilities(self, z: Tensor) -> np.ndarray:
        """p(y|z) of latents in bins: float32 [B, 10]."""
        num = self.prior.num_classes
        classes = torch.arange(num).repeat(len(z))
        log_pz = self.prior.log_prob((z * BIN).repeat_interleave(num, dim=0), classes)
        (log_pz,) = finite(log_pz.view(-1, num))
        return log_pz.softmax(dim=1).numpy()

    def _responsibilities(self, each: list["Mixtures"], z: Tensor) -> np.ndarray:
        """p(k|z,y) of latents in bins, int32 [B, z_dim]: float32 [B * z_dim, K]."""
        mixtures = Mixtures(*(torch.stack(parts, dim=1) for parts in zip(*each, strict=True)))
        return mixtures.responsibilities(z).flatten(0, 1).numpy()


def finite(*outputs: Tensor) -> tuple[Tensor, ...]:
    if not all(output.isfinite().all() for output in outputs):
        raise InputError("the model's outputs are not finite numbers: train it anew")
    return outputs


alone = threading.Lock()  # as the number of torch's threads is that of the whole program


@contextmanager
def at_work() -> Iterator[None]:
    """No gradients, and one torch thread; the number that was there after."""
    with alone:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(threads)
