"""What general codecs make of the same images, for comparison."""

import bz2
import importlib.util
import io
import lzma
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from compression.archive import pack_pixels, unpack_pixels
from fmnist import SIDE

EFFORTS = (9, 10) if importlib.util.find_spec("imagecodecs") else ()  # JPEG XL's highest


class Contest(NamedTuple):
    """Arrays uint8, values 0..levels-1, and how each of them becomes a file and is read again."""

    arrays: Sequence[np.ndarray]
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]


def as_pictures(arrays: Sequence[np.ndarray], mode: str, **options: object) -> Contest:
    """Arrays [H, W] in a format of Pillow's.

    Args:
        mode: the picture's, "L" for grey, "P" for a palette of greys.
        options: what `Image.save` takes.
    """

    def encode(levels: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(levels).convert(mode).save(file, **options)
        return file.getvalue()

    return Contest(arrays, encode, lambda file: np.array(Image.open(io.BytesIO(file)).convert("L")))


def as_jpeg_xl(arrays: Sequence[np.ndarray], effort: int) -> Contest:
    import imagecodecs  # for this comparison only, and left out where it is not installed

    encode = partial(imagecodecs.jpegxl_encode, lossless=True, effort=effort, numthreads=1)
    return Contest(arrays, encode, partial(imagecodecs.jpegxl_decode, numthreads=1))


def as_stream(images: np.ndarray, compress: Callable, decompress: Callable, bits: int) -> Contest:
    """The pixels of images [N, 28, 28], one after the other; of 4 bits, two in a byte."""
    return Contest(
        [images],
        lambda images: compress(pack_pixels(images, bits)),
        lambda file: unpack_pixels(decompress(file), bits),
    )


def one_sheet(images: np.ndarray) -> np.ndarray:
    """Images [N, 28, 28] as one of about as many rows as columns, the last row filled with 0."""
    columns = math.isqrt(len(images) - 1) + 1
    rows = -(-len(images) // columns)
    filled = np.zeros((rows * columns, SIDE, SIDE), np.uint8)
    filled[: len(images)] = images
    grid = filled.reshape(rows, columns, SIDE, SIDE).swapaxes(1, 2)
    return grid.reshape(rows * SIDE, columns * SIDE)


def codecs(images: np.ndarray, levels: int, single: bool = False) -> dict[str, Contest]:
    """General codecs, without loss, by name.

    Args:
        images: uint8 [N, 28, 28], values 0..levels-1, N >= 1.
        levels: 16 or 256.
        single: every image is a file of its own; else all are one sheet or one stream of bytes.
    """
    pictures, sheet = (images, "") if single else ([one_sheet(images)], ", one sheet")
    # Pillow writes grey at 8 bits only; a palette of 16, which a single digit does not repay, at 4.
    kind = {"mode": "P", "bits": 4} if levels == 16 and not single else {"mode": "L"}
    webp = {"mode": "L", "format": "WEBP", "lossless": True, "quality": 100, "method": 6}
    contests = {
        f"PNG{sheet}": as_pictures(pictures, **kind, format="PNG", optimize=True),
        f"WebP{sheet}": as_pictures(pictures, **webp),
    }
    if not single:
        xz = partial(lzma.compress, preset=9 | lzma.PRESET_EXTREME)
        bits = 4 if levels == 16 else 8  # xz is better at pairs of 16 levels than at single ones
        contests["bz2"] = as_stream(images, bz2.compress, bz2.decompress, bits=8)
        contests["xz"] = as_stream(images, xz, lzma.decompress, bits)
    for effort in EFFORTS:
        contests[f"JPEG XL{sheet}, effort {effort}"] = as_jpeg_xl(pictures, effort)
    return contests


def codec_bytes(images: np.ndarray) -> dict[str, int]:
    """Bytes by name of 16-level images, see `codecs`; JPEG XL takes too long for a report."""
    return {
        name: sum(len(encode(array)) for array in arrays)
        for name, (arrays, encode, _) in codecs(images, levels=16).items()
        if "JPEG XL" not in name
    }
