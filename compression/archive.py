"""The archive as a file: its header, its checksums, and what is refused before it is decoded."""

import os
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fmnist import SIDE
from inputs.command_line import InputError

# An archive is its header, the names of the images' files if it has any (compressed, after their
# size), its content and the CRC-32 of all that. The content is the words of the stack or, where
# those would be more, the pixels as they are.
MAGIC, VERSION = b"VAE4", 3
HEADER = struct.Struct("<4sBBBII8sI")  # these two, and the fields of Header
WORD = struct.Struct("<I")  # of the names' size, and of the CRC-32
OVERHEAD = HEADER.size + WORD.size  # bytes of an archive that are neither names nor content
STORED, NAMED = 16, 32  # flags of `form`: the content are the pixels; there are names


class Header(NamedTuple):
    """What an archive says about itself."""

    bits: int  # the kind: 4 for images of 16 grey levels, 8 for 256
    form: int  # 3 for images [N, 28, 28], 4 for [N, 1, 28, 28], and the flags
    count: int  # N
    startup: int  # random words at the bottom of the stack; decoding knows the ones below them
    weights: bytes  # fingerprint of the weights of all models that are needed
    pixels: int  # CRC-32 of the images, a byte per pixel

    @property
    def levels(self) -> int:
        return 2**self.bits

    @property
    def shape(self) -> tuple[int, ...]:
        channels = (1,) if self.form & 4 else ()
        return (self.count, *channels, SIDE, SIDE)


class Archive(NamedTuple):
    """The parts of an archive."""

    header: Header
    content: bytes
    names: Sequence[str] = ()  # of the files that the images were in, as seen from their folder


def write_archive(archive: Archive) -> bytes:
    header, content, names = archive
    if names:
        header = header._replace(form=header.form | NAMED)
        compressed = zlib.compress(os.fsencode("\0".join(names)), level=9)
        content = WORD.pack(len(compressed)) + compressed + content
    packed = HEADER.pack(MAGIC, VERSION, *header) + content
    return packed + WORD.pack(zlib.crc32(packed))


def read_archive(packed: bytes) -> Archive:
    """The parts of a whole archive of this version.

    Raises:
        InputError: it is something else, of another version, truncated or altered, or it names
            files outside of the folder that they are for.
    """
    if packed[: len(MAGIC)] != MAGIC:
        raise InputError("this is no archive of compress.py")
    content = packed[: -WORD.size]
    if len(packed) < OVERHEAD or WORD.pack(zlib.crc32(content)) != packed[len(content) :]:
        raise InputError("the archive is truncated or altered: take another copy of it")
    _, version, *fields = HEADER.unpack_from(packed)
    header, content, names = Header(*fields), content[HEADER.size :], []
    if version != VERSION:
        raise InputError(
            f"the archive is of version {version}, this program reads version {VERSION}: "
            "use the program and the checkpoint that made it"
        )
    if header.form & NAMED:
        end = WORD.size + WORD.unpack_from(content)[0]
        names = os.fsdecode(zlib.decompress(content[WORD.size : end])).split("\0")
        content = content[end:]
        for name in names:
            if not {"", ".", ".."}.isdisjoint(name.split("/")):
                raise InputError(f"the archive names a file {name!r}, which is outside its folder")
    return Archive(header, content, names)


def pack_pixels(images: np.ndarray, bits: int) -> bytes:
    """Images uint8 [..., 28, 28] as they are: of 4 bits, two pixels to a byte."""
    return (images if bits == 8 else 16 * images[..., ::2] + images[..., 1::2]).tobytes()


def unpack_pixels(content: bytes, bits: int) -> np.ndarray:
    """`pack_pixels` backwards: uint8 [N, 28, 28]."""
    pixels = np.frombuffer(content, np.uint8)
    if bits == 4:
        pixels = np.stack([pixels >> 4, pixels & 15], axis=-1)
    return pixels.reshape(-1, SIDE, SIDE)


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
    if images.size and images.max() >= levels:
        raise ValueError(f"images must have 16 grey levels, 0..15, got {images.max()}")
    return images
