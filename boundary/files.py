"""One rule for every file that comes from outside: what it may cost is known before it is paid."""

import gzip
import math
import os
import re
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from boundary.command_line import InputError

PER_BYTE = 64  # of MNIST's archives, the one that unpacks to the most does so to 5 times its size
PNG_NAME = r"\d{5,}\.png"  # what `write_images` calls its files
ALWAYS = 1 << 24  # small files may hold much: a million times the same label


def check_memory(claimed: int, stored: int) -> None:
    """To be called before memory is taken for anything whose size a file decides.

    Args:
        claimed: bytes that the file's content will take.
        stored: bytes that the file has.
    Raises:
        ValueError: `claimed` is above 64 times `stored` plus 16 MiB.
    """
    if claimed > PER_BYTE * stored + ALWAYS:
        raise ValueError(f"{stored} bytes claim to hold {claimed}, more than can be trusted")


def check_regular(path: str | Path) -> None:
    """Raises OSError or ValueError unless it is a file of its own: a device may have no end."""
    if os.stat(path) and not os.path.isfile(path):
        raise ValueError("it is no regular file")


def read_idx(path: str | Path) -> np.ndarray:
    """The array in an IDX file of unsigned bytes, with or without gzip; the file is not trusted.

    The format (http://yann.lecun.com/exdb/mnist): two zeros, the type (8: unsigned byte), the
    number of dimensions, each dimension as a big-endian uint32, then the values.

    Returns:
        uint8, read-only, of the shape that the file tells.
    Raises:
        EOFError, OSError, ValueError, zlib.error: it cannot be read, or is not such a file.
    """
    check_regular(path)
    with open(path, "rb") as stored:
        compressed = stored.read(2) == b"\x1f\x8b"
        stored.seek(0)
        with gzip.GzipFile(fileobj=stored) if compressed else stored as file:
            start = file.read(4)
            if len(start) < 4 or start[:3] != b"\0\0\x08":
                raise ValueError("it is not an IDX file of unsigned bytes")
            lengths = file.read(4 * start[3])
            if len(lengths) < 4 * start[3]:
                raise ValueError("it ends before its sizes do")
            shape = struct.unpack(f">{start[3]}I", lengths)
            size = math.prod(shape)
            check_memory(size, os.fstat(stored.fileno()).st_size)
            values = file.read(size)
            # To look for more is also what makes gzip compare its checksum.
            if len(values) < size or file.read(1):
                raise ValueError(f"it does not have the {size} values of its shape {list(shape)}")
    return np.frombuffer(values, np.uint8).reshape(shape)


def check_replaceable(target: Path, force: bool) -> None:
    """Raises InputError unless a new file or folder may take the target's place.

    It may where there is nothing, and with `force` where there is a regular file or a folder of
    nothing but PNG files with the names that `write_images` gives: no device, no link, nothing that
    somebody else has put there.
    """
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not (target.is_file() or target.is_dir()):
        raise InputError(f"{target} is a link or a device: choose another name")
    if not force:
        raise InputError(f"{target} exists: pass --force to replace it, or choose another name")
    if target.is_dir():
        for entry in target.iterdir():
            own = re.fullmatch(PNG_NAME, entry.name) and entry.is_file()
            if not own or entry.is_symlink():
                raise InputError(
                    f"{target} is a folder with other files than decoded PNGs, such as "
                    f"{entry.name}: choose another name"
                )


@contextmanager
def replacing(target: Path, force: bool) -> Iterator[Path]:
    """A path for a new file or folder, which takes the target's place once it is whole.

    Raises:
        InputError: see `check_replaceable`; or the target cannot be written.
    """
    target = target.absolute()
    try:
        check_replaceable(target, force)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unfinished-") as staging:
            new, old = Path(staging, "new"), Path(staging, "old")
            yield new
            check_replaceable(target, force)  # again, as the work takes a while
            if target.is_dir() and new.is_dir():
                os.replace(target, old)
            os.replace(new, target)
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror}): choose another"
        ) from error


def write_whole(path: str | Path, content: bytes) -> None:
    """Writes a file so that, whatever happens, either the old or the new one is there, complete.

    A link at the path is replaced, not followed. What a kill leaves is a folder `.unfinished-*`.

    Raises:
        OSError: it cannot be written; the error names the path.
    """
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as fresh:
            new = Path(fresh, path.name)
            with open(new, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
