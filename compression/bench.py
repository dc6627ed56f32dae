"""compress.py bench: the test images in an archive and with general codecs, in size and speed."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pytorch_lightning.utilities.seed import isolate_rng

import fmnist
from boundary.checkpoints import find_checkpoint
from boundary.command_line import WorkError
from boundary.files import read_idx
from compression import low_bits
from compression.archive import OVERHEAD, read_header
from compression.codec import Codec
from compression.general_codecs import JPEG_XL_10, Contest, Format, codecs, single_image_codecs
from fmnist import trained_on
from train_pl import VAE, load_model
from utils import elbo_to_bpd, sampled_negative_elbo

SINGLE = 100  # images that are put into archives of their own
ORDERS = 3  # of the same images, as their order decides which z is drawn


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


@torch.inference_mode()
def negative_elbo(model: VAE, images: np.ndarray) -> float:
    """With the learned prior, the mean over the images with one sample of z each, in bpd."""
    total = 0.0
    with isolate_rng():
        torch.manual_seed(0)
        for part in torch.from_numpy(images).long().unsqueeze(1).split(500):
            L_rec, _, z, mean, log_std = model.elbo_terms(part)
            elbo = sampled_negative_elbo(L_rec, z, mean, log_std, model.prior.log_prob(z))
            total += elbo_to_bpd(elbo, part.shape).sum().item()
    return total / len(images)


def say(what: str, end: str = "\n") -> None:
    """Progress, which is no result."""
    print(what, end=end, file=sys.stderr, flush=True)


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
    say(f"{name} ...", end=" ")
    files, encoding = timed(contest.format.encode, contest.arrays)
    decoded, decoding = timed(contest.format.decode, files)
    if not all(map(np.array_equal, decoded, contest.arrays)):
        raise VerificationError(f"{name}: the images do not come back as they were")
    say(f"{sum(map(len, files)):,} bytes, {encoding:.1f} s and back {decoding:.1f} s")
    return Result(name, files, encoding, decoding)


def print_table(results: list[Result], images: np.ndarray) -> None:
    per_file = " per file" if len(results[0].files) > 1 else ""
    print(f"| method | bits per pixel | bytes{per_file} | encodes images/s | decodes |")
    print("| --- | --- | --- | --- | --- |")
    for result in sorted(results, key=lambda result: result.size):
        rate, size = 8 * result.size / images.size, result.size / len(result.files)
        speeds = [f"{len(images) / s:,.0f}" for s in (result.encoding, result.decoding)]
        print(f"| {result.name} | {rate:.4f} | {size:,.0f} | {speeds[0]} | {speeds[1]} |")
    if not any("JPEG XL" in result.name for result in results):
        print("\nJPEG XL is left out: pip install imagecodecs")


def compare(codec: Codec, images: np.ndarray) -> tuple[dict[str, int], int]:
    """Prints the table of all images; returns all sizes in bytes by name, and the archive's."""
    levels, own = 2**codec.bits, Format(codec.encode, codec.decode)
    contests = {"this model, one archive": Contest(own, [images])}
    contests |= codecs(images, levels)
    say(f"\n{len(images):,} images of {levels} grey levels")
    results = [measure(name, contest) for name, contest in contests.items()]
    print(f"\n{len(images):,} images of {levels} grey levels\n")
    print_table(results, images)
    header = read_header(results[0].files[0])
    print(
        f"\nthe archive has {8 * OVERHEAD} bits of header and {32 * header.startup} bits to start "
        "up with"
    )
    return {result.name: result.size for result in results[1:]}, results[0].size


def compare_single(codec: Codec, images: np.ndarray) -> None:
    """Prints the table of the first images, each in a file of its own."""
    images, levels = images[:SINGLE], 2**codec.bits
    own = Format(
        lambda image: codec.encode(image[np.newaxis]), lambda archive: codec.decode(archive)[0]
    )
    contests = {"this model, an archive of one image": Contest(own, images)}
    contests |= single_image_codecs(images)
    say(f"\n{len(images)} images of {levels} grey levels, each in a file of its own")
    results = [measure(name, contest) for name, contest in contests.items()]
    print(f"\n{len(images)} images of {levels} grey levels, each in a file of its own\n")
    print_table(results, images)


def break_even(needed: int, count: int, archive: int, others: dict[str, int]) -> list[str]:
    """From how many images on an archive and the weights are smaller together.

    Args:
        needed: bytes of the weights that decoding needs.
        count: images in the archive.
        archive: its bytes.
        others: bytes of other codecs for the same images.
    """
    lines = []
    for name, size in others.items():
        saved = (size - archive) / count
        fewest = f"{int(needed / saved) + 1:,} images" if saved > 0 else "no number of images"
        lines.append(f"archive and weights are smaller than {name} from {fewest} on")
    return lines


def order_spread(codec: Codec, images: np.ndarray) -> list[float]:
    """Bits per pixel of archives of the same images in `ORDERS` random orders."""
    orders = [np.random.default_rng(seed).permutation(len(images)) for seed in range(ORDERS)]
    say("three other orders ...")
    return [8 * len(codec.encode(images[order])) / images.size for order in orders]


def bench(checkpoint: Path, limit: int | None) -> None:
    """Prints everything that there is to compare, on the first test images."""
    checkpoint = find_checkpoint(checkpoint)
    model, dataset = load_model(checkpoint), trained_on(checkpoint) or "MNIST"
    fmnist.prepare(dataset=dataset)
    grey = read_idx(fmnist.DATA_DIR / dataset / "raw" / "t10k-images-idx3-ubyte.gz")[:limit]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for the bound, which the codec does not compute
    print(f"{len(grey):,} test images of {dataset}; all codecs on one thread, in processor time")
    checkpoint_size, low_size = checkpoint.stat().st_size, low_bits.WEIGHTS.stat().st_size
    for images, low, needed in (
        (fmnist.four_bit(grey), None, checkpoint_size),
        (grey, low_bits.load(), checkpoint_size + low_size),
    ):
        codec = Codec(model, low, progress=True)
        sizes, archive = compare(codec, images)
        print(f"the weights that decoding needs have {needed:,} bytes")
        known = {name: size for name, size in sizes.items() if name in ("xz", JPEG_XL_10)}
        print(*break_even(needed, len(images), archive, known), sep="\n")
        if low is None:
            rate, elbo = 8 * archive / images.size, negative_elbo(model, images)
            print(f"its negative ELBO is {elbo:.4f} bits per pixel, it has {rate / elbo - 1:+.2%}")
            spread = ", ".join(f"{rate:.4f}" for rate in order_spread(codec, images))
            print(f"in {ORDERS} random orders of the images: {spread} bits per pixel")
        compare_single(codec, images)
        sys.stdout.flush()
    torch.set_num_threads(threads)
