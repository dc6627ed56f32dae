"""Bits-back coding: images to an archive and back, at the rate that a VAE's ELBO promises.

Bits-back coding with asymmetric numeral systems (Townsend, Bird & Barber 2019, section 2 and
algorithm 1, https://arxiv.org/abs/1901.04866). The compressed images are a stack of bits. An image
is pushed onto it in three steps, and popped from it by the same steps backwards:

    take z off it under the posterior q(z|x)     gives    log q(z|x)  bits back
    put x onto it under the decoder p(x|z)       costs   -log p(x|z)
    put z onto it under the prior p(z)           costs   -log p(z)

The sum is the negative ELBO, in bits. Only the first image finds nothing to take z from, and takes
it from random bits: the start-up cost of an archive.

What is guaranteed. Both directions run the networks on the same batches, with one thread, in the
same memory layout. An archive is therefore decoded exactly by the same versions of torch and
constriction with the same torch settings on the same kind of processor, whatever the number of
threads and of images. Another processor or version may round a probability differently, after which
everything decoded is noise. The archive's checksum of the pixels then makes the decoding an error,
never a wrong image: keep the originals until an archive has been decoded where it is to be used.
"""

import copy
import hashlib
import struct
import time
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

from support.command_line import InputError

SIDE = 28
BATCH = 16  # images per run of the networks

# Each latent is coded as a whole number of bins of width BIN, up to RADIUS of them from 0: -4 to 4.
# A finer or wider grid is not better. constriction gives every bin a probability of at least 2^-24,
# so that one posterior draw in some thousand images falls on any bin at all, and where that is far
# outside of what the decoder knows, the image costs a hundred times the usual.
BIN = 2.0**-6
RADIUS = 256
POSTERIOR = stream.model.QuantizedGaussian(-RADIUS, RADIUS)  # mean and std in bins for each latent
PRIOR = stream.model.QuantizedGaussian(-RADIUS, RADIUS, 0.0, 1 / BIN)
PIXEL = stream.model.Categorical(perfect=False)

# An archive is its header, the words of the stack, and the CRC-32 of both.
MAGIC, VERSION = b"VAE4", 1
HEADER = struct.Struct("<4sBBII8sI")  # the fields of Header
CHECKSUM = struct.Struct("<I")
OVERHEAD = HEADER.size + CHECKSUM.size  # bytes of an archive that are not the stack


class Header(NamedTuple):
    """What an archive says about itself."""

    magic: bytes
    version: int
    rank: int  # 3 for images [N, 28, 28], 4 for [N, 1, 28, 28]
    count: int  # N
    startup: int  # random words at the bottom of the stack; decoding knows the ones below them
    weights: bytes  # fingerprint of the model's weights
    pixels: int  # CRC-32 of the images, a byte per pixel

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, *(1,) * (self.rank - 3), SIDE, SIDE)


def seal(header: Header, stack: bytes) -> bytes:
    """The archive of a header and the words of a stack."""
    archive = HEADER.pack(*header) + stack
    return archive + CHECKSUM.pack(zlib.crc32(archive))


def read_header(archive: bytes) -> Header:
    """The header of a whole archive of this version.

    An archive has at least a byte for each of its images (a black one takes the shipped model nine
    of them), so that decoding takes time and memory in proportion to the archive: 784 bytes of
    pixels and at most 24 bits per latent on the stack for a byte of it.

    Raises:
        InputError: it is something else, of another version, truncated or altered.
    """
    if archive[: len(MAGIC)] != MAGIC:
        raise InputError("this is no archive of compress.py")
    if archive[len(MAGIC) : len(MAGIC) + 1] != bytes([VERSION]):
        found = archive[len(MAGIC)] if len(archive) > len(MAGIC) else "no"
        raise InputError(
            f"the archive is of version {found}, this program reads version {VERSION}: "
            "use the program that wrote it"
        )
    end = len(archive) - CHECKSUM.size
    if end < HEADER.size or CHECKSUM.pack(zlib.crc32(archive[:end])) != archive[end:]:
        raise InputError("the archive is truncated or altered: take another copy of it")
    header = Header(*HEADER.unpack_from(archive))
    if header.rank not in (3, 4) or (end - HEADER.size) % 4:
        raise InputError("the archive makes no sense, though its checksum is right")
    if header.count > len(archive):
        raise InputError(
            f"the archive claims {header.count:,} images in {len(archive):,} bytes, though its "
            "checksum is right: it was not made by compress.py"
        )
    return header


def four_bit_images(images: ArrayLike) -> np.ndarray:
    """The images as a NumPy array, after a check of everything that an archive assumes.

    Raises:
        TypeError: they are not uint8.
        ValueError: they are not [N, 28, 28] or [N, 1, 28, 28], or have values above 15.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    if images.shape[1:] not in ((SIDE, SIDE), (1, SIDE, SIDE)):
        raise ValueError(
            f"images must be [N, {SIDE}, {SIDE}] or [N, 1, {SIDE}, {SIDE}], "
            f"got {list(images.shape)}"
        )
    if len(images) >= 2**32:
        raise ValueError(f"at most {2**32 - 1} images fit into an archive, got {len(images)}")
    if images.size and images.max() > 15:
        raise ValueError(f"images must have 16 grey levels, 0..15, got {images.max()}")
    return images


def fingerprint(model: nn.Module) -> bytes:
    """Eight bytes that tell the encoder and decoder of one model from those of another.

    Whatever else the model learns, such as a prior, has no part in the code.
    """
    digest = hashlib.sha256()
    for name, weights in sorted(model.state_dict().items()):
        if not name.startswith(("encoder.", "decoder.")):
            continue
        digest.update(f"{name} {weights.dtype} {list(weights.shape)}".encode())
        digest.update(weights.contiguous().numpy().tobytes())
    return digest.digest()[:8]


def batches(count: int) -> Iterator[int]:
    """The sizes of the batches in the order of decoding: 16, 16, ..., 8, 4, 2, 1, roughly.

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


class Codec:
    """Compresses and decompresses images with one model.

    Args:
        model: has an `encoder`, images long [B, 1, 28, 28] to mean and log_std [B, z_dim], and a
            `decoder` with `z_dim`, z [B, z_dim] to logits [B, 16, 28, 28]. Its weights are float32
            and on the CPU; it is not changed.
        progress: show a progress bar where there is a terminal.
    Raises:
        ValueError: the weights are something else.
    """

    def __init__(self, model: nn.Module, progress: bool = False):
        kinds = {f"{p.dtype} on {p.device.type}" for p in model.parameters()}
        if kinds != {"torch.float32 on cpu"}:
            raise ValueError(f"the model must be float32 on the CPU, got {', '.join(kinds)}")
        self.encoder, self.decoder = (
            copy.deepcopy(net).eval().to(memory_format=torch.channels_last)
            for net in (model.encoder, model.decoder)
        )
        self.z_dim = model.decoder.z_dim
        self.weights = fingerprint(model)
        self.progress = progress
        self.network_seconds = 0.0  # spent in the networks so far
        # A latent takes at most 24 bits from the stack: a full batch leaves a quarter of this. The
        # one at the end is the head of an otherwise empty stack.
        known = hashlib.shake_128(MAGIC).digest(4 * (BATCH * self.z_dim + 4))
        self.start = np.append(np.frombuffer(known, "<u4"), 1).astype(np.uint32)
        self.least = self.z_dim + 4  # words without which something is wrong

    def encode(self, images: ArrayLike) -> bytes:
        """See `compress.encode`."""
        images = four_bit_images(images)
        stack = stream.stack.AnsCoder(self.start)
        stop = len(images)
        try:
            with self._at_work("encoding", stop) as bar:
                for size in reversed(list(batches(stop))):
                    self._push(stack, images[stop - size : stop])
                    stop -= size
                    bar.update(size)
        except EmptyStackError:
            raise InputError(
                "this model takes more bits back than its images cost: train it anew"
            ) from None
        words = stack.get_compressed()
        overlap = min(len(words), len(self.start))
        differs = words[:overlap] != self.start[:overlap]
        untouched = int(differs.argmax()) if differs.any() else overlap
        startup, crc = len(self.start) - untouched, zlib.crc32(np.ascontiguousarray(images))
        header = Header(MAGIC, VERSION, images.ndim, len(images), startup, self.weights, crc)
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
        pixels = bytearray()
        try:
            with self._at_work("decoding", header.count) as bar:
                for size in batches(header.count):
                    pixels += self._pop(stack, size).tobytes()
                    bar.update(size)
        except EmptyStackError:
            raise mismatch from None
        whole = np.array_equal(stack.get_compressed(), self.start)
        if not whole or zlib.crc32(pixels) != header.pixels:
            raise mismatch
        return np.frombuffer(pixels, np.uint8).reshape(header.shape)

    @contextmanager
    def _at_work(self, what: str, count: int) -> Iterator[tqdm]:
        """A progress bar, no gradients, and one torch thread; the number that was there after."""
        threads = torch.get_num_threads()
        hidden = None if self.progress else True  # None: shown on a terminal
        with tqdm(total=count, desc=what, unit=" images", disable=hidden) as bar:
            torch.set_num_threads(1)
            try:
                with torch.inference_mode():
                    yield bar
            finally:
                torch.set_num_threads(threads)

    def _push(self, stack: stream.stack.AnsCoder, images: np.ndarray) -> None:
        """uint8 [B, 28, 28] or [B, 1, 28, 28] onto the stack."""
        z = stack.decode(POSTERIOR, *self._posterior(images))
        self._check_not_empty(stack)
        stack.encode_reverse(images.ravel().astype(np.int32), PIXEL, self._probabilities(z))
        stack.encode_reverse(z, PRIOR)

    def _pop(self, stack: stream.stack.AnsCoder, size: int) -> np.ndarray:
        """`_push` backwards: uint8 [size, 28, 28] off the stack."""
        z = stack.decode(PRIOR, size * self.z_dim)
        pixels = stack.decode(PIXEL, self._probabilities(z)).astype(np.uint8)
        images = pixels.reshape(size, SIDE, SIDE)
        self._check_not_empty(stack)
        stack.encode_reverse(z, POSTERIOR, *self._posterior(images))
        return images

    def _check_not_empty(self, stack: stream.stack.AnsCoder) -> None:
        if stack.num_words() < self.least:
            raise EmptyStackError

    def _posterior(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of every latent, in bins: float32 [B * z_dim] each."""
        started = time.perf_counter()
        x = torch.from_numpy(images.reshape(-1, 1, SIDE, SIDE).astype(np.int64))
        mean, log_std = self._finite(*self.encoder(x))
        mean = (mean / BIN).clamp(-RADIUS, RADIUS)
        std = (log_std.exp() / BIN).clamp(1 / 8, RADIUS)  # of no use below a bin, or above all
        self.network_seconds += time.perf_counter() - started
        return mean.flatten().numpy(), std.flatten().numpy()

    def _probabilities(self, z: np.ndarray) -> np.ndarray:
        """Latents in bins, int32 [B * z_dim], to every pixel's: float32 [B * 784, 16]."""
        started = time.perf_counter()
        (logits,) = self._finite(self.decoder(torch.from_numpy(z).view(-1, self.z_dim) * BIN))
        probabilities = logits.permute(0, 2, 3, 1).flatten(0, 2).softmax(dim=1)
        self.network_seconds += time.perf_counter() - started
        return probabilities.numpy()

    @staticmethod
    def _finite(*outputs: Tensor) -> tuple[Tensor, ...]:
        if not all(output.isfinite().all() for output in outputs):
            raise InputError("the model's outputs are not finite numbers: train it anew")
        return outputs
