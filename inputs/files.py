"""Files: IDX files from outside are checked as they are read, and ours are written whole."""

import csv
import gzip
import io
import math
import os
import struct
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: str | Path) -> np.ndarray:
    """The array in an IDX file, with or without gzip.

    The format (http://yann.lecun.com/exdb/mnist): two zeros, the type of the values, the number of
    dimensions, each dimension as a big-endian uint32, then the values, big-endian.

    Returns:
        read-only, of the type (mostly uint8) and the shape that the file tells.
    Raises:
        EOFError, OSError, ValueError, zlib.error: it cannot be read, or is not such a file.
    """
    content = Path(path).read_bytes()
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    if len(content) < 4 or not content.startswith(b"\0\0") or content[2] not in IDX_TYPES:
        raise ValueError("it is not an IDX file")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError("it ends before its sizes do")
    shape = struct.unpack_from(f">{content[3]}I", content, 4)
    kind = np.dtype(IDX_TYPES[content[2]])
    if len(content) - start != kind.itemsize * math.prod(shape):
        raise ValueError(f"it does not have the {math.prod(shape)} values of its shape {shape}")
    return np.frombuffer(content, kind, offset=start).reshape(shape)


def write_whole(path: str | Path, content: bytes) -> None:
    """Writes a file so that, whatever happens, either the old or the new one is there, complete.

    Its folder is made if needed. A link at the path is replaced, not followed. What a kill leaves
    is a folder `.unfinished-*`.

    Raises:
        OSError: it cannot be written; the error names the path.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as fresh:
            new = Path(fresh, path.name)
            with open(new, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_csv(path: str | Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Writes a table with all columns that any row has; see `write_whole`."""
    table = io.StringIO(newline="")
    names = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(table, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, table.getvalue().encode(errors="surrogateescape"))  # names of files
