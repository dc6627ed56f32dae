"""Pictures: files of any colours and sizes, in folders that are classes, parts or both."""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from inputs.command_line import one_line
from reading.arrays import needed
from reading.names import PARTS, part_of, some, words
from reading.parts import Found, Part
from reading.photo import LIGHT, fitted, light_on_dark, photographed
from reading.tables import labels_of

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # some others run code
HEIF = (".heic", ".heif")
PICTURES = {end for end, name in Image.registered_extensions().items() if name in FORMATS} | {*HEIF}
ONE_LEFT_OUT = 100  # of so many files one may be no picture
# What Pillow raises of a damaged file; anything else is a mistake of ours.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
DAMAGED += (Image.DecompressionBombError,)


def read_pictures(
    folder: Path, files: Sequence[Path], tables: Sequence[Path], like_mnist: bool
) -> tuple[Found, list[Path]]:
    """The pictures in a folder. Classes are its subfolders, or what a table says of each.

    Args:
        tables: files that may have the labels.
    Returns:
        Images uint8 [N, 28, 28] of each part, and the tables that have no labels of them.
    Raises:
        ValueError: more than one file in a hundred is no picture that can be used, or it is not
            clear which folders are parts and which classes.
    """
    places = {file: file.relative_to(folder).parts for file in files}
    while len({place[0] for place in places.values()}) == 1 and min(map(len, places.values())) > 2:
        places = {file: place[1:] for file, place in places.items()}  # a folder around all
    part = dict.fromkeys(files, "")
    tops = {place[0] for place in places.values() if len(place) > 1}
    of_parts = {top for top in tops if words(top) <= {*PARTS}}
    if len(of_parts) > 1 and "train" in map(part_of, of_parts):
        if of_parts != tops:
            both = f"{some(sorted(of_parts))} and beside them {some(sorted(tops - of_parts))}"
            raise ValueError(f"it is not clear which folders are classes: there are {both}")
        part = {file: part_of(place[0]) for file, place in places.items()}
        places = {file: place[1:] for file, place in places.items()}
    found = {}
    for table in tables:
        of = part_of(table.name)
        found[table] = labels_of(table, [file for file in files if of in ("", part[file])])
    labels = {file: label for each in found.values() for file, label in each.items()}
    labels = labels or {file: place[0] for file, place in places.items() if len(place) > 1}
    labelled = {part[file] for file in labels if file in part}
    images, left_out, why = {}, [], ""
    for file in files:
        try:
            if part[file] in labelled and file not in labels:
                raise ValueError("it has no label")
            images[file] = read_picture(file, like_mnist)
        except ValueError as error:
            left_out.append("/".join(file.relative_to(folder).parts))
            why = why or str(error)
    notes = []
    if left_out:
        what = f"no picture that can be used, of {len(files):,} files: {some(left_out)}"
        if len(left_out) * ONE_LEFT_OUT > len(files):
            raise ValueError(f"{what}; the first: {why}")
        notes.append(f"left out as {what}")
    parts = {}
    for name in dict.fromkeys(part.values()):
        kept = [file for file in images if part[file] == name]
        known = np.array([labels[file] for file in kept]) if name in labelled else None
        if kept:
            parts[name] = Part(np.stack([images[file] for file in kept]), known)
    if not parts:
        raise ValueError("there are no images in it")
    return Found(parts, notes, formed=True), [table for table in tables if not found[table]]


def read_picture(path: Path, like_mnist: bool) -> np.ndarray:
    """A picture in any colours and of any size, as uint8 [28, 28] in 0..255, light on dark.

    Args:
        like_mnist: bring it to MNIST's form; else it only becomes as large as it can be.
    Raises:
        ValueError: it is none, or nothing is on it; the message is one line.
        ImportError: a package is needed for it.
    """
    grey = read_grey(path)
    if not like_mnist:
        return fitted(light_on_dark(grey))
    if found := photographed(grey):
        return found[0]
    raise ValueError("no strokes stand out on it")


def read_grey(path: Path) -> np.ndarray:
    """A picture in any colours, as uint8 [H, W] in 0..255; see `read_picture`.

    What is transparent is background: light, if the rest is dark, and the other way round.
    """
    formats = FORMATS
    if path.suffix.lower() in HEIF:
        needed("pillow_heif", "pillow-heif", f"{path.suffix} pictures").register_heif_opener()
        formats = ("HEIF",)
    try:
        with Image.open(path, formats=formats) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith(("I", "F")):
                raise ValueError("it has more than 8 bits for a colour: save it with 8")
            if not picture.has_transparency_data:
                return np.asarray(picture.convert("L"))
            grey, opaque = np.moveaxis(
                np.asarray(picture.convert("RGBA").convert("LA"), float), 2, 0
            )
    except Image.UnidentifiedImageError as error:
        raise ValueError("it is of none of the kinds that are read") from error
    except DAMAGED as error:
        raise ValueError(one_line(getattr(error, "strerror", None) or error)) from error
    opaque /= 255
    dark = (grey * opaque).sum() <= LIGHT * opaque.sum()
    grey = grey * opaque + (255 if dark else 0) * (1 - opaque)
    return grey.round().astype(np.uint8)
