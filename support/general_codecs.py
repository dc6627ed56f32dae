"""What general codecs make of the same images, for comparison."""

import bz2
import io
import lzma
import math
from collections.abc import Iterable

import numpy as np
from PIL import Image

SIDE = 28


def file_size(picture: Image.Image, **how: object) -> int:
    file = io.BytesIO()
    picture.save(file, **how)
    return file.tell()


def png_bytes(pictures: Iterable[np.ndarray]) -> int:
    """Of PNG files of the levels, uint8 [H, W] in 0..15.

    At 4 bits per pixel, which needs a palette, or as grey at 8, whichever is the smaller file.
    """

    def smaller(levels: np.ndarray) -> int:
        palette = Image.frombytes("P", levels.shape[::-1], levels.tobytes())
        palette.putpalette([17 * level for level in range(16) for _ in "RGB"])
        forms = ((palette, {"bits": 4}), (Image.fromarray(17 * levels), {}))
        return min(file_size(form, format="PNG", optimize=True, **how) for form, how in forms)

    return sum(map(smaller, pictures))


def webp_bytes(pictures: Iterable[np.ndarray]) -> int:
    """Of lossless WebP files of the levels, uint8 [H, W] in 0..15."""
    how = {"format": "WEBP", "lossless": True, "quality": 100, "method": 6}
    return sum(file_size(Image.fromarray(levels), **how) for levels in pictures)


def one_sheet(images: np.ndarray) -> np.ndarray:
    """Images [N, 28, 28] as one of about as many rows as columns, the last row filled with 0."""
    columns = math.isqrt(len(images) - 1) + 1
    rows = -(-len(images) // columns)
    filled = np.zeros((rows * columns, SIDE, SIDE), np.uint8)
    filled[: len(images)] = images
    grid = filled.reshape(rows, columns, SIDE, SIDE).swapaxes(1, 2)
    return grid.reshape(rows * SIDE, columns * SIDE)


def codec_bytes(images: np.ndarray) -> dict[str, int]:
    """What general codecs make of all images at once, without loss.

    Args:
        images: uint8 [N, 28, 28], values 0..15, N >= 1.
    Returns:
        bytes by the codec's name; bz2 gets a byte per pixel, xz one for two pixels, which suits
        them better than the reverse.
    """
    sheet, raw = one_sheet(images), images.tobytes()
    packed = (16 * images[..., ::2] + images[..., 1::2]).tobytes()
    return {
        "PNG, one sheet": png_bytes([sheet]),
        "WebP, one sheet": webp_bytes([sheet]),
        "bz2": len(bz2.compress(raw, 9)),
        "xz": len(lzma.compress(packed, preset=9 | lzma.PRESET_EXTREME)),
    }


def slow_codec_bytes(images: np.ndarray) -> dict[str, int]:
    """As `codec_bytes`: a file per image, and JPEG XL where imagecodecs is installed."""
    sizes = {"PNG, single images": png_bytes(images), "WebP, single images": webp_bytes(images)}
    try:
        import imagecodecs  # for this comparison only
    except ImportError:
        return sizes
    for effort in (9, 10):
        file = imagecodecs.jpegxl_encode(one_sheet(images), lossless=True, effort=effort)
        sizes[f"JPEG XL, one sheet, effort {effort}"] = len(file)
    return sizes
