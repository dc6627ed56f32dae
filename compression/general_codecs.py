"""What general codecs make of the same images, for comparison."""

import bz2
import io
import lzma
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 28
JPEG_XL_9, JPEG_XL_10 = (f"JPEG XL, one sheet, effort {effort}" for effort in (9, 10))


class Format(NamedTuple):
    """From an array uint8, values 0..levels-1, to the bytes of a file and back."""

    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]


class Contest(NamedTuple):
    """A format, and the arrays that each become a file of it: a sheet, or single images."""

    format: Format
    arrays: Sequence[np.ndarray]


def picture_format(to_picture: Callable[[np.ndarray], Image.Image], **how: object) -> Format:
    """A format of Pillow's, for uint8 [H, W].

    Args:
        to_picture: makes a picture whose first channel is the array.
        how: what `Image.save` takes.
    """

    def encode(levels: np.ndarray) -> bytes:
        file = io.BytesIO()
        to_picture(levels).save(file, **how)
        return file.getvalue()

    def decode(file: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(file)) as picture:
            levels = np.array(picture)
        return levels if levels.ndim == 2 else levels[..., 0]

    return Format(encode, decode)


def palette_picture(levels: np.ndarray) -> Image.Image:
    picture = Image.frombytes("P", levels.shape[::-1], levels.tobytes())
    picture.putpalette([17 * level for level in range(16) for _ in "RGB"])
    return picture


def png() -> Format:
    return picture_format(Image.fromarray, format="PNG", optimize=True)


def png_of_16_levels() -> Format:
    """With a palette, as Pillow does not write grey at 4 bits per pixel: for a single digit that
    takes more than the bits which it saves."""
    return picture_format(palette_picture, format="PNG", optimize=True, bits=4)


def webp() -> Format:
    how = {"format": "WEBP", "lossless": True, "quality": 100, "method": 6}
    return picture_format(Image.fromarray, **how)


def jpeg_xl(effort: int) -> Format:
    """`has_jpeg_xl` must hold."""
    import imagecodecs  # for this comparison only

    def encode(levels: np.ndarray) -> bytes:
        how = {"lossless": True, "effort": effort, "numthreads": 1}
        return imagecodecs.jpegxl_encode(levels, **how)

    return Format(encode, lambda file: imagecodecs.jpegxl_decode(file, numthreads=1))


def stream_format(
    shape: tuple[int, ...], compress: Callable[[bytes], bytes], decompress: Callable[[bytes], bytes]
) -> Format:
    """The values of arrays of this shape, one byte after the other."""

    def decode(file: bytes) -> np.ndarray:
        return np.frombuffer(decompress(file), np.uint8).reshape(shape)

    return Format(lambda images: compress(images.tobytes()), decode)


def in_pairs(whole: Format) -> Format:
    """Of 16 levels, two in a byte."""

    def decode(file: bytes) -> np.ndarray:
        pairs = whole.decode(file)
        return np.stack([pairs >> 4, pairs & 15], axis=-1).reshape(*pairs.shape[:-1], -1)

    return Format(lambda images: whole.encode(16 * images[..., ::2] + images[..., 1::2]), decode)


def xz(shape: tuple[int, ...], levels: int) -> Format:
    """It is better at pairs of 16 levels than at single ones."""

    def compress(values: bytes) -> bytes:
        return lzma.compress(values, preset=9 | lzma.PRESET_EXTREME)

    if levels == 256:
        return stream_format(shape, compress, lzma.decompress)
    return in_pairs(stream_format((*shape[:-1], shape[-1] // 2), compress, lzma.decompress))


def has_jpeg_xl() -> bool:
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        return False
    return True


def one_sheet(images: np.ndarray) -> np.ndarray:
    """Images [N, 28, 28] as one of about as many rows as columns, the last row filled with 0."""
    columns = math.isqrt(len(images) - 1) + 1
    rows = -(-len(images) // columns)
    filled = np.zeros((rows * columns, SIDE, SIDE), np.uint8)
    filled[: len(images)] = images
    grid = filled.reshape(rows, columns, SIDE, SIDE).swapaxes(1, 2)
    return grid.reshape(rows * SIDE, columns * SIDE)


def codec_bytes(images: np.ndarray) -> dict[str, int]:
    """Bytes by name of 16-level images, see `codecs`; JPEG XL takes too long for a report."""
    return {
        name: sum(len(contest.format.encode(array)) for array in contest.arrays)
        for name, contest in codecs(images, levels=16).items()
        if "JPEG XL" not in name
    }


def codecs(images: np.ndarray, levels: int) -> dict[str, Contest]:
    """General codecs, without loss, by name; the images are one sheet, or one stream of bytes.

    Args:
        images: uint8 [N, 28, 28], values 0..levels-1, N >= 1.
        levels: 16 or 256.
    """
    sheet = [one_sheet(images)]
    whole = stream_format(images.shape, bz2.compress, bz2.decompress)
    contests = {
        "PNG, one sheet": Contest(png_of_16_levels() if levels == 16 else png(), sheet),
        "WebP, one sheet": Contest(webp(), sheet),
        "bz2": Contest(whole, [images]),
        "xz": Contest(xz(images.shape, levels), [images]),
    }
    if has_jpeg_xl():
        contests[JPEG_XL_9] = Contest(jpeg_xl(9), sheet)
        contests[JPEG_XL_10] = Contest(jpeg_xl(10), sheet)
    return contests


def single_image_codecs(images: np.ndarray) -> dict[str, Contest]:
    """As `codecs`, but with a file per image."""
    contests = {"PNG": Contest(png(), images), "WebP": Contest(webp(), images)}
    if has_jpeg_xl():
        contests["JPEG XL, effort 9"] = Contest(jpeg_xl(9), images)
        contests["JPEG XL, effort 10"] = Contest(jpeg_xl(10), images)
    return contests
