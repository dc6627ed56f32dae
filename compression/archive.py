"""The archive as a file: its header, its checksums, and what is refused before it is decoded."""

import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from boundary.command_line import InputError

SIDE = 28

# An archive is its header, the words of the stack, and the CRC-32 of both.
MAGIC, VERSION = b"VAE4", 3
HEADER = struct.Struct("<4sBBBII8sI")  # the fields of Header
CHECKSUM = struct.Struct("<I")
OVERHEAD = HEADER.size + CHECKSUM.size  # bytes of an archive that are not the stack
# The last commits of the versions before; their pretrained/ holds the checkpoint of that time.
LAST_OF_VERSION = {1: "1958463", 2: "1afad29"}


class Header(NamedTuple):
    """What an archive says about itself."""

    magic: bytes
    version: int
    bits: int  # the kind: 4 for images of 16 grey levels, 8 for 256
    rank: int  # 3 for images [N, 28, 28], 4 for [N, 1, 28, 28]
    count: int  # N
    startup: int  # random words at the bottom of the stack; decoding knows the ones below them
    weights: bytes  # fingerprint of the weights of all models that are needed
    pixels: int  # CRC-32 of the images, a byte per pixel

    @property
    def levels(self) -> int:
        return 2**self.bits

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
    pixels, or twice that, and at most 24 bits per latent on the stack for a byte of it.

    Raises:
        InputError: it is something else, of another version, truncated or altered.
    """
    if archive[: len(MAGIC)] != MAGIC:
        raise InputError("this is no archive of compress.py")
    if archive[len(MAGIC) : len(MAGIC) + 1] != bytes([VERSION]):
        found = archive[len(MAGIC)] if len(archive) > len(MAGIC) else "no"
        last = LAST_OF_VERSION.get(found)
        which = f": git checkout {last}" if last else ""
        raise InputError(
            f"the archive is of version {found}, this program reads version {VERSION}: "
            f"use the program and the checkpoint that made it{which}"
        )
    end = len(archive) - CHECKSUM.size
    if end < HEADER.size or CHECKSUM.pack(zlib.crc32(archive[:end])) != archive[end:]:
        raise InputError("the archive is truncated or altered: take another copy of it")
    header = Header(*HEADER.unpack_from(archive))
    if header.bits not in (4, 8) or header.rank not in (3, 4) or (end - HEADER.size) % 4:
        raise InputError("the archive makes no sense, though its checksum is right")
    if header.count > len(archive):
        raise InputError(
            f"the archive claims {header.count:,} images in {len(archive):,} bytes, though its "
            "checksum is right: it was not made by compress.py"
        )
    return header


def checked_images(images: ArrayLike, levels: int) -> np.ndarray:
    """The images as a NumPy array, after a check of everything that an archive assumes.

    Args:
        levels: 16 or 256, how many grey levels there are.
    Raises:
        TypeError: they are not uint8.
        ValueError: they are not [N, 28, 28] or [N, 1, 28, 28], or have values above 15 of 16.
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
    if images.size and images.max() >= levels:
        raise ValueError(f"images must have 16 grey levels, 0..15, got {images.max()}")
    return images
