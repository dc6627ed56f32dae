"""compress.py bench: the test images in an archive and with general codecs, in size and speed."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning.utilities.seed import isolate_rng

import fmnist
import low_bits
from support.archive_file import OVERHEAD, read_header
from support.bits_back import Codec
from support.checkpoints import find_checkpoint, trained_on
from support.command_line import WorkError
from support.general_codecs import JPEG_XL_10, codecs, single_image_codecs
from support.untrusted import read_idx
from train_pl import VAE, load_model
from utils import elbo_to_bpd

SINGLE = 100  # images that are put into archives of their own
ORDERS = 3  # of the same images, as their order decides which z is drawn


class VerificationError(WorkError):
    """An archive does not decode to what was encoded; there is no known way for this to happen."""


@torch.inference_mode()
def negative_elbo(model: VAE, images: np.ndarray) -> float:
    """With the learned prior, the mean over the images with one sample of z each, in bpd."""
    total = 0.0
    with isolate_rng():
        torch.manual_seed(0)
        for part in torch.from_numpy(images).long().unsqueeze(1).split(500):
            L_rec, _, z, log_qz = model.terms(part)
            elbo = L_rec + log_qz - model.prior.log_prob(z)
            total += elbo_to_bpd(elbo, part.shape).sum().item()
    return total / len(images)


def timed(work: Callable, *arguments: object) -> tuple[object, float]:
    """What it returns, and the seconds that it took."""
    started = time.perf_counter()
    result = work(*arguments)
    return result, time.perf_counter() - started


def print_table(rows: list[tuple[str, int, float]], images: np.ndarray) -> None:
    """Rows are the method's name, its bytes and the seconds that it took to encode."""
    print("| method | bits per pixel | bytes | encodes images/s |\n| --- | --- | --- | --- |")
    for name, size, seconds in sorted(rows, key=lambda row: row[1]):
        speed = f"{len(images) / seconds:,.0f}"
        print(f"| {name} | {8 * size / images.size:.4f} | {size:,} | {speed} |")
    if not any("JPEG XL" in name for name, *_ in rows):
        print("\nJPEG XL is left out: pip install imagecodecs")


def compare(codec: Codec, images: np.ndarray) -> tuple[dict[str, int], int]:
    """Prints the table of all images; returns all sizes in bytes by name, and the archive's."""
    levels = 2**codec.bits
    archive, seconds = timed(codec.encode, images)
    decoded, decoding = timed(codec.decode, archive)
    if not np.array_equal(decoded, images):
        raise VerificationError("the archive does not decode to the images")
    rows = [("this model, one archive", len(archive), seconds)]
    rows += [(name, *timed(work)) for name, work in codecs(images, levels).items()]
    print(f"\n{len(images):,} images of {levels} grey levels\n")
    print_table(rows, images)
    header = read_header(archive)
    print(
        f"\nthis model decodes {len(images) / decoding:,.0f} images/s; its archive has "
        f"{8 * OVERHEAD} bits of header and {32 * header.startup} bits to start up with"
    )
    return {name: size for name, size, _ in rows[1:]}, len(archive)


def compare_single(codec: Codec, images: np.ndarray) -> None:
    """Prints the table of the first images, each in a file of its own."""
    images = images[:SINGLE]
    archives, seconds = timed(lambda: [codec.encode(image[np.newaxis]) for image in images])
    rows = [("this model, an archive of one image", sum(map(len, archives)), seconds)]
    works = single_image_codecs(images, 2**codec.bits)
    rows += [(name, *timed(work)) for name, work in works.items()]
    print(f"\n{len(images)} images of {2**codec.bits} grey levels, each in a file of its own\n")
    print_table(rows, images)


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
    return [8 * len(codec.encode(images[order])) / images.size for order in orders]


def bench(checkpoint: Path, limit: int | None) -> None:
    """Prints everything that there is to compare, on the first test images."""
    checkpoint = find_checkpoint(checkpoint)
    model, dataset = load_model(checkpoint), trained_on(checkpoint) or "MNIST"
    fmnist.prepare(dataset=dataset)
    grey = read_idx(fmnist.DATA_DIR / dataset / "raw" / "t10k-images-idx3-ubyte.gz")[:limit]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for the bound, which the codec does not compute
    print(f"{len(grey):,} test images of {dataset}, all codecs on one thread")
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
    torch.set_num_threads(threads)
