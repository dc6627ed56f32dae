"""Which arrays are images and labels, and of which part: training, validation or test."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from reading.arrays import Arrays
from reading.names import part_of, says_images, says_labels

ROLES = {"images": says_images, "labels": says_labels}
FEWEST_PIXELS = 64  # values of an image; of fewer, an array is of something else


class Part(NamedTuple):
    """Images of one part of a source, with a label each where there are any."""

    images: np.ndarray
    labels: np.ndarray | None = None


class Found(NamedTuple):
    """The parts of a source, by train, val and test; "" is one that no name calls so.

    `notes` say what lies there and is not used. Images that are `formed` are pictures, uint8
    [N, 28, 28] in 0..255.
    """

    parts: dict[str, Part]
    notes: list[str]
    formed: bool = False


class Named(NamedTuple):
    name: str
    part: str
    role: str
    array: np.ndarray


def named(files: dict[str, Arrays]) -> list[Named]:
    """All arrays of some files with what their names say of them."""
    found = []
    for file, arrays in files.items():
        for name, array in arrays.items():
            role = next((r for r, says in ROLES.items() if says(name)), "")
            if not role and len(arrays) == 1:
                role = next((r for r, says in ROLES.items() if says(Path(file).name)), "")
            part = part_of(name) or part_of(Path(file).name) or part_of(file)
            if array.ndim:
                found.append(Named(f"{file} {name}".strip(), part, role, array))
    return found


def can_be_images(array: np.ndarray) -> bool:
    return array.ndim > 1 and array[:1].size >= FEWEST_PIXELS and array.dtype.kind in "buif"


def sort_arrays(files: dict[str, Arrays]) -> Found:
    """The parts that the arrays of one or several files make up.

    Names decide, and shapes where they say nothing.

    Args:
        files: by name, the arrays in each.
    Raises:
        ValueError: there are no images, or two arrays of them for one part.
    """
    if classes := class_files(files):
        labels = np.repeat([*classes], [len(array) for array in classes.values()])
        return Found({"": Part(np.concatenate([*classes.values()]), labels)}, [])
    arrays = named(files)
    images = [a for a in arrays if a.role == "images" and a.array.ndim > 1]
    images = images or [a for a in arrays if not a.role and can_be_images(a.array)]
    if not images:
        found = (f"{a.name} {a.array.dtype} {[*a.array.shape]}" for a in arrays[:5])
        raise ValueError(f"there are no images: it has {', '.join(found) or 'no arrays'}")
    rest = [a for a in arrays if all(a is not one for one in images)]
    labels = [a for a in rest if a.role == "labels"] or [a for a in rest if a.array.ndim == 1]
    parts, used = {}, []
    for one in images:
        if one.part in parts:
            names = " and ".join(a.name for a in images if a.part == one.part)
            raise ValueError(f"two arrays of images, {names}: give one, or how its names begin")
        mine = [a for a in labels if a.part == one.part]
        mine = [a for a in mine if len(a.array) == len(one.array)] or [a for a in mine if a.role]
        parts[one.part] = Part(one.array, mine[0].array if mine else None)
        used += mine[:1]
    spare = [a.name for a in labels if a.role and all(a is not one for one in used)]
    return Found(parts, [f"{name} could be labels and is not used" for name in spare])


def class_files(files: dict[str, Arrays]) -> dict[str, np.ndarray]:
    """Images by class where every file has those of one, as Quick, Draw! has them; else none."""
    if len(files) < 2 or any(len(arrays) != 1 for arrays in files.values()):
        return {}
    arrays = {file: array for file, each in files.items() for array in each.values()}
    if any(says(Path(file).name) for file in files for says in ROLES.values()):
        return {}
    if all(map(part_of, files)) or not all(map(can_be_images, arrays.values())):
        return {}
    names = [Path(file).stem.removeprefix("full_numpy_bitmap_") for file in files]
    return dict(zip(names, arrays.values(), strict=True))
