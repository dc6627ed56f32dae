"""Tables: a row for each image, with its grey levels or with the name of its file."""

import csv
import math
from collections.abc import Sequence
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from reading.arrays import Arrays, needed, upright
from reading.names import LABELS, words
from reading.parts import FEWEST_PIXELS

COUNTERS = {"", "id", "index", "imageid", "image_id", "unnamed: 0"}  # columns that number the rows
OPENED = ("PNG", "JPEG")  # pictures in a table


def separator(path: Path) -> str | None:
    """What stands between the cells of a table; None for spaces."""
    with open(path, encoding="utf-8-sig") as file:
        line = file.readline()
    sign = max(",;\t", key=line.count)
    return sign if sign in line else None


def first_rows(path: Path, most: int | None = None) -> list[list[str]]:
    sign = separator(path)
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, delimiter=sign or " ", skipinitialspace=True)
        return [row for row in islice(rows, most) if row]


def is_square(number: int) -> bool:
    return number >= FEWEST_PIXELS and math.isqrt(number) ** 2 == number


def read_csv(path: Path) -> Arrays:
    """Grey levels and labels, with or without a header; nothing where there are no grey levels.

    The labels are in the column that is called so or else in the first one, or in the last where
    the first is always the same, as the corner of an image is.
    """
    rows = first_rows(path, 2)
    if not rows or len(rows[0]) < FEWEST_PIXELS:
        return {}
    first, middle = rows[0], len(rows[0]) // 2
    header = not first[middle].isdigit() and rows[-1][middle].isdigit()  # also 0.1, 0.2, ...
    header |= as_numbers(np.array(first[middle])).dtype.kind != "f"
    names = first if header else [f"pixel{n}" for n in range(len(first))]
    columns = [n for n, name in enumerate(names) if name.strip().lower() not in COUNTERS]
    labels = [n for n in columns if words(names[n]) & LABELS]
    how = {"delimiter": separator(path), "skiprows": int(header), "ndmin": 2}
    how |= {"comments": None, "encoding": "utf-8-sig", "quotechar": '"'}
    if not labels and is_square(len(columns) - 1):
        ends = np.loadtxt(path, str, usecols=[columns[0], columns[-1]], **how)
        labels = [columns[-1 if (ends[:, 0] == ends[0, 0]).all() else 0]]
    pixels = [n for n in columns if n not in labels]
    if not is_square(len(pixels)) or len(labels) > 1:
        found = f"{len(pixels)} columns of grey levels and {len(labels)} of labels"
        raise ValueError(f"it has {found}, expected a square's number, such as 784, and one")
    images = upright(path, np.loadtxt(path, np.float32, usecols=pixels, **how))
    if not labels:
        return {"images": images}
    return {"images": images, "labels": as_numbers(np.loadtxt(path, str, usecols=labels, **how))}


def as_numbers(cells: np.ndarray) -> np.ndarray:
    """Cells of a table, as numbers where all are some."""
    try:
        return cells.ravel().astype(float)
    except ValueError:
        return cells.ravel()


def read_parquet(path: Path) -> Arrays:
    """Columns of arrays, of pictures' files as the datasets library has them, or of grey levels."""
    table = needed("pyarrow.parquet", "pyarrow", ".parquet files").read_table(path)
    columns = {name: table[name].to_pylist() for name in table.column_names}
    for name, values in columns.items():
        if values and isinstance(values[0], dict) and "bytes" in values[0]:
            columns[name] = [decoded(value["bytes"]) for value in values]
    arrays = {name: np.array(values) for name, values in columns.items()}
    pixels = [
        name for name, values in arrays.items() if values.ndim == 1 and values.dtype.kind in "biuf"
    ]
    pixels = [n for n in pixels if n.lower() not in COUNTERS and not words(n) & LABELS]
    if is_square(len(pixels)):
        arrays["images"] = np.stack([arrays.pop(name) for name in pixels], axis=1)
    return arrays


def decoded(picture: bytes) -> np.ndarray:
    """Grey levels uint8 [H, W] of a picture's file."""
    with Image.open(BytesIO(picture), formats=OPENED) as file:
        return np.asarray(file.convert("L"))


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
    rows = [[cell.strip() for cell in row] for row in first_rows(path)]
    width = min(map(len, rows), default=0)
    named = [
        [row[n] if row[n] in known else Path(row[n]).name for row in rows] for n in range(width)
    ]
    hits = [len({*cells} & known.keys()) for cells in named]  # a few labels may be names, too
    if max(hits, default=0) == 0:
        return {}
    column = hits.index(max(hits))
    others = [n for n in range(width) if n != column]
    chosen = [n for n in others if words(rows[0][n]) & LABELS] or others
    if len(chosen) != 1:
        return {}
    found = (
        (known.get(name), row[chosen[0]]) for name, row in zip(named[column], rows, strict=True)
    )
    return {file: label for file, label in found if file is not None}
