"""compress.py bench: images in an archive and with general codecs, in size and speed."""

import sys
import time

import numpy as np
import torch
from torch import nn

from compression import low_bits
from compression.archive import OVERHEAD, read_archive
from compression.codec import Codec
from compression.general_codecs import Contest, codecs
from inputs.command_line import WorkError
from judging.bounds import image_bounds
from utils import elbo_to_bpd

SINGLE = 100  # images that are put into archives of their own


class VerificationError(WorkError):
    """What was encoded does not come back; there is no known way for this to happen."""


def negative_elbo(model: nn.Module, images: np.ndarray) -> float:
    """With the learned prior, the mean over the images with one sample of z each, in bpd."""
    imgs = torch.from_numpy(images).unsqueeze(1)
    nats = image_bounds(model, imgs, num_samples=1)["negative_elbo_prior"]
    return elbo_to_bpd(nats, imgs.shape).mean().item()


def measure(name: str, contest: Contest) -> tuple[list[bytes], float, float]:
    """The files, and the seconds to encode and to decode them.

    They are of processor time, which counts every thread and no other work on the machine.

    Raises:
        VerificationError: something else comes back.
    """
    print(f"{name} ...", file=sys.stderr)
    begun = time.process_time()
    files = [contest.encode(array) for array in contest.arrays]
    encoded = time.process_time()
    arrays = [contest.decode(file) for file in files]
    decoded = time.process_time()
    if not all(map(np.array_equal, arrays, contest.arrays)):
        raise VerificationError(f"{name}: the images do not come back as they were")
    return files, encoded - begun, decoded - encoded


def compare(codec: Codec, images: np.ndarray, single: bool = False) -> list[bytes]:
    """Prints a table of this codec and the general ones, the smallest first.

    Args:
        images: uint8 [N, 28, 28].
        single: every image is a file of its own.
    Returns:
        the files of this codec.
    """
    levels = 2**codec.bits
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
    kinds = [(images, None)] if grey is None else [(images, None), (grey, low_bits.load())]
    for known, low in kinds:
        codec = Codec(model, low, progress=True)
        (archive,) = compare(codec, known)
        startup = 32 * read_archive(archive).header.startup
        print(f"the archive has {8 * OVERHEAD} bits of header and {startup} bits to start up with")
        if low is None:
            rate, elbo = 8 * len(archive) / images.size, negative_elbo(model, images)
            print(f"its negative ELBO is {elbo:.4f} bits per pixel, it has {rate / elbo - 1:+.2%}")
        compare(codec, known[:SINGLE], single=True)
