"""The archive as a file: its header, its checksums, and what is refused before it is decoded."""

import lzma
import os
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from fmnist import SIDE
from inputs.command_line import InputError

# An archive is a header, sections, each after its size, the content, and the CRC-32 of all that.
# The content is the words of the stack or, if those are more, the pixels as they are.
MAGIC, VERSION = b"VAE4", 4
HEADER = struct.Struct("<4sBBBII8sI")  # these two, and the fields of Header
WORD = struct.Struct("<I")  # of a section's size, and of the CRC-32
OVERHEAD = HEADER.size + WORD.size  # bytes of an archive that are neither sections nor content
# Flags of `form`: the content is the pixels; there is a section with the names of the images'
# files, with the name of the model, with the model.
STORED, NAMED, MODEL_NAMED, WITH_MODEL = 16, 32, 64, 128


class Header(NamedTuple):
    """What an archive says about itself."""

    white: int  # the highest grey level
    form: int  # 3 for images [N, 28, 28], 4 for [N, 1, 28, 28], and the flags
    count: int  # N
    startup: int  # random words at the bottom of the stack; decoding knows the ones below them
    model: bytes  # digest of the model
    pixels: int  # CRC-32 of the images, a byte per pixel

    @property
    def levels(self) -> int:
        return self.white + 1

    @property
    def shape(self) -> tuple[int, ...]:
        channels = (1,) if self.form & 4 else ()
        return (self.count, *channels, SIDE, SIDE)


class Archive(NamedTuple):
    """The parts of an archive."""

    header: Header
    content: bytes
    names: Sequence[str] = ()  # of the files that the images were in, as seen from their folder
    model_name: str = ""
    model: bytes = b""  # `WholeModel.packed`, if it is in the archive


def write_archive(archive: Archive) -> bytes:
    header, content, names, model_name, model = archive
    sections = {
        NAMED: zlib.compress(os.fsencode("\0".join(names)), level=9) if names else b"",
        MODEL_NAMED: os.fsencode(model_name),
        WITH_MODEL: lzma.compress(model) if model else b"",
    }
    packed = b""
    for flag, section in sections.items():
        if section:
            header = header._replace(form=header.form | flag)
            packed += WORD.pack(len(section)) + section
    packed = HEADER.pack(MAGIC, VERSION, *header) + packed + content
    return packed + WORD.pack(zlib.crc32(packed))


def read_archive(packed: bytes) -> Archive:
    """The parts of an archive.

    Raises:
        InputError: it is something else, of another version, truncated or altered, or names a file
            outside the folder that its files are for.
    """
    if packed[: len(MAGIC)] != MAGIC:
        raise InputError("this is no archive of compress.py")
    content = packed[: -WORD.size]
    if len(packed) < OVERHEAD or WORD.pack(zlib.crc32(content)) != packed[len(content) :]:
        raise InputError("the archive is truncated or altered: take another copy of it")
    _, version, *fields = HEADER.unpack_from(packed)
    header, content = Header(*fields), content[HEADER.size :]
    if version != VERSION:
        older = "commit 52233d3 reads 3, with the checkpoint and on the machine that made it"
        help = older if version == 3 else "take the program that made it"
        what = f"the archive is of version {version}, this program reads version {VERSION}"
        raise InputError(f"{what}: {help}")
    sections = []
    for flag in (NAMED, MODEL_NAMED, WITH_MODEL):
        end = WORD.size + WORD.unpack_from(content)[0] if header.form & flag else 0
        sections.append(content[WORD.size : end])
        content = content[end:]
    names, model_name, model = sections
    names = os.fsdecode(zlib.decompress(names)).split("\0") if names else []
    for name in names:
        if not {"", ".", ".."}.isdisjoint(name.split("/")):
            raise InputError(f"the archive names a file {name!r}, which is outside its folder")
    model = lzma.decompress(model) if model else b""
    return Archive(header, content, names, os.fsdecode(model_name), model)


def pack_pixels(images: np.ndarray, levels: int) -> bytes:
    """Images uint8 [..., 28, 28] as they are: of 16 levels two pixels to a byte, of 2 eight."""
    if levels == 2:
        return np.packbits(images).tobytes()
    return (16 * images[..., ::2] + images[..., 1::2] if levels <= 16 else images).tobytes()


def unpack_pixels(content: bytes, levels: int) -> np.ndarray:
    """`pack_pixels` backwards: uint8 [N, 28, 28]."""
    pixels = np.frombuffer(content, np.uint8)
    if levels == 2:
        pixels = np.unpackbits(pixels)
    elif levels <= 16:
        pixels = np.stack([pixels >> 4, pixels & 15], axis=-1)
    return pixels.reshape(-1, SIDE, SIDE)


def checked_images(images: ArrayLike, levels: int) -> np.ndarray:
    """The images as a NumPy array.

    Raises:
        TypeError, ValueError: they are not uint8, not [N, 28, 28] or [N, 1, 28, 28], or have values
            above levels-1.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    if images.shape[1:] not in ((SIDE, SIDE), (1, SIDE, SIDE)):
        expected = f"[N, {SIDE}, {SIDE}] or [N, 1, {SIDE}, {SIDE}]"
        raise ValueError(f"images must be {expected}, got {list(images.shape)}")
    if images.size and images.max() >= levels:
        raise ValueError(f"images must have values 0..{levels - 1}, got {images.max()}")
    return images
