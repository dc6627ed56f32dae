"""What a path is: a file of arrays, a folder of them or of pictures, or an archive of these."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from reading.arrays import read_arrays, reader_of
from reading.parts import ROLES, Found, part_of, role_of, sort_arrays, words
from reading.pictures import PICTURES, read_pictures, some, visible

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TABLES = (".csv", ".tsv", ".txt")  # with names of pictures and their labels
# Words in names: of the format of a file, and of texts about the data.
FORMAT = {"npy", "npz", "gz", "ubyte", "idx1", "idx2", "idx3", "int", "csv", "tsv", "txt", "idx"}
ABOUT = {"readme", "license", "licence", "copying", "notes", "citation", "credits", "changelog"}


def read_source(path: Path, like_mnist: bool) -> Found:
    """The parts of a file, a folder, an archive, or of the files whose names begin like the path.

    Raises:
        OSError, ValueError: it cannot be read, or it is not clear what it has.
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


def read_archive(path: Path, like_mnist: bool) -> Found:
    """What is read of the folder that a .zip or .tar file unpacks to."""
    how = {} if path.suffix.lower() == ".zip" else {"filter": "data"}
    with tempfile.TemporaryDirectory() as folder:
        try:
            shutil.unpack_archive(path, folder, **how)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # of damage, or of a password
            raise ValueError(error) from error
        return read_folder(Path(folder), visible(Path(folder)), like_mnist)


def family(path: Path) -> set[str]:
    """The words that the name of a file of labels has in common with that of its images."""
    return words(path.name) - {*ROLES} - FORMAT


def is_table(path: Path) -> bool:
    """Whether a file may have the labels of pictures; texts about the data have not."""
    return path.suffix.lower() in TABLES and not words(path.stem) & ABOUT


def read_file(path: Path, beside: Sequence[Path]) -> Found:
    """The arrays of a file; where it has no labels, with those of a file beside it."""
    arrays = {path.name: read_arrays(path)}
    found = sort_arrays(arrays)
    if all(part.labels is None for part in found.parts.values()):
        labels = [f for f in beside if role_of(f.name) == "labels"]
        readable = [f for f in labels if reader_of(f)]
        known = [f for f in readable if family(f) == family(path)]
        if known := known or [f for f in readable if not family(f)]:
            found = sort_arrays({**arrays, known[0].name: read_arrays(known[0])})
        else:
            found.notes.extend(unused(labels or [f for f in beside if f.stem == path.stem]))
    if part_of(path.name) == "train":
        others = [f for f in beside if part_of(f.name) == "test" and reader_of(f)]
        if others := [f for f in others if role_of(f.name) != "labels"]:
            found.notes.append(f"{others[0].name} is not used: give the folder to test on it")
    return found


def read_folder(folder: Path, files: Sequence[Path], like_mnist: bool) -> Found:
    """The pictures in a folder and its subfolders or, where there are none, the arrays."""
    both = {*files}  # packed and unpacked
    files = [f for f in files if not (f.suffix == ".gz" and f.with_suffix("") in both)]
    others = [f for f in files if f.suffix.lower() not in PICTURES]
    arrays = [f for f in others if reader_of(f)]
    texts = [f for f in others if words(f.stem) & ABOUT]
    if arrays and len(others) == len(files):
        read = {f.relative_to(folder).as_posix(): read_arrays(f) for f in arrays}
        found = sort_arrays({name: content for name, content in read.items() if content})
        spare = [f for f in others if not read.get(f.relative_to(folder).as_posix())]
    else:
        tables = [f for f in others if is_table(f)]
        known = {*arrays, *tables, *texts}
        pictures = [f for f in files if f not in known]
        found, spare = read_pictures(folder, pictures, tables, like_mnist)
        spare += [*texts, *(f for f in arrays if f not in tables)]
    found.notes.extend(unused(spare))
    return found


def unused(files: Sequence[Path]) -> list[str]:
    """A note on files that lie there and are not used, and whether these could be labels."""
    labels = [f.name for f in files if role_of(f.name) == "labels" or is_table(f)]
    others = [f.name for f in files if f.name not in labels]
    notes = [f"not used, though it could be labels: {some(labels)}"] if labels else []
    return notes + ([f"not used: {some(others)}"] if others else [])
