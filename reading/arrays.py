"""Files of arrays: one function per kind, which gives all arrays of a file by their names."""

import csv
import math
import re
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from inputs.files import read_idx
from reading.parts import FEWEST_PIXELS, LABELS, Arrays, words
from reading.photo import fitted, light_on_dark, needed, read_grey


def read_npz(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as arrays:
        return {**arrays}


def read_npy(path: Path) -> Arrays:
    return {"": np.load(path, allow_pickle=False)}


def read_idx_file(path: Path) -> Arrays:
    """Images or labels; QMNIST's labels, eight numbers each, have the class first."""
    values = read_idx(path)
    return {"": values[:, 0] if values.ndim == 2 else values}


def read_pt(path: Path) -> Arrays:
    """What torch.save wrote: torchvision's pair of images and labels, a tensor, or a dictionary."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(content, torch.Tensor):
        content = {"": content}
    elif not isinstance(content, dict):
        content = dict(zip(("images", "labels"), content, strict=False))
    return {k: v.numpy() for k, v in content.items() if isinstance(v, torch.Tensor)}


def read_mat(path: Path) -> Arrays:
    """MATLAB's arrays, also those in structures; images may stand last: [H, W, N]."""
    io = needed("scipy.io", "scipy", ".mat files")
    content, arrays = [("", io.loadmat(path, simplify_cells=True))], {}
    for name, value in content:  # which grows while it is gone through
        if isinstance(value, dict):
            content += [(f"{name} {key}", part) for key, part in value.items()]
        elif isinstance(value, np.ndarray) and value.dtype.kind != "O":
            last = value.ndim > 2 and value.shape[0] == value.shape[1]
            arrays[name] = np.moveaxis(value, -1, 0) if last else value
    return arrays


def read_csv(path: Path) -> Arrays:
    """Grey levels and labels, with or without a header; nothing where there are no grey levels."""
    names = next(table_rows(path), [])
    if len(names) < FEWEST_PIXELS:
        return {}
    header = as_numbers(np.array(names[-1])).dtype.kind != "f"
    pixels, labels = columns(names if header else [""] * len(names))
    how = {"delimiter": separator(path), "skiprows": int(header), "ndmin": 2}
    how |= {"encoding": "utf-8-sig", "quotechar": '"'}
    arrays = {"images": np.loadtxt(path, np.float32, usecols=pixels, **how)}
    if labels:
        arrays["labels"] = as_numbers(np.loadtxt(path, str, usecols=labels, **how))
    return arrays


def read_parquet(path: Path) -> Arrays:
    """Columns of arrays, of pictures' files as the datasets library has them, or of grey levels."""
    table = needed("pyarrow.parquet", "pyarrow", ".parquet files").read_table(path)
    arrays = {}
    for name in table.column_names:
        values = table[name].to_pylist()
        if values and isinstance(values[0], dict):
            values = [light_on_dark(read_grey(BytesIO(value["bytes"]))) for value in values]
            if len({picture.shape for picture in values}) > 1:
                values = [*map(fitted, values)]
        arrays[name] = np.array(values)
    if len(arrays) < FEWEST_PIXELS:
        return arrays
    (pixels, labels), cells = columns([*arrays]), [*arrays.values()]
    found = {"images": np.stack([cells[n] for n in pixels], axis=1)}
    return found | ({"labels": cells[labels[0]]} if labels else {})


def columns(names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Which columns of a table are grey levels, and which are labels: the first if none says so."""
    labels = [n for n, name in enumerate(names) if words(name) & LABELS]
    if not labels and math.isqrt(len(names) - 1) ** 2 == len(names) - 1:
        labels = [0]
    pixels = [n for n in range(len(names)) if n not in labels]
    if math.isqrt(len(pixels)) ** 2 != len(pixels) or len(labels) > 1:
        found = f"{len(pixels)} columns of grey levels and {len(labels)} of labels"
        raise ValueError(f"it has {found}, expected a square's number, such as 784, and one")
    return pixels, labels


def separator(path: Path) -> str:
    """What stands between the cells of a table."""
    with open(path, encoding="utf-8-sig") as file:
        line = file.readline()
    return next((sign for sign in ",;\t" if sign in line), " ")


def table_rows(path: Path) -> Iterator[list[str]]:
    """The rows of a table that have any cells, one after the other."""
    sign = separator(path)
    with open(path, newline="", encoding="utf-8-sig") as file:
        yield from filter(None, csv.reader(file, delimiter=sign, skipinitialspace=True))


def as_numbers(cells: np.ndarray) -> np.ndarray:
    """Cells of a table, as numbers where all are some."""
    try:
        return cells.astype(float)
    except ValueError:
        return cells


# A kind of file is a function here and a row in docs/own_data.md.
READERS = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".pt": read_pt,
    ".mat": read_mat,
    ".csv": read_csv,
    ".parquet": read_parquet,
}
IDX = re.compile(r"(idx\d?(-\w+)?|ubyte)(\.gz)?$")  # train-images-idx3-ubyte, train-images.idx


def reader_of(path: Path) -> Callable[[Path], Arrays] | None:
    """What reads the arrays of such a file, by its name; None of what has none."""
    return read_idx_file if IDX.search(path.name) else READERS.get(path.suffix.lower())


def read_arrays(path: Path) -> Arrays:
    """All arrays of a file. EMNIST's images, with rows and columns exchanged, are put right.

    Raises:
        OSError, ValueError: it cannot be read.
        ImportError: a package is needed for it.
    """
    try:
        arrays = reader_of(path)(path)
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # libraries raise all kinds of them where a file is damaged
        raise ValueError(error) from error
    if path.name.startswith("emnist"):
        for name, images in arrays.items():
            if images[:1].size == 784:
                arrays[name] = images.reshape(-1, 28, 28).transpose(0, 2, 1)
    return arrays
