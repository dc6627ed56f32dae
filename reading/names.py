"""What the names of files, folders and arrays say: images or labels, training or test."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

IMAGES = {"image", "images", "img", "imgs", "x", "data", "pixels", "features"}
LABELS = {"label", "labels", "target", "targets", "y", "class", "classes"}
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "t10k", "test10k", "test50k"), "test"),
}
FORMAT = {"npy", "npz", "gz", "ubyte", "idx1", "idx2", "idx3", "int", "csv", "tsv", "txt", "idx"}
# What systems put beside files, and what people write about them: no part of the data.
SYSTEM = {"Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir"}
ABOUT = {"readme", "license", "licence", "copying", "notes", "citation", "credits", "changelog"}


def words(name: str) -> set[str]:
    """The words of a name in small letters: {"train", "images", "idx3", "ubyte"}."""
    return {*re.split(r"[^a-z0-9]+", re.sub("([a-z])([A-Z])", r"\1 \2", name).lower())} - {""}


def part_of(name: str) -> str:
    """train, val or test; "" of a name that says none of them, or several."""
    found = {PARTS[word] for word in words(name) if word in PARTS}
    return found.pop() if len(found) == 1 else ""


def says_images(name: str) -> bool:
    return bool(words(name) & IMAGES)


def says_labels(name: str) -> bool:
    return bool(words(name) & LABELS) and not says_images(name)


def family(name: str) -> set[str]:
    """The words that a file of labels has in common with that of its images."""
    return words(name) - IMAGES - LABELS - FORMAT


def is_about(path: Path) -> bool:
    """Whether a file is a text about the data."""
    return bool(words(path.stem) & ABOUT)


def some(names: Sequence[object]) -> str:
    """How many there are, and the first three."""
    more = ", ..." if len(names) > 3 else ""
    return f"{len(names):,} ({', '.join(map(str, names[:3]))}{more})"


def visible(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, in the order of their names, links followed.

    Hidden ones and those of systems are left out.

    Raises:
        OSError: a subfolder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    found = []
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not is_of_system(name))
        found += [Path(place, name) for name in sorted(files) if not is_of_system(name)]
    return found


def is_of_system(name: str) -> bool:
    """Whether a file or folder is hidden, or one of those that systems leave behind."""
    return name.startswith(".") or name in SYSTEM or name.endswith(":Zone.Identifier")
