"""What a path is: a file of arrays, a folder of them or of pictures, or an archive of these."""

import pickle
import re
import struct
import tarfile
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from reading.arrays import Arrays, read_idx_file, read_mat, read_npy, read_npz, read_pt
from reading.names import family, is_about, is_of_system, part_of, says_labels, some, visible
from reading.parts import Found, sort_arrays
from reading.pictures import PICTURES, read_pictures
from reading.tables import read_csv, read_parquet

# A kind of file is a function here and a row in docs/own_data.md.
READERS = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".pt": read_pt,
    ".mat": read_mat,
    ".csv": read_csv,
    ".parquet": read_parquet,
}
IDX = re.compile(r"idx\d?(-|$)|ubyte")  # in names: train-images-idx3-ubyte, train-images.idx
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TABLES = (".csv", ".tsv", ".txt")  # with names of pictures and their labels
# What files that are damaged or of another kind raise; anything else is a mistake of ours.
DAMAGED = (OSError, ValueError, EOFError, SyntaxError, NotImplementedError, struct.error)
DAMAGED += (zlib.error, zipfile.BadZipFile, tarfile.TarError, pickle.UnpicklingError)
DAMAGED += (tokenize.TokenError,)  # NumPy's, of a header


def read_source(path: Path, like_mnist: bool) -> Found:
    """The parts of a file, a folder, an archive, or of the files whose names begin like the path.

    Raises:
        one of `DAMAGED`: it cannot be read, or it is not clear what it has; the message says what
            was found.
        ImportError: a package is needed for it.
    """
    if path.is_dir():
        return read_folder(path, visible(path), like_mnist)
    if path.name.lower().endswith(ARCHIVES):
        return read_archive(path, like_mnist)
    beside = [f for f in sorted(path.parent.iterdir()) if f.is_file() and f != path]
    begun = [file for file in beside if file.name.startswith(path.name)]
    if begun and not path.exists():
        return read_folder(path.parent, begun, like_mnist)
    return read_file(path, beside)


def reader_of(path: Path) -> Callable[[Path], Arrays] | None:
    """What reads the arrays of such a file, by its name; None of what has none."""
    end = path.suffix.lower()
    is_idx = IDX.search(path.name) and end not in PICTURES
    return read_idx_file if is_idx else READERS.get(end)


def read_archive(path: Path, like_mnist: bool) -> Found:
    """What is read of the folder that a .zip or .tar file unpacks to."""
    is_zip = path.suffix.lower() == ".zip"
    with tempfile.TemporaryDirectory() as place:
        try:
            with zipfile.ZipFile(path) if is_zip else tarfile.open(path) as archive:
                archive.extractall(place, **({} if is_zip else {"filter": "data"}))
        except RuntimeError as error:  # zipfile's own, where a password is needed
            raise ValueError(error) from error
        folder = Path(place)
        while len(inside := [f for f in folder.iterdir() if not is_of_system(f.name)]) == 1:
            if not inside[0].is_dir():
                break
            folder = inside[0]
        return read_folder(folder, visible(folder), like_mnist)


def read_file(path: Path, beside: Sequence[Path]) -> Found:
    """The arrays of a file; where it has no labels, with those of a file beside it."""
    arrays = {path.name: (reader_of(path) or read_idx_file)(path)}
    found, mine = sort_arrays(arrays), family(path.name)
    if all(part.labels is None for part in found.parts.values()):
        labels = [f for f in beside if says_labels(f.name)]
        known = [f for f in labels if reader_of(f) and family(f.name) in (mine, set())]
        known.sort(key=lambda file: family(file.name) != mine)
        if known:
            found = sort_arrays({**arrays, known[0].name: reader_of(known[0])(known[0])})
        else:
            found.notes.extend(unused(labels or [f for f in beside if f.stem == path.stem]))
    if part_of(path.name) == "train":
        others = [f for f in beside if part_of(f.name) == "test" and reader_of(f)]
        if others := [f for f in others if not says_labels(f.name)]:
            found.notes.append(f"{others[0].name} is not used: give the folder to test on it")
    return found


def read_folder(folder: Path, files: Sequence[Path], like_mnist: bool) -> Found:
    """The pictures in a folder and its subfolders or, where there are none, the arrays."""
    both = {*files}  # packed and unpacked
    files = [f for f in files if not (f.suffix == ".gz" and f.with_suffix("") in both)]
    arrays = [file for file in files if reader_of(file)]
    pictures = [file for file in files if file.suffix.lower() in PICTURES]
    known = {*arrays, *pictures}
    rest = [file for file in files if file not in known]
    about = [file for file in rest if is_about(file)]
    rest = [file for file in rest if file not in about]
    if arrays and not pictures:
        read = {file: reader_of(file)(file) for file in arrays}
        named = {file.relative_to(folder).as_posix(): each for file, each in read.items() if each}
        found, spare = sort_arrays(named), [*rest, *(file for file in arrays if not read[file])]
    else:
        tables = [file for file in (*arrays, *rest) if file.suffix.lower() in TABLES]
        others = {*tables, *arrays, *about}
        pictures = [file for file in files if file not in others]
        found, spare = read_pictures(folder, pictures, tables, like_mnist)
        spare += [file for file in arrays if file not in tables]
    notes = [*found.notes, *unused(spare)]
    texts = [file.relative_to(folder).as_posix() for file in about]
    notes += [f"texts left out: {some(texts)}"] * bool(texts)
    return found._replace(notes=notes)


def unused(files: Sequence[Path]) -> list[str]:
    """A note on files that lie there and are not used, and whether these could be labels."""
    labels = [file.name for file in files if says_labels(file.name) or file.suffix in TABLES]
    others = [file.name for file in files if file.name not in labels]
    notes = [f"not used, though it could be labels: {some(labels)}"] * bool(labels)
    return notes + [f"not used: {some(others)}"] * bool(others)
