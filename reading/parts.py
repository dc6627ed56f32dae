"""What names and shapes say of arrays: images or labels, for training, validation or test."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

IMAGES = {"image", "images", "img", "imgs", "x", "data", "pixels", "features"}
LABELS = {"label", "labels", "target", "targets", "y", "class", "classes"}
ROLES = dict.fromkeys(IMAGES, "images") | dict.fromkeys(LABELS, "labels")
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "t10k", "test10k", "test50k"), "test"),
}
FEWEST_PIXELS = 64  # values of an image; of fewer, an array is of something else
Arrays = dict[str, np.ndarray]


class Part(NamedTuple):
    """Images of one part of a source, with a label each where there are any."""

    images: np.ndarray
    labels: np.ndarray | None = None


class Found(NamedTuple):
    """The parts of a source by train, val and test, and what lies there and is not used.

    Images that are `formed` are pictures, uint8 [N, 28, 28] in 0..255.
    """

    parts: dict[str, Part]
    notes: list[str]
    formed: bool = False


class Named(NamedTuple):
    name: str
    part: str
    role: str
    array: np.ndarray


def words(name: str) -> set[str]:
    """The words of a name in small letters: {"train", "images", "idx3", "ubyte"}."""
    return {*re.split(r"[^a-z0-9]+", re.sub("([a-z])([A-Z])", r"\1 \2", name).lower())} - {""}


def said(name: str, meanings: dict[str, str]) -> str:
    """What the words of a name mean; "" where that is nothing, or not one thing."""
    found = {meanings[word] for word in words(name) if word in meanings}
    return found.pop() if len(found) == 1 else ""


def part_of(name: str) -> str:
    """train, val, test or ""."""
    return said(name, PARTS)


def role_of(name: str) -> str:
    """images, labels or ""."""
    return said(name, ROLES)


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
        return Found({"train": Part(np.concatenate([*classes.values()]), labels)}, [])
    arrays = []
    for file, content in files.items():
        role = role_of(Path(file).name) if len(content) == 1 else ""
        for name, array in content.items():
            part = part_of(name) or part_of(Path(file).name) or part_of(file) or "train"
            if array.ndim:
                arrays.append(Named(f"{file} {name}".strip(), part, role_of(name) or role, array))
    images = [a for a in arrays if a.role == "images" and a.array.ndim > 1]
    images = images or [a for a in arrays if not a.role and can_be_images(a.array)]
    if not images:
        found = (f"{a.name} {a.array.dtype} {[*a.array.shape]}" for a in arrays[:5])
        raise ValueError(f"there are no images: it has {', '.join(found) or 'no arrays'}")
    labels = [a for a in arrays if a.role == "labels"] or [a for a in arrays if a.array.ndim == 1]
    parts, spare = {}, [a.name for a in labels if a.role]
    for one in images:
        if one.part in parts:
            names = " and ".join(a.name for a in images if a.part == one.part)
            raise ValueError(f"two arrays of images, {names}: give one, or how its names begin")
        of_part = [a for a in labels if a.part == one.part]
        mine = [a for a in of_part if a.role or len(a.array) == len(one.array)][:1]
        for name, _, _, array in mine:
            if len(array) != len(one.array):
                found = f"labels {name} are {array.dtype} {[*array.shape]}"
                raise ValueError(f"{found}, expected one for each of {len(one.array)} images")
            spare = [other for other in spare if other != name]
        parts[one.part] = Part(one.array, *(a.array for a in mine))
    return Found(parts, [f"{name} could be labels and is not used" for name in spare])


def class_files(files: dict[str, Arrays]) -> Arrays:
    """Images by class where every file has those of one, as Quick, Draw! has them; else none."""
    arrays = [array for content in files.values() for array in content.values()]
    if len(files) < 2 or len(arrays) != len(files) or not all(map(can_be_images, arrays)):
        return {}
    if any(role_of(Path(file).name) for file in files) or all(map(part_of, files)):
        return {}
    names = [Path(file).stem.removeprefix("full_numpy_bitmap_") for file in files]
    return dict(zip(names, arrays, strict=True))
