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

Both directions run the networks on the same batches, with one thread and torch's default settings,
in the same memory layout, and the prior latent by latent: so they see the same probabilities, bit
for bit. What that guarantees, and what not, stands in docs/compression.md.
"""

import copy
import hashlib
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from constriction import stream
from numpy.typing import ArrayLike
from torch import Tensor, nn
from tqdm import tqdm

from compression.archive import (
    MAGIC,
    STORED,
    Archive,
    Header,
    checked_images,
    pack_pixels,
    read_archive,
    unpack_pixels,
    write_archive,
)
from compression.latents import (
    BIN,
    GAUSSIAN,
    TABLE,
    Mixtures,
    Posterior,
    Stack,
    pop_chosen,
    push_chosen,
)
from compression.low_bits import LowBits
from fmnist import SIDE
from inputs.checks import check_finite
from inputs.command_line import InputError
from prior import check_prior

BATCH = 64  # images per run of the networks; more are not faster


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


def batches(count: int) -> list[slice]:
    """The images of every batch in the order of decoding: 64, 64, ..., 32, 16, ..., 2, 1, roughly.

    What is decoded last was encoded first: one image on random bits, then two on the bits of the
    first, and so on. The start-up cost is that of one image for any number of them.
    """
    parts, left = [], count
    while left:
        size = min(BATCH, 1 << (left.bit_length() - 1))
        rest = left // size * size - 1
        parts.append(slice(count - left, count - rest))
        left = rest
    return parts


class EmptyStackError(Exception):
    """More was taken off the stack than was put onto it."""


class Codec:
    """Compresses and decompresses images with one model.

    Args:
        model: has an `encoder`, images long [B, 1, 28, 28] to mean and log_std [B, z_dim], a
            `decoder`, z [B, z_dim] to logits [B, 16, 28, 28], and a `prior`, see prior.py. Its
            weights are float32 and on the CPU; it is not changed.
        low_bits: of images with 256 grey levels; without, there are 16.
        progress: show a progress bar where there is a terminal.
    Raises:
        ValueError: the weights are something else.
    """

    def __init__(self, model: nn.Module, low_bits: LowBits | None = None, progress: bool = False):
        kinds = {f"{weights.dtype} on {weights.device.type}" for weights in model.parameters()}
        if kinds != {"torch.float32 on cpu"}:
            raise ValueError(f"the model must be float32 on the CPU, got {', '.join(kinds)}")
        check_prior(model.prior, "archives", "autoregressive_steps")
        self.encoder, self.decoder = (
            copy.deepcopy(net).eval().to(memory_format=torch.channels_last)
            for net in (model.encoder, model.decoder)
        )
        self.prior, self.low_bits = copy.deepcopy(model.prior), copy.deepcopy(low_bits)
        num_classes, self.z_dim = self.prior.num_classes, self.prior.z_dim
        self.class_model = stream.model.Uniform(num_classes) if num_classes > 1 else None
        self.bits = 8 if low_bits else 4
        self.weights = fingerprint(model, low_bits)
        hidden = None if progress else True  # None: shown on a terminal
        self.progress = partial(tqdm, unit=" batches", disable=hidden)
        # A symbol takes at most 24 bits from the stack: a full batch, of z, k and y, leaves a
        # quarter of this. The one at the end is the head of an otherwise empty stack.
        most = BATCH * (2 * self.z_dim + 1) + 4
        random = hashlib.shake_128(MAGIC).digest(4 * most)
        self.start = np.append(np.frombuffer(random, "<u4"), 1).astype(np.uint32)
        self.least = self.z_dim + 4  # words without which something is wrong

    def encode(self, images: ArrayLike, names: Sequence[str] = ()) -> bytes:
        """See `compress.encode`; with the names of the files that the images are from, if any."""
        images = checked_images(images, levels=2**self.bits)
        form, stored = images.ndim, pack_pixels(images, self.bits)
        try:
            startup, content = self._compress(images.reshape(-1, SIDE, SIDE))
        except EmptyStackError:  # a model that takes more bits back than its images cost
            content = None
        if content is None or len(content) > len(stored):
            form, startup, content = form | STORED, 0, stored
        pixels = zlib.crc32(np.ascontiguousarray(images))
        header = Header(self.bits, form, len(images), startup, self.weights, pixels)
        return write_archive(Archive(header, content, names))

    def decode(self, archive: bytes) -> np.ndarray:
        """See `compress.decode`."""
        header, content, _ = read_archive(archive)
        if header.weights != self.weights:
            raise InputError(
                f"the archive was made with another checkpoint, of fingerprint "
                f"{header.weights.hex()}, this one has {self.weights.hex()}: give that one"
            )
        if header.form & STORED:
            images = unpack_pixels(content, self.bits)
        else:
            images = self._decompress(header.startup, content, header.count)
        if zlib.crc32(images) != header.pixels:
            raise InputError(
                "the decoded pixels do not match the archive's checksum: decode it with the "
                "versions of torch and constriction and on the kind of processor that it was made "
                "with"
            )
        return images.reshape(header.shape)

    def _compress(self, images: np.ndarray) -> tuple[int, bytes]:
        """Images uint8 [N, 28, 28] to the words of the stack, and how many of them are random."""
        stack = Stack(self.start)
        with reproducible_arithmetic():
            if self.low_bits:
                images = self.low_bits.push(stack, images, self.progress)
            for part in self.progress(batches(len(images))[::-1], desc="encoding"):
                self._push(stack, images[part])
        words = stack.get_compressed()
        overlap = min(len(words), len(self.start))
        same = words[:overlap] == self.start[:overlap]
        untouched = int(np.logical_and.accumulate(same).sum())
        return len(self.start) - untouched, words[untouched:].astype("<u4").tobytes()

    def _decompress(self, startup: int, content: bytes, count: int) -> np.ndarray:
        """`_compress` backwards: uint8 [count, 28, 28]."""
        untouched = self.start[: len(self.start) - startup]
        words = np.frombuffer(content, "<u4").astype(np.uint32)
        stack = Stack(np.concatenate([untouched, words]))
        images = np.empty((count, SIDE, SIDE), np.uint8)
        with reproducible_arithmetic():
            for part in self.progress(batches(count), desc="decoding"):
                images[part] = self._pop(stack, part.stop - part.start)
            if self.low_bits:
                images = self.low_bits.pop(stack, images, self.progress)
        return images

    def _push(self, stack: Stack, images: np.ndarray) -> None:
        """A batch of 4-bit images, uint8 [B, 28, 28], onto the stack."""
        z = self._posterior(images).pop(stack)
        self._check_not_empty(stack)
        stack.encode_reverse(images.ravel().astype(np.int32), TABLE, self._probabilities(z))
        self._push_latents(stack, torch.from_numpy(z).view(-1, self.z_dim))

    def _pop(self, stack: Stack, size: int) -> np.ndarray:
        """`_push` backwards: uint8 [size, 28, 28] off the stack."""
        z = self._pop_latents(stack, size).flatten().numpy()
        pixels = stack.decode(TABLE, self._probabilities(z)).astype(np.uint8)
        images = pixels.reshape(size, SIDE, SIDE)
        self._posterior(images).push(stack, z)
        return images

    def _push_latents(self, stack: Stack, z: Tensor) -> None:
        """Latents in bins, int32 [B, z_dim], onto the stack under the learned prior."""
        y = pop_chosen(stack, self._class_probabilities(z))
        mixtures = list(self._mixtures(y, z))
        k = pop_chosen(stack, self._responsibilities(mixtures, z)).reshape(z.shape)
        self._check_not_empty(stack)
        for i in reversed(range(self.z_dim)):
            chosen = np.ascontiguousarray(k[:, i])
            latent = np.ascontiguousarray(z[:, i].numpy())
            stack.encode_reverse(latent, GAUSSIAN, *mixtures[i].chosen(chosen))
            push_chosen(stack, chosen, mixtures[i].weights)
        if self.class_model:
            stack.encode_reverse(y, self.class_model)

    def _pop_latents(self, stack: Stack, size: int) -> Tensor:
        """`_push_latents` backwards: int32 [size, z_dim]."""
        y = stack.decode(self.class_model, size) if self.class_model else np.zeros(size, np.int32)
        z = torch.zeros(size, self.z_dim, dtype=torch.int32)
        k = np.zeros((size, self.z_dim), np.int32)
        mixtures = []
        for i, mixture in enumerate(self._mixtures(y, z)):
            k[:, i] = pop_chosen(stack, mixture.weights)
            z[:, i] = torch.from_numpy(stack.decode(GAUSSIAN, *mixture.chosen(k[:, i])))
            mixtures.append(mixture)
        push_chosen(stack, k.ravel(), self._responsibilities(mixtures, z))
        push_chosen(stack, y, self._class_probabilities(z))
        return z

    def _check_not_empty(self, stack: Stack) -> None:
        if stack.num_words() < self.least:
            raise EmptyStackError

    def _posterior(self, images: np.ndarray) -> Posterior:
        x = torch.from_numpy(images.reshape(-1, 1, SIDE, SIDE).astype(np.int64))
        return Posterior.in_bins(*self.encoder(x))

    def _probabilities(self, z: np.ndarray) -> np.ndarray:
        """Latents in bins, int32 [B * z_dim], to every pixel's: float32 [B * 784, 16]."""
        logits = self.decoder(torch.from_numpy(z).view(-1, self.z_dim) * BIN)
        check_finite(logits)
        return logits.permute(0, 2, 3, 1).flatten(0, 2).softmax(dim=1).numpy()

    def _class_probabilities(self, z: Tensor) -> np.ndarray:
        """p(y|z) of latents in bins: float32 [B, num_classes]."""
        num = self.prior.num_classes
        classes = torch.arange(num).repeat(len(z))
        log_pz = self.prior.log_prob((z * BIN).repeat_interleave(num, dim=0), classes)
        check_finite(log_pz)
        return log_pz.view(-1, num).softmax(dim=1).numpy()

    def _mixtures(self, y: np.ndarray, z: Tensor) -> Iterator[Mixtures]:
        """The mixture of every latent given the class, int32 [B], and the latents before it.

        Latent i, in `z`, may be filled in when its mixture has been seen: so decoding does.
        """
        steps, sent = self.prior.autoregressive_steps(torch.from_numpy(y).long()), None
        for i in range(self.z_dim):
            yield Mixtures.in_bins(*steps.send(sent))
            sent = z[:, i] * BIN

    def _responsibilities(self, each: list[Mixtures], z: Tensor) -> np.ndarray:
        """p(k|z,y) of latents in bins, int32 [B, z_dim]: float32 [B * z_dim, K]."""
        mixtures = Mixtures(*(torch.stack(parts, dim=1) for parts in zip(*each, strict=True)))
        return mixtures.responsibilities(z).flatten(0, 1).numpy()


_one_thread_at_a_time = threading.Lock()  # torch's settings are those of the whole program


def set_arithmetic(
    threads: int, dtype: torch.dtype, mkldnn: bool, matmul: str, convolution: str
) -> None:
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    torch.backends.mkldnn.enabled = mkldnn
    torch.backends.mkldnn.matmul.fp32_precision = matmul
    torch.backends.mkldnn.conv.fp32_precision = convolution


def arithmetic() -> tuple[int, torch.dtype, bool, str, str]:
    """What `set_arithmetic` sets."""
    mkldnn = torch.backends.mkldnn
    precisions = mkldnn.matmul.fp32_precision, mkldnn.conv.fp32_precision
    return torch.get_num_threads(), torch.get_default_dtype(), mkldnn.enabled, *precisions


@contextmanager
def reproducible_arithmetic() -> Iterator[None]:
    """No gradients, one thread, float32 throughout; then the caller's settings again."""
    with _one_thread_at_a_time, torch.inference_mode(), torch.autocast("cpu", enabled=False):
        before = arithmetic()
        set_arithmetic(1, torch.float32, mkldnn=True, matmul="ieee", convolution="ieee")
        try:
            yield
        finally:
            set_arithmetic(*before)
