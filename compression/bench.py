"""compress.py bench: images in an archive and with general codecs, in size and speed."""

import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from boundary.command_line import WorkError
from compression import low_bits
from compression.archive import OVERHEAD, read_archive
from compression.codec import Codec
from compression.general_codecs import Contest, Format, codecs, single_image_codecs
from judging.bounds import image_bounds
from utils import elbo_to_bpd

SINGLE = 100  # images that are put into archives of their own


class VerificationError(WorkError):
    """What was encoded does not come back; there is no known way for this to happen."""


class Result(NamedTuple):
    """What a codec made of the images."""

    name: str
    files: list[bytes]
    encoding: float  # seconds of processor time
    decoding: float

    @property
    def size(self) -> int:
        return sum(map(len, self.files))


def negative_elbo(model: nn.Module, images: np.ndarray) -> float:
    """With the learned prior, the mean over the images with one sample of z each, in bpd."""
    imgs = torch.from_numpy(images).unsqueeze(1)
    nats = image_bounds(model, imgs, num_samples=1)["negative_elbo_prior"]
    return elbo_to_bpd(nats, imgs.shape).mean().item()


def timed(work: Callable, arguments: list) -> tuple[list, float]:
    """What it returns for each argument, and the seconds of processor time for all.

    That counts every thread, and no other work on the machine.
    """
    started = time.process_time()
    results = [work(argument) for argument in arguments]
    return results, time.process_time() - started


def measure(name: str, contest: Contest) -> Result:
    """Encodes and decodes.

    Raises:
        VerificationError: something else comes back.
    """
    print(f"{name} ...", file=sys.stderr)
    files, encoding = timed(contest.format.encode, contest.arrays)
    arrays, decoding = timed(contest.format.decode, files)
    if not all(map(np.array_equal, arrays, contest.arrays)):
        raise VerificationError(f"{name}: the images do not come back as they were")
    return Result(name, files, encoding, decoding)


def compare(title: str, contests: dict[str, Contest], images: np.ndarray) -> list[Result]:
    """Prints a table of the contests, the smallest first; returns their results as given."""
    results = [measure(name, contest) for name, contest in contests.items()]
    per_file = " per file" if len(results[0].files) > 1 else ""
    print(f"\n{title}\n")
    print(f"| method | bits per pixel | bytes{per_file} | encodes images/s | decodes |")
    print("| --- | --- | --- | --- | --- |")
    for result in sorted(results, key=lambda result: result.size):
        rate, size = 8 * result.size / images.size, result.size / len(result.files)
        speeds = [f"{len(images) / s:,.0f}" for s in (result.encoding, result.decoding)]
        print(f"| {result.name} | {rate:.4f} | {size:,.0f} | {speeds[0]} | {speeds[1]} |")
    if not any("JPEG XL" in result.name for result in results):
        print("\nJPEG XL is left out: pip install imagecodecs")
    print(flush=True)
    return results


def compare_together(codec: Codec, images: np.ndarray) -> Result:
    """All images in one archive, against codecs for a sheet or a stream of them."""
    levels = 2**codec.bits
    own = {"this model, one archive": Contest(Format(codec.encode, codec.decode), [images])}
    title = f"{len(images):,} images of {levels} grey levels"
    archive, *_ = compare(title, own | codecs(images, levels), images)
    header = read_archive(archive.files[0]).header
    startup = 32 * header.startup
    print(f"the archive has {8 * OVERHEAD} bits of header and {startup} bits to start up with")
    return archive


def compare_single(codec: Codec, images: np.ndarray) -> None:
    """The first images, each in a file of its own."""
    images = images[:SINGLE]
    own = Format(
        lambda image: codec.encode(image[np.newaxis]), lambda archive: codec.decode(archive)[0]
    )
    contests = {"this model, an archive of one image": Contest(own, images)}
    title = f"{len(images)} images of {2**codec.bits} grey levels, each in a file of its own"
    compare(title, contests | single_image_codecs(images), images)


def bench(model: nn.Module, name: str, images: np.ndarray, grey: np.ndarray | None) -> None:
    """Prints everything that there is to compare.

    Args:
        name: of the data set.
        images: uint8 [N, 28, 28], values 0..15.
        grey: the same in 0..255, if they are known.
    """
    print(f"{len(images):,} test images of {name}; all codecs on one thread, in processor time")
    codec = Codec(model, progress=True)
    archive = compare_together(codec, images)
    rate, elbo = 8 * archive.size / images.size, negative_elbo(model, images)
    print(f"its negative ELBO is {elbo:.4f} bits per pixel, it has {rate / elbo - 1:+.2%}")
    compare_single(codec, images)
    if grey is not None:
        codec = Codec(model, low_bits.load(), progress=True)
        compare_together(codec, grey)
        compare_single(codec, grey)
