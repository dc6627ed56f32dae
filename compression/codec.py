"""Bits-back coding: images to an archive and back, at the rate that a VAE's ELBO promises.

Bits-back coding with asymmetric numeral systems (Townsend, Bird & Barber 2019, section 2 and
algorithm 1, https://arxiv.org/abs/1901.04866). The compressed images are a stack of bits. An image
is pushed onto it in three steps, and popped from it by the same steps backwards:

    take z off it under the posterior q(z|x)     gives    log q(z|x)  bits back
    put x onto it under the decoder p(x|z)       costs   -log p(x|z)
    put z onto it under the prior p(z)           costs   -log p(z)

The sum is the negative ELBO, in bits. Only the first image finds nothing to take z from, and takes
it from random bits: the start-up cost of an archive.

Of images with 256 grey levels, the low bits (see low_bits.py) lie below all 4-bit images. They cost
nothing to start up, and are where the first image takes its z from.

Both directions see the same probabilities because all of them are whole numbers, see exact.py.
"""

import hashlib
import zlib
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from compression import archive as files
from compression.archive import STORED, Archive, Header, read_archive
from compression.exact import ONE, frequencies, prepare
from compression.latents import BIN, TABLE, EmptyStackError, Posterior, Prior, Stack
from compression.low_bits import LowBits
from compression.whole_model import WholeModel
from fmnist import SIDE
from inputs.command_line import InputError

BATCH = 64  # images per run of the networks; more are not faster
UNNAMED = "the shipped one or one without a name"


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


class Codec:
    """Compresses and decompresses images with one model.

    Args:
        model: of 256 grey levels, it has the low bits' network too.
        progress: show a progress bar where there is a terminal.
    Raises:
        InputError: its weights are too large, see `exact.dense`.
    """

    def __init__(self, model: WholeModel, progress: bool = False):
        self.model, self.digest, weights = model, model.digest, iter(model.weights)
        self.encoder = prepare(model.encoder, weights)
        self.decoder = prepare(model.decoder, weights)
        self.prior = Prior(weights)
        self.low_bits = LowBits(weights) if model.levels == 256 else None
        self.z_dim = self.prior.z_dim
        white = 15 if self.low_bits else model.levels - 1
        levels = 2 * ONE * np.arange(white + 1)
        self.inputs = ((2 * levels + white) // (2 * white) - ONE).astype(np.float64)  # -1 to 1
        self.progress = partial(tqdm, unit=" batches", disable=None if progress else True)
        # A symbol takes at most 24 bits from the stack: a full batch, of z, k and y, leaves a
        # quarter of this. The one at the end is the head of an otherwise empty stack.
        most = BATCH * (2 * self.z_dim + 1) + 4
        random = hashlib.shake_128(files.MAGIC).digest(4 * most)
        self.start = np.append(np.frombuffer(random, "<u4"), 1).astype(np.uint32)

    def encode(
        self, images: ArrayLike, names: Sequence[str] = (), model_name: str = "", with_model=False
    ) -> bytes:
        """See `compress.encode`.

        Args:
            names: of the files that the images are from, if any.
            model_name: what is said of the model to who has another one.
        """
        levels = self.model.levels
        images = files.checked_images(images, levels)
        form, stored = images.ndim, files.pack_pixels(images, levels)
        try:
            startup, content = self._compress(images.reshape(-1, SIDE, SIDE))
        except EmptyStackError:
            content = None
        if content is None or len(content) > len(stored):
            form, startup, content = form | STORED, 0, stored
        pixels = zlib.crc32(np.ascontiguousarray(images))
        header = Header(levels - 1, form, len(images), startup, self.digest, pixels)
        packed = self.model.packed if with_model else b""
        return files.write_archive(Archive(header, content, names, model_name, packed))

    def decode(self, archive: bytes) -> NDArray[np.uint8]:
        """See `compress.decode`."""
        header, content, _, model_name, _ = read_archive(archive)
        if header.model != self.digest:
            raise InputError(
                f"the archive was made with another model, {model_name or UNNAMED}, of digest "
                f"{header.model.hex()}, this one has {self.digest.hex()}: give that one"
            )
        if header.form & STORED:
            images = files.unpack_pixels(content, header.levels)
        else:
            images = self._decompress(header.startup, content, header.count)
        if zlib.crc32(images) != header.pixels:
            raise InputError(
                "the decoded pixels do not match the archive's checksum: it was not written by "
                "compress.py, or this is a defect of it that its makers should hear of"
            )
        return images.reshape(header.shape)

    def _compress(self, images: NDArray[np.uint8]) -> tuple[int, bytes]:
        """Images uint8 [N, 28, 28] to the words of the stack, and how many of them are random."""
        stack = Stack(self.start)
        if self.low_bits:
            images = self.low_bits.push(stack, images, self.progress)
        for part in self.progress(batches(len(images))[::-1], desc="encoding"):
            self._push(stack, images[part])
        words = stack.get_compressed()
        overlap = min(len(words), len(self.start))
        same = words[:overlap] == self.start[:overlap]
        untouched = int(np.logical_and.accumulate(same).sum())
        return len(self.start) - untouched, words[untouched:].astype("<u4").tobytes()

    def _decompress(self, startup: int, content: bytes, count: int) -> NDArray[np.uint8]:
        """`_compress` backwards: uint8 [count, 28, 28]."""
        untouched = self.start[: len(self.start) - startup]
        words = np.frombuffer(content, "<u4").astype(np.uint32)
        stack = Stack(np.concatenate([untouched, words]))
        images = np.empty((count, SIDE, SIDE), np.uint8)
        for part in self.progress(batches(count), desc="decoding"):
            images[part] = self._pop(stack, part.stop - part.start)
        return self.low_bits.pop(stack, images, self.progress) if self.low_bits else images

    def _push(self, stack: Stack, images: NDArray[np.uint8]) -> None:
        """A batch of images without low bits, uint8 [B, 28, 28], onto the stack."""
        z = self._posterior(images).pop(stack).reshape(-1, self.z_dim)
        self.prior.check_not_empty(stack)
        stack.encode_reverse(images.ravel().astype(np.int32), TABLE, self._pixel_weights(z))
        self.prior.push(stack, z)

    def _pop(self, stack: Stack, size: int) -> NDArray[np.uint8]:
        """`_push` backwards: uint8 [size, 28, 28] off the stack."""
        z = self.prior.pop(stack, size)
        pixels = stack.decode(TABLE, self._pixel_weights(z)).astype(np.uint8)
        images = pixels.reshape(size, SIDE, SIDE)
        self._posterior(images).push(stack, z.ravel())
        return images

    def _posterior(self, images: NDArray[np.uint8]) -> Posterior:
        outputs = self.encoder(self.inputs[images][..., np.newaxis])
        return Posterior.of(outputs[:, : self.z_dim], outputs[:, self.z_dim :])

    def _pixel_weights(self, z: NDArray[np.int32]) -> NDArray[np.float64]:
        """Latents in bins, int32 [B, z_dim], to every pixel's frequencies: [B * 784, L]."""
        logits = self.decoder((BIN * z).astype(np.float64))
        return frequencies(logits.reshape(-1, logits.shape[-1]))
