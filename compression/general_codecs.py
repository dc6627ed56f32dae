"""What general codecs make of the same images, for comparison."""

import bz2
import importlib.util
import io
import lzma
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from compression.archive import pack_pixels, unpack_pixels
from fmnist import SIDE


class Format(NamedTuple):
    """From an array uint8, values 0..levels-1, to the bytes of a file and back."""

    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]


class Contest(NamedTuple):
    """A format, and the arrays that each become a file of it: a sheet, or single images."""

    format: Format
    arrays: Sequence[np.ndarray]


def picture_format(mode: str, **options: object) -> Format:
    """A format of Pillow's, for uint8 [H, W].

    Args:
        mode: the picture's, "L" for grey, "P" for a palette of greys.
        options: what `Image.save` takes.
    """

    def encode(levels: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(levels).convert(mode).save(file, **options)
        return file.getvalue()

    def decode(file: bytes) -> np.ndarray:
        levels = np.array(Image.open(io.BytesIO(file)))
        return levels if levels.ndim == 2 else levels[..., 0]

    return Format(encode, decode)


def stream_format(
    compress: Callable[[bytes], bytes], decompress: Callable[[bytes], bytes], bits: int
) -> Format:
    """The pixels of images [N, 28, 28], one after the other; of 4 bits, two in a byte."""
    return Format(
        lambda images: compress(pack_pixels(images, bits)),
        lambda file: unpack_pixels(decompress(file), bits),
    )


def jpeg_xl(effort: int) -> Format:
    import imagecodecs  # for this comparison only, and left out where it is not installed

    def encode(levels: np.ndarray) -> bytes:
        return imagecodecs.jpegxl_encode(levels, lossless=True, effort=effort, numthreads=1)

    return Format(encode, lambda file: imagecodecs.jpegxl_decode(file, numthreads=1))


PNG = picture_format("L", format="PNG", optimize=True)
# Pillow writes grey at 8 bits only; a palette of 16, which a single digit does not repay, at 4.
PNG_OF_16_LEVELS = picture_format("P", format="PNG", optimize=True, bits=4)
WEBP = picture_format("L", format="WEBP", lossless=True, quality=100, method=6)
EFFORTS = (9, 10) if importlib.util.find_spec("imagecodecs") else ()  # JPEG XL's highest


def one_sheet(images: np.ndarray) -> np.ndarray:
    """Images [N, 28, 28] as one of about as many rows as columns, the last row filled with 0."""
    columns = math.isqrt(len(images) - 1) + 1
    rows = -(-len(images) // columns)
    filled = np.zeros((rows * columns, SIDE, SIDE), np.uint8)
    filled[: len(images)] = images
    grid = filled.reshape(rows, columns, SIDE, SIDE).swapaxes(1, 2)
    return grid.reshape(rows * SIDE, columns * SIDE)


def codecs(images: np.ndarray, levels: int) -> dict[str, Contest]:
    """General codecs, without loss, by name; the images are one sheet, or one stream of bytes.

    Args:
        images: uint8 [N, 28, 28], values 0..levels-1, N >= 1.
        levels: 16 or 256.
    """
    sheet = [one_sheet(images)]
    bits = 4 if levels == 16 else 8  # xz is better at pairs of 16 levels than at single ones

    def xz(values: bytes) -> bytes:
        return lzma.compress(values, preset=9 | lzma.PRESET_EXTREME)

    contests = {
        "PNG, one sheet": Contest(PNG_OF_16_LEVELS if levels == 16 else PNG, sheet),
        "WebP, one sheet": Contest(WEBP, sheet),
        "bz2": Contest(stream_format(bz2.compress, bz2.decompress, bits=8), [images]),
        "xz": Contest(stream_format(xz, lzma.decompress, bits), [images]),
    }
    for effort in EFFORTS:
        contests[f"JPEG XL, one sheet, effort {effort}"] = Contest(jpeg_xl(effort), sheet)
    return contests


def single_image_codecs(images: np.ndarray) -> dict[str, Contest]:
    """As `codecs`, but with a file per image."""
    contests = {"PNG": Contest(PNG, images), "WebP": Contest(WEBP, images)}
    for effort in EFFORTS:
        contests[f"JPEG XL, effort {effort}"] = Contest(jpeg_xl(effort), images)
    return contests


def codec_bytes(images: np.ndarray) -> dict[str, int]:
    """Bytes by name of 16-level images, see `codecs`; JPEG XL takes too long for a report."""
    return {
        name: sum(len(contest.format.encode(array)) for array in contest.arrays)
        for name, contest in codecs(images, levels=16).items()
        if "JPEG XL" not in name
    }
