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
        return read_files(path, visible(path), like_mnist)
    beside = sorted(path.parent.iterdir())
    begun = [f for f in beside if f.is_file() and f.name.startswith(path.name)]
    if begun and not path.exists():
        return read_files(path.parent, begun, like_mnist)
    path.stat()
    if path.name.lower().endswith(ARCHIVES):
        return read_archive(path, like_mnist)
    labels = [f for f in beside if role_of(f.name) == "labels" and reader_of(f)]
    same = [f for f in labels if family(f) == family(path)]
    files = [path, *(same or [f for f in labels if not family(f)])[:1]]
    found = read_files(path.parent, files, like_mnist)
    near = [f for f in beside if role_of(f.name) or part_of(f.name) or f.stem == path.stem]
    if others := [f.name for f in near if f not in files]:
        found.notes.append(f"not used: {some(others)}: give the folder to use all in it")
    return found


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
        return read_files(Path(folder), visible(Path(folder)), like_mnist)


def family(path: Path) -> set[str]:
    """The words that the name of a file of labels has in common with that of its images."""
    return words(path.name) - {*ROLES} - FORMAT


def read_files(folder: Path, files: Sequence[Path], like_mnist: bool) -> Found:
    """The pictures among some files in a folder or, where there are none, the arrays."""
    both = {*files}  # packed and unpacked
    files = [f for f in files if not (f.suffix == ".gz" and f.with_suffix("") in both)]
    others = [f for f in files if f.suffix.lower() not in PICTURES]
    arrays = [f for f in others if reader_of(f)]
    if arrays and len(others) == len(files):
        read = {f: read_arrays(f) for f in arrays}
        used = {f for f in arrays if read[f]}
        found = sort_arrays({f.relative_to(folder).as_posix(): read[f] for f in arrays if read[f]})
        spare = others
    else:
        texts = [f for f in others if words(f.stem) & ABOUT]
        tables = [f for f in others if f.suffix.lower() in TABLES and f not in texts]
        spare = [*dict.fromkeys((*tables, *arrays, *texts))]
        pictures = [f for f in files if f not in spare]
        found, used = read_pictures(folder, pictures, tables, like_mnist)
    if spare := [f.name for f in spare if f not in used]:
        found.notes.append(f"not used: {some(spare)}")
    return found
