"""Folders of pictures."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fmnist import SIDE
from inputs.command_line import one_line
from reading.photo import LIGHT, light_on_dark, mnist_form

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # of pictures; some others run code
NO_PICTURES = ("Thumbs.db", "desktop.ini")  # what systems leave in folders, as hidden files are


def read_folder(folder: Path, like_mnist: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """The pictures in a folder, uint8 [N, 28, 28], or those in its subfolders and their names."""
    entries = visible(folder)
    subfolders = [entry for entry in entries if entry.is_dir()]
    others = [entry for entry in entries if not entry.is_dir()]
    if subfolders and others:
        raise ValueError(
            f"{others[0].name} lies beside folders: put every picture into one of them"
        )
    images, labels = [], []
    for place in subfolders or [folder]:
        files = visible(place)
        if not files:
            raise ValueError(f"there are no images in {place.name}")
        images += [read_picture(file, like_mnist) for file in files]
        labels += [place.name] * len(files)
    return np.stack(images), np.array(labels) if subfolders else None


def visible(folder: Path) -> list[Path]:
    """What somebody has put into a folder, in the order of the names."""
    entries = sorted(folder.iterdir())
    return [e for e in entries if not e.name.startswith(".") and e.name not in NO_PICTURES]


def read_picture(path: Path, like_mnist: bool) -> np.ndarray:
    """A picture in any colours and of any size, as uint8 [28, 28] in 0..255, light on dark.

    Args:
        like_mnist: bring it to MNIST's form; else it only becomes as large as it can be.
    Raises:
        ValueError: it is none, or nothing is on it; the message is one line.
    """
    try:
        grey = read_grey(path)
        if like_mnist:
            return mnist_form(grey)
        size, smooth = (SIDE, SIDE), Image.Resampling.BILINEAR
        return np.asarray(ImageOps.pad(Image.fromarray(grey), size, smooth, color=0))
    except Exception as error:  # there is no end to what a damaged file can raise
        name = Path(path.parent.name, path.name)
        raise ValueError(f"{name} is no picture that can be used ({one_line(error)})") from error


def read_grey(path: Path) -> np.ndarray:
    """A picture in any colours, as uint8 [H, W] in 0..255, light on dark.

    What is transparent is background. Where three quarters of the edge are light, it is dark ink on
    light paper, and is turned around.
    """
    with Image.open(path, formats=FORMATS) as file:
        picture = ImageOps.exif_transpose(file)
        if picture.mode.startswith(("I", "F")):
            raise ValueError("it has more than 8 bits for a colour: save it with 8")
        if not picture.has_transparency_data:
            return light_on_dark(np.asarray(picture.convert("L")))
        grey, opaque = np.moveaxis(np.asarray(picture.convert("RGBA").convert("LA"), float), 2, 0)
    opaque /= 255
    dark = (grey * opaque).sum() <= LIGHT * opaque.sum()
    grey = grey * opaque + (255 if dark else 0) * (1 - opaque)
    return light_on_dark(grey.round().astype(np.uint8))
