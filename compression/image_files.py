"""Files of images: .npy, IDX, and PNG pictures or folders of them."""

import io
import os
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from compression.archive import checked_images
from fmnist import SIDE, four_bit
from inputs.command_line import InputError, check_output, one_line
from inputs.files import read_idx, write_whole
from reading.pictures import visible


def read_images(
    path: Path, levels: int | None, discretize: bool, usual: int = 16
) -> tuple[np.ndarray, int, list[str]]:
    """Images from a .npy or IDX file, a PNG file or a folder of PNG files.

    Args:
        levels: 2, 16 or 256, how many grey levels the file has; in PNG files they are spread over
            0..255. None: `usual` in a .npy file, 256 in others.
        discretize: bring 256 levels down to 16.
    Returns:
        uint8 [N, 28, 28] or [N, 1, 28, 28]; how many levels they have now; and the names of a
        folder's pictures, unless they are those that `numbers` gives.
    Raises:
        InputError: the file cannot be read or contains something else.
    """
    try:
        images, is_array, is_picture, names = read_file(path)
        levels = levels or (usual if is_array else 256)
        if discretize and levels < 256:
            already = f"it has {levels} levels already"
            raise ValueError(f"{already}; if not, say --levels 256 --discretize")
        if is_picture:
            step = spread(levels)
            if (images % step).any():
                raise ValueError(f"it has other grey values than {step} times a level of {levels}")
            images = images // step
        images = checked_images(images, levels)
        return (four_bit(images), 16, names) if discretize else (images, levels, names)
    except Exception as error:  # there is no end to what a damaged file can raise
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path} cannot be used: {one_line(why)}") from error


def spread(levels: int) -> np.uint8:
    """The factor from levels to the pixels of a PNG file, where the highest is 255."""
    return np.uint8(255 // (levels - 1))


def read_file(path: Path) -> tuple[np.ndarray, bool, bool, list[str]]:
    """The values in a file or folder, whether it is .npy, whether it is PNG, the names in it."""
    if path.is_dir():
        images, names = read_pngs(path)
        return images, False, True, names
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(b"\x93NUMPY"):
        return np.load(path, allow_pickle=False), True, False, []
    if start == b"\x89PNG\r\n\x1a\n":
        return read_png(path)[np.newaxis], False, True, []
    return read_idx(path), False, False, []


def numbers(count: int) -> list[str]:
    """Names for pictures without names: numbers, which sort as text too."""
    digits = max(5, len(str(count - 1)))
    return [f"{number:0{digits}}.png" for number in range(count)]


def read_pngs(folder: Path) -> tuple[np.ndarray, list[str]]:
    """The `visible` PNG files in a folder, uint8 [N, 28, 28], and their names: see `read_images`.

    Raises:
        ValueError: there is another file, which an archive would not give back, or none.
    """
    images, names = [], []
    for file in sorted(visible(folder)):
        names.append(file.relative_to(folder).as_posix())
        try:
            images.append(read_png(file))
        except Exception as error:
            raise ValueError(f"{names[-1]}: {error}") from error
    if not images:
        raise ValueError("the folder is empty, it should have PNG files of 28x28 pixels")
    return np.stack(images), [] if names == numbers(len(names)) else names


def hidden_files(path: Path) -> int:
    """How many files of a folder are not `visible`, and so not in its archive."""
    files = sum(len(names) for _, _, names in os.walk(path, followlinks=True))
    return files - len(visible(path))


def read_png(path: Path) -> np.ndarray:
    """A grey picture, uint8 [28, 28], 0 black and 255 white; others are refused unread."""
    with Image.open(path, formats=["PNG"]) as picture:
        if picture.size != (SIDE, SIDE):
            raise ValueError(f"the picture is {picture.width}x{picture.height}, expected 28x28")
        if path.read_bytes()[24] > 8:  # the depth; Pillow would cut colours of 16 bits to 8
            raise ValueError("the picture has 16 bits, expected 8-bit grey")
        if picture.is_animated:
            raise ValueError(f"the picture has {picture.n_frames} frames, expected one")
        red, green, blue, alpha = np.moveaxis(np.array(picture.convert("RGBA")), 2, 0)
    if (red != green).any() or (red != blue).any() or (alpha != 255).any():
        raise ValueError("the picture has colours or transparency, expected 8-bit grey")
    return red


def check_target(argument: str, path: Path, force: bool, count: int | None = None) -> None:
    """Raises InputError if an archive, or so many images, cannot be written at this path."""
    check_output(argument, path)
    if os.path.lexists(path) and not force:
        raise InputError(f"{path} exists: pass --force to replace it, or choose another name")
    if count not in (None, 1) and path.suffix == ".png":
        raise InputError(
            f"{path} would be one picture and the archive has {count:,}: give a folder's name"
        )
    if count is not None and path.suffix == ".gz":
        raise InputError(f"{path} would not be compressed: give a name without .gz")


def write_images(path: Path, images: np.ndarray, levels: int, names: Sequence[str] = ()) -> None:
    """Writes a .npy or IDX file, a PNG file, or a new folder of them, as the path's name says.

    IDX files end with `ubyte`, as MNIST's do, or `.idx`; any other name is a folder's. In PNG files
    levels are spread over 0..255. Pictures without names are numbered.

    Raises:
        OSError: it cannot be written, or the folder is there already and has something in it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = images.reshape(-1, SIDE, SIDE) * spread(levels)
    file = io.BytesIO()
    if path.suffix == ".npy":
        np.save(file, images)
    elif path.name.endswith(("ubyte", ".idx")):
        file.write(struct.pack(f">4B{images.ndim}I", 0, 0, 8, images.ndim, *images.shape))
        file.write(images.tobytes())
    elif path.suffix == ".png":
        Image.fromarray(pictures[0]).save(file, format="PNG")
    else:
        return write_folder(path, pictures, names or numbers(len(images)))
    write_whole(path, file.getvalue())


def write_folder(path: Path, pictures: np.ndarray, names: Sequence[str]) -> None:
    """A new folder of PNG files, which is there only when it is complete."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as fresh:
        folder = Path(fresh, path.name)
        folder.mkdir()
        for name, picture in zip(names, pictures, strict=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / name, format="PNG")
        os.rename(folder, path)
