"""Archives and what general codecs make of the same images: python benchmarks/archives.py

Sizes and speeds of the test images that a model was trained with, in 16 grey levels and, for the
shipped data sets, also in 256. Without a checkpoint it takes the model in pretrained/.
"""

import argparse
import bz2
import importlib.util
import io
import lzma
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":  # all codecs on one thread
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from compression.archive import OVERHEAD, pack_pixels, read_archive, unpack_pixels
from compression.codec import Codec
from compression.whole_model import whole_model
from fmnist import DATA_DIR, DATASETS, SIDE
from inputs.command_line import OneLineParser, WorkError, run_main, whole_number
from inputs.files import read_idx
from judging.bounds import image_bounds
from reading.choice import data_for
from runs.checkpoints import find_checkpoint
from runs.from_checkpoint import add_checkpoint
from train_pl import PRETRAINED, load_model
from utils import elbo_to_bpd

EFFORTS = (9, 10) if importlib.util.find_spec("imagecodecs") else ()  # JPEG XL's highest
SINGLE = 100  # images that are put into archives of their own


class Contest(NamedTuple):
    """Arrays uint8, values 0..levels-1, and how each of them becomes a file and is read again."""

    arrays: Sequence[np.ndarray]
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]


def as_pictures(arrays: Sequence[np.ndarray], mode: str, **options: object) -> Contest:
    """Arrays [H, W] in a format of Pillow's.

    Args:
        mode: the picture's, "L" for grey, "P" for a palette of greys.
        options: what `Image.save` takes.
    """

    def encode(levels: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(levels).convert(mode).save(file, **options)
        return file.getvalue()

    return Contest(arrays, encode, lambda file: np.array(Image.open(io.BytesIO(file)).convert("L")))


def as_jpeg_xl(arrays: Sequence[np.ndarray], effort: int) -> Contest:
    import imagecodecs  # for this comparison only, and left out where it is not installed

    encode = partial(imagecodecs.jpegxl_encode, lossless=True, effort=effort, numthreads=1)
    return Contest(arrays, encode, partial(imagecodecs.jpegxl_decode, numthreads=1))


def as_stream(images: np.ndarray, compress: Callable, decompress: Callable, levels: int) -> Contest:
    """The pixels of images [N, 28, 28], one after the other; of 4 bits, two in a byte."""
    return Contest(
        [images],
        lambda images: compress(pack_pixels(images, levels)),
        lambda file: unpack_pixels(decompress(file), levels),
    )


def one_sheet(images: np.ndarray) -> np.ndarray:
    """Images [N, 28, 28] as one of about as many rows as columns, the last row filled with 0."""
    columns = math.isqrt(len(images) - 1) + 1
    rows = -(-len(images) // columns)
    filled = np.zeros((rows * columns, SIDE, SIDE), np.uint8)
    filled[: len(images)] = images
    grid = filled.reshape(rows, columns, SIDE, SIDE).swapaxes(1, 2)
    return grid.reshape(rows * SIDE, columns * SIDE)


def codecs(images: np.ndarray, levels: int, single: bool = False) -> dict[str, Contest]:
    """General codecs, without loss, by name.

    Args:
        images: uint8 [N, 28, 28], values 0..levels-1, N >= 1.
        levels: 16 or 256.
        single: every image is a file of its own; else all are one sheet or one stream of bytes.
    """
    pictures, sheet = (images, "") if single else ([one_sheet(images)], ", one sheet")
    # Pillow writes grey at 8 bits only; a palette of 16, which a single digit does not repay, at 4.
    kind = {"mode": "P", "bits": 4} if levels == 16 and not single else {"mode": "L"}
    webp = {"mode": "L", "format": "WEBP", "lossless": True, "quality": 100, "method": 6}
    contests = {
        f"PNG{sheet}": as_pictures(pictures, **kind, format="PNG", optimize=True),
        f"WebP{sheet}": as_pictures(pictures, **webp),
    }
    if not single:
        xz = partial(lzma.compress, preset=9 | lzma.PRESET_EXTREME)
        # xz is better at pairs of 16 levels than at single ones, bz2 is not
        contests["bz2"] = as_stream(images, bz2.compress, bz2.decompress, levels=256)
        contests["xz"] = as_stream(images, xz, lzma.decompress, levels)
    for effort in EFFORTS:
        contests[f"JPEG XL{sheet}, effort {effort}"] = as_jpeg_xl(pictures, effort)
    return contests


def negative_elbo(model: nn.Module, images: np.ndarray) -> float:
    """With the learned prior, the mean over the images with one sample of z each, in bpd."""
    imgs = torch.from_numpy(images).unsqueeze(1)
    nats = image_bounds(model, imgs, num_samples=1)["negative_elbo_prior"]
    return elbo_to_bpd(nats, imgs.shape).mean().item()


def measure(name: str, contest: Contest) -> tuple[list[bytes], float, float]:
    """The files, and the seconds to encode and to decode them.

    They are of processor time, which counts every thread and no other work on the machine.

    Raises:
        WorkError: something else comes back.
    """
    print(f"{name} ...", file=sys.stderr)
    begun = time.process_time()
    files = [contest.encode(array) for array in contest.arrays]
    encoded = time.process_time()
    arrays = [contest.decode(file) for file in files]
    decoded = time.process_time()
    if not all(map(np.array_equal, arrays, contest.arrays)):
        raise WorkError(f"{name}: the images do not come back as they were")
    return files, encoded - begun, decoded - encoded


def compare(codec: Codec, images: np.ndarray, single: bool = False) -> list[bytes]:
    """Prints a table of this codec and the general ones, the smallest first.

    Args:
        images: uint8 [N, 28, 28].
        single: every image is a file of its own.
    Returns:
        the files of this codec.
    """
    levels = codec.model.levels
    title = f"{len(images):,} images of {levels} grey levels"
    own, arrays = "this model, one archive", [images]
    if single:
        title += ", each in a file of its own"
        own, arrays = "this model, an archive of one image", images[:, np.newaxis]
    contests = {own: Contest(arrays, codec.encode, codec.decode)} | codecs(images, levels, single)
    results = {name: measure(name, contest) for name, contest in contests.items()}
    print(f"\n{title}\n")
    per_file = " per file" if single else ""
    print(f"| method | bits per pixel | bytes{per_file} | encodes images/s | decodes |")
    print("| --- | --- | --- | --- | --- |")
    sizes = {name: sum(map(len, files)) for name, (files, *_) in results.items()}
    for name in sorted(sizes, key=sizes.get):
        files, *seconds = results[name]
        rate, size = 8 * sizes[name] / images.size, sizes[name] / len(files)
        speeds = " | ".join(f"{len(images) / s:,.0f}" for s in seconds)
        print(f"| {name} | {rate:.4f} | {size:,.0f} | {speeds} |")
    if not any("JPEG XL" in name for name in results):
        print("\nJPEG XL is left out: pip install imagecodecs")
    print(flush=True)
    return results[own][0]


def bench(model: nn.Module, name: str, images: np.ndarray, grey: np.ndarray | None) -> None:
    """Prints everything that there is to compare.

    Args:
        name: of the data set.
        images: uint8 [N, 28, 28], values 0..15.
        grey: the same in 0..255, if they are known.
    """
    print(f"{len(images):,} test images of {name}; all codecs on one thread, in processor time")
    kinds = [(images, None)] if grey is None else [(images, None), (grey, 256)]
    for known, levels in kinds:
        codec = Codec(whole_model(model, levels), progress=True)
        (archive,) = compare(codec, known)
        startup = 32 * read_archive(archive).header.startup
        print(f"the archive has {8 * OVERHEAD} bits of header and {startup} bits to start up with")
        if levels is None:
            rate, elbo = 8 * len(archive) / images.size, negative_elbo(model, images)
            print(f"its negative ELBO is {elbo:.4f} bits per pixel, it has {rate / elbo - 1:+.2%}")
        compare(codec, known[:SINGLE], single=True)


def run(args: argparse.Namespace) -> None:
    checkpoint = find_checkpoint(args.checkpoint)
    data = data_for(checkpoint)
    model = load_model(checkpoint)
    grey = None  # images of one's own are known in 16 levels only
    if data.name in DATASETS and model.encoder.num_levels == 16:
        grey = read_idx(DATA_DIR / data.name / "raw" / "t10k-images-idx3-ubyte.gz")[: args.limit]
    images = data.test.images.squeeze(1).numpy()[: args.limit]
    bench(model, data.name, images, grey)


def main(argv: list[str] | None = None) -> None:
    parser = OneLineParser(description="Archives against general codecs, on the test images.")
    add_checkpoint(parser, PRETRAINED)
    parser.add_argument("--limit", type=whole_number(1), help="take only the first images")
    run_main(parser, run, argv)


if __name__ == "__main__":
    main()
