"""What general codecs make of the same images, for comparison."""

import bz2
import io
import lzma
import math
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

SIDE = 28
JPEG_XL_9, JPEG_XL_10 = (f"JPEG XL, one sheet, effort {effort}" for effort in (9, 10))


def file_size(picture: Image.Image, **how: object) -> int:
    file = io.BytesIO()
    picture.save(file, **how)
    return file.tell()


def png_bytes(pictures: Iterable[np.ndarray], levels: int) -> int:
    """Of PNG files of the levels, uint8 [H, W] in 0..levels-1.

    256 levels are grey at 8 bits per pixel; 16 are that or 4 bits per pixel, which needs a palette,
    whichever is the smaller file.
    """

    def smallest(picture: np.ndarray) -> int:
        if levels == 256:
            return file_size(Image.fromarray(picture), format="PNG", optimize=True)
        palette = Image.frombytes("P", picture.shape[::-1], picture.tobytes())
        palette.putpalette([17 * level for level in range(16) for _ in "RGB"])
        forms = ((palette, {"bits": 4}), (Image.fromarray(17 * picture), {}))
        return min(file_size(form, format="PNG", optimize=True, **how) for form, how in forms)

    return sum(map(smallest, pictures))


def webp_bytes(pictures: Iterable[np.ndarray]) -> int:
    """Of lossless WebP files of the levels, uint8 [H, W]."""
    how = {"format": "WEBP", "lossless": True, "quality": 100, "method": 6}
    return sum(file_size(Image.fromarray(levels), **how) for levels in pictures)


def jpeg_xl_bytes(pictures: Iterable[np.ndarray], effort: int) -> int:
    """Of lossless JPEG XL files of the levels, uint8 [H, W]; `has_jpeg_xl` must hold."""
    import imagecodecs  # for this comparison only

    how = {"lossless": True, "effort": effort, "numthreads": 1}
    return sum(len(imagecodecs.jpegxl_encode(levels, **how)) for levels in pictures)


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
    works = codecs(images, levels=16)
    return {name: work() for name, work in works.items() if "JPEG XL" not in name}


def codecs(images: np.ndarray, levels: int) -> dict[str, Callable[[], int]]:
    """General codecs, without loss: by name, what encodes and returns the size in bytes.

    The images are one sheet, or one stream of bytes; of 16 levels, bz2 gets a byte per pixel and xz
    one for two pixels, which suits them better than the reverse.

    Args:
        images: uint8 [N, 28, 28], values 0..levels-1, N >= 1.
        levels: 16 or 256.
    """
    sheet, raw = one_sheet(images), images.tobytes()
    packed = (16 * images[..., ::2] + images[..., 1::2]).tobytes() if levels == 16 else raw
    works = {
        "PNG, one sheet": lambda: png_bytes([sheet], levels),
        "WebP, one sheet": lambda: webp_bytes([sheet]),
        "bz2": lambda: len(bz2.compress(raw, 9)),
        "xz": lambda: len(lzma.compress(packed, preset=9 | lzma.PRESET_EXTREME)),
    }
    if has_jpeg_xl():
        works[JPEG_XL_9] = lambda: jpeg_xl_bytes([sheet], effort=9)
        works[JPEG_XL_10] = lambda: jpeg_xl_bytes([sheet], effort=10)
    return works


def single_image_codecs(images: np.ndarray, levels: int) -> dict[str, Callable[[], int]]:
    """As `codecs`, but with a file per image."""
    works = {
        "PNG": lambda: png_bytes(images, levels),
        "WebP": lambda: webp_bytes(images),
    }
    if has_jpeg_xl():
        works["JPEG XL, effort 9"] = lambda: jpeg_xl_bytes(images, effort=9)
    return works
