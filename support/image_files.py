"""Files of images and archives: read though not trusted, and replaced only by whole new ones."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from fmnist import four_bit, read_idx
from support.bits_back import SIDE, four_bit_images
from support.command_line import InputError, one_line

PNG_NAME = r"\d{5,}\.png"  # what `write_images` calls its files


def check_regular(path: Path) -> None:
    """Raises OSError or ValueError unless it is a file of its own: a device may have no end."""
    if path.stat() and not path.is_file():
        raise ValueError("it is no regular file")


def read_images(path: Path, discretize: bool) -> np.ndarray:
    """Images from a .npy file or, with `discretize`, from an IDX file of 256 grey levels.

    Returns:
        uint8 [N, 28, 28] or [N, 1, 28, 28], values 0..15; those of a .npy file stay on disk.
    Raises:
        InputError: the file cannot be read or contains something else.
    """
    try:
        check_regular(path)
        with open(path, "rb") as file:
            is_npy = file.read(6) == b"\x93NUMPY"
        if is_npy and discretize:
            raise ValueError("--discretize is for IDX files, a .npy file has 16 levels already")
        if is_npy:
            return four_bit_images(np.load(path, mmap_mode="r", allow_pickle=False))
        images = read_idx(path)
        if not discretize:
            raise ValueError("it has 256 grey levels; with --discretize, 16 of them are kept")
        return four_bit_images(four_bit(images))
    except Exception as error:  # there is no end to what a damaged file can raise
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path} cannot be used: {one_line(why)}") from error


def read_bytes(path: Path) -> bytes:
    """Raises InputError where it is no regular file or cannot be read."""
    try:
        check_regular(path)
        return path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read: {why}") from error


def check_replaceable(target: Path, force: bool) -> None:
    """Raises InputError unless a new file or folder may take the target's place.

    It may where there is nothing, and with `force` where there is a regular file or a folder of
    nothing but PNG files with the names that `write_images` gives: no device, no link, nothing that
    somebody else has put there.
    """
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not (target.is_file() or target.is_dir()):
        raise InputError(f"{target} is a link or a device: choose another name")
    if not force:
        raise InputError(f"{target} exists: pass --force to replace it, or choose another name")
    if target.is_dir():
        for entry in target.iterdir():
            own = re.fullmatch(PNG_NAME, entry.name) and entry.is_file()
            if not own or entry.is_symlink():
                raise InputError(
                    f"{target} is a folder with other files than decoded PNGs, such as "
                    f"{entry.name}: choose another name"
                )


@contextmanager
def replacing(target: Path, force: bool) -> Iterator[Path]:
    """A path for a new file or folder, which takes the target's place once it is whole.

    Raises:
        InputError: see `check_replaceable`; or the target cannot be written.
    """
    target = target.absolute()
    try:
        check_replaceable(target, force)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".compress-") as staging:
            new, old = Path(staging, "new"), Path(staging, "old")
            yield new
            check_replaceable(target, force)  # again, as the work takes a while
            if target.is_dir() and new.is_dir():
                os.replace(target, old)
            os.replace(new, target)
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror}): choose another"
        ) from error


def write_images(path: Path, images: np.ndarray, as_npy: bool) -> None:
    """A .npy file of the levels 0..15, or a folder of PNG files with 17 times the level."""
    if as_npy:
        with open(path, "xb") as file:
            np.save(file, images)
        return
    path.mkdir()
    width = max(5, len(str(len(images) - 1)))
    for number, image in enumerate(images.reshape(-1, SIDE, SIDE)):
        Image.fromarray(image * np.uint8(17)).save(path / f"{number:0{width}}.png")
