"""Files of images and archives: read though not trusted, and replaced only by whole new ones."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from boundary.command_line import InputError, one_line
from boundary.files import check_regular, read_idx
from compression.archive import SIDE, checked_images
from fmnist import four_bit

PNG_SCALE = 17  # 16 levels in 8 bits: 0 to 255


def read_images(path: Path, levels: int | None, discretize: bool) -> tuple[np.ndarray, int]:
    """Images from a .npy or IDX file, a PNG file or a folder of PNG files.

    Args:
        levels: 16 or 256, how many grey levels the file has: 0..15 or 0..255, and multiples of 17
            for PNG files of 16. Without, a .npy file has 16 and others have 256.
        discretize: bring 256 levels down to 16.
    Returns:
        uint8 [N, 28, 28] or [N, 1, 28, 28], and how many levels they have now; those of a .npy file
        stay on disk where they can.
    Raises:
        InputError: the file cannot be read or contains something else.
    """
    try:
        images, scale, usual = read_file(path)
        levels = levels or usual
        if discretize and levels == 16:
            raise ValueError(
                "it has 16 levels already; if not, say --levels 256 with --discretize"
                if usual == 16
                else "--discretize is for 256 grey levels, not for --levels 16"
            )
        if levels == 16 and scale > 1:
            if (images % scale).any():
                raise ValueError(f"it has other grey values than {scale} times a level of 16")
            images = images // scale
        images = checked_images(images, levels)
        return (four_bit(images), 16) if discretize else (images, levels)
    except Exception as error:  # there is no end to what a damaged file can raise
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path} cannot be used: {one_line(why)}") from error


def read_file(path: Path) -> tuple[np.ndarray, int, int]:
    """The values in a file or folder of images, what 16 levels are multiplied by, usual levels."""
    if path.is_dir():
        return read_pngs(path), PNG_SCALE, 256
    check_regular(path)
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(b"\x93NUMPY"):
        return np.load(path, mmap_mode="r", allow_pickle=False), 1, 16
    if start == b"\x89PNG\r\n\x1a\n":
        return read_png(path)[np.newaxis], PNG_SCALE, 256
    return read_idx(path), 1, 256


def read_pngs(folder: Path) -> np.ndarray:
    """The PNG files in a folder in the order of their names: uint8 [N, 28, 28].

    Raises:
        OSError, SyntaxError, ValueError: there is something else, or nothing.
    """
    files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    images = []
    for file in files:
        try:
            check_regular(file)
            images.append(read_png(file))
        except Exception as error:
            raise ValueError(f"{file.name}: {error}") from error
    if not images:
        raise ValueError("the folder is empty, it should have PNG files of 28x28 pixels")
    return np.stack(images)


def read_png(path: Path) -> np.ndarray:
    """A grey picture, 0 black and 255 white, from 1, 2, 4 or 8 bits or a palette: uint8 [28, 28].

    Raises:
        OSError, SyntaxError, ValueError: it is something else; of another size it is not unpacked.
    """
    with Image.open(path, formats=["PNG"]) as picture:
        if picture.size != (SIDE, SIDE):
            raise ValueError(f"the picture is {picture.width}x{picture.height}, expected 28x28")
        if picture.mode not in ("1", "L", "P") or "transparency" in picture.info:
            raise ValueError(
                "the picture has colours, transparency or 16 bits, expected 8-bit grey"
            )
        if getattr(picture, "n_frames", 1) > 1:
            raise ValueError("the picture is animated")
        red, green, blue = np.moveaxis(np.array(picture.convert("RGB")), 2, 0)
    if (red != green).any() or (red != blue).any():
        raise ValueError("the picture has colours, expected shades of grey")
    return red


def read_bytes(path: Path) -> bytes:
    """Raises InputError where it is no regular file or cannot be read."""
    try:
        check_regular(path)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read: {why}") from error


def check_target(path: Path, count: int) -> None:
    """Raises InputError where `write_images` cannot write so many images under this name."""
    if path.suffix == ".png" and count != 1:
        raise InputError(
            f"{path} would be one picture and the archive has {count:,}: give a folder's name"
        )
    if path.suffix == ".gz":
        raise InputError(f"{path} would not be compressed: give a name without .gz")


def write_images(path: Path, images: np.ndarray, levels: int, name: str) -> None:
    """A .npy or IDX file of the levels, one PNG file or a folder of them, as the name says.

    IDX files end with `ubyte`, as MNIST's do, or `.idx`; any other name is a folder's. In PNG files
    16 levels are multiplied by 17.
    """
    if name.endswith(".npy"):
        with open(path, "xb") as file:
            np.save(file, images)
        return
    if name.endswith(("ubyte", ".idx")):
        header = struct.pack(f">4B{images.ndim}I", 0, 0, 8, images.ndim, *images.shape)
        path.write_bytes(header + images.tobytes())
        return
    pictures = images.reshape(-1, SIDE, SIDE) * np.uint8(PNG_SCALE if levels == 16 else 1)
    if name.endswith(".png"):
        Image.fromarray(pictures[0]).save(path, format="PNG")
        return
    path.mkdir()
    width = max(5, len(str(len(images) - 1)))
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(path / f"{number:0{width}}.png")
