"""Folders of pictures of any colours and sizes: subfolders are classes, parts or both."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from reading.arrays import table_rows
from reading.parts import LABELS, PARTS, Found, Part, part_of, words
from reading.photo import FORMATS, HEIF, things_in

PICTURES = {end for end, name in Image.registered_extensions().items() if name in FORMATS} | {*HEIF}
ONE_LEFT_OUT = 100  # of so many files one may be no picture
SYSTEM = {"Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir"}  # what systems put beside files


def some(names: Sequence[object]) -> str:
    """How many there are, and the first three."""
    more = ", ..." if len(names) > 3 else ""
    return f"{len(names):,} ({', '.join(map(str, names[:3]))}{more})"


def visible(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, in the order of their names, links followed.

    Hidden ones and those that systems leave behind are left out.

    Raises:
        OSError: a subfolder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    def is_data(name: str) -> bool:
        return not (name.startswith(".") or name in SYSTEM or name.endswith(":Zone.Identifier"))

    found = []
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(filter(is_data, folders))
        found += [Path(place, name) for name in sorted(filter(is_data, files))]
    return found


def read_pictures(
    folder: Path, files: Sequence[Path], tables: Sequence[Path], like_mnist: bool
) -> tuple[Found, set[Path]]:
    """The pictures in a folder. Classes are its subfolders, or what a table says of each.

    Args:
        tables: files that may have the labels.
    Returns:
        Images uint8 [N, 28, 28] of each part, and the tables that have labels of them.
    Raises:
        ValueError: more than one file in a hundred is no picture that can be used, or it is not
            clear which folders are parts and which classes.
    """
    part, labels = folders_of(folder, files)
    told = {}
    for table in tables:
        of = part_of(table.name)
        told[table] = labels_of(table, [file for file in files if of in ("", part[file])])
    if any(told.values()):
        labels = {file: label for each in told.values() for file, label in each.items()}
    labelled = {part[file] for file in labels}
    images, left_out, notes = {name: {} for name in part.values()}, {}, []
    for file in files:
        try:
            if part[file] in labelled and file not in labels:
                raise ValueError("it has no label")
            images[part[file]][file] = things_in(file, like_mnist)[0]
        except ValueError as error:
            left_out[file.relative_to(folder).as_posix()] = error
    if left_out:
        what = f"no picture that can be used, of {len(files):,} files: {some([*left_out])}"
        if len(left_out) * ONE_LEFT_OUT > len(files):
            raise ValueError(f"{what}; the first: {next(iter(left_out.values()))}")
        notes.append(f"left out as {what}")
    parts = {}
    for name, kept in images.items():
        if kept:
            known = np.array([labels[file] for file in kept]) if name in labelled else None
            parts[name] = Part(np.stack([*kept.values()]), known)
    if not parts:
        raise ValueError("there are no images in it")
    return Found(parts, notes, formed=True), {table for table in tables if told[table]}


def folders_of(folder: Path, files: Sequence[Path]) -> tuple[dict[Path, str], dict[Path, str]]:
    """What the folders of files say: the part of each, and the class of each that is in one."""
    places = {file: file.relative_to(folder).parts for file in files}
    while len({place[0] for place in places.values()}) == 1 and min(map(len, places.values())) > 1:
        places = {file: place[1:] for file, place in places.items()}  # a folder around all
    part = dict.fromkeys(files, "train")
    tops = {place[0] for place in places.values() if len(place) > 1}
    of_parts = {top for top in tops if words(top) <= {*PARTS}}
    if len(of_parts) > 1 and "train" in map(part_of, of_parts):
        if of_parts != tops:
            both = f"{some(sorted(of_parts))} and beside them {some(sorted(tops - of_parts))}"
            raise ValueError(f"it is not clear which folders are classes: there are {both}")
        part = {file: part_of(place[0]) for file, place in places.items()}
        places = {file: place[1:] for file, place in places.items()}
    return part, {file: place[0] for file, place in places.items() if len(place) > 1}


def labels_of(path: Path, files: Sequence[Path]) -> dict[Path, str]:
    """The labels that a table gives to files; to none where it is no table of these.

    A file is told by its folder's name and its own, or its own with or without what follows the
    dot, if no other file is called so. The labels are in the column that is called so, or in the
    only other one.
    """
    known = {}
    for file in files:
        for name in {file.stem, file.name, f"{file.parent.name}/{file.name}"}:
            known[name] = None if name in known else file
    rows = [[cell.strip() for cell in row] for row in table_rows(path)]
    columns = [*zip(*rows, strict=False)]  # up to the end of the shortest row
    named = [[c if c in known else Path(c).name for c in column] for column in columns]
    hits = [len({*names} & known.keys()) for names in named]  # a few labels may be names, too
    if not any(hits):
        return {}
    files_column = hits.index(max(hits))
    others = [column for n, column in enumerate(columns) if n != files_column]
    chosen = [column for column in others if words(column[0]) & LABELS] or others
    if len(chosen) != 1:
        return {}
    found = zip(map(known.get, named[files_column]), chosen[0], strict=True)
    return {file: label for file, label in found if file is not None}
