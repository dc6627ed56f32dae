"""Lossless compression with a trained VAE: its bits per dimension, made real.

    python compress.py encode digits.npy digits.vae      # 4-bit images, or an IDX file
    python compress.py decode digits.vae digits.npy      # or a folder, for PNG files
    python compress.py info digits.vae
    python compress.py bench                             # against general codecs, on the test set

This is the command line; how it works, and what is guaranteed, stands in support/bits_back.py.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from pytorch_lightning.utilities.seed import isolate_rng

import fmnist
from support.bits_back import OVERHEAD, SIDE, Codec, Header, read_header
from support.checkpoints import find_checkpoint, trained_on
from support.command_line import InputError, OneLineParser, WorkError, run_main, whole_number
from support.general_codecs import codec_bytes, slow_codec_bytes
from support.image_files import read_bytes, read_images, replacing, write_images
from train_pl import PRETRAINED, VAE, load_model


def encode(images: ArrayLike, model: VAE) -> bytes:
    """Images to an archive that `decode` turns into the same images with the same model.

    Args:
        images: uint8 [N, 28, 28] or [N, 1, 28, 28], values 0..15, N >= 0.
        model: its weights are float32 and on the CPU.
    Raises:
        TypeError, ValueError: images or model are something else.
        InputError: the model is of no use, as its outputs are not finite numbers, or it codes
            these images in less than a byte each, which no archive may.
    """
    return Codec(model).encode(images)


def decode(archive: bytes, model: VAE) -> np.ndarray:
    """An archive to its images: uint8, in the shape that they were given in.

    The time and memory that this takes are in proportion to the archive's size, whatever its header
    says: see `read_header`.

    Args:
        archive: what `encode` returned.
        model: the one that it was encoded with.
    Raises:
        InputError: the archive is damaged or of another model or version, or its pixels come out
            differently on this machine.
        ValueError: the model is not float32 on the CPU.
    """
    return Codec(model).decode(archive)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def read_archive(path: Path) -> tuple[bytes, Header]:
    """Raises InputError where the file cannot be read or is no whole archive."""
    archive = read_bytes(path)
    with naming(path):
        return archive, read_header(archive)


def cost(header: Header, size: int) -> str:
    """An archive's size in bytes, in words."""
    rate = 8 * size / max(1, header.count * SIDE**2)
    per_pixel = f"{rate:.4f} bits per pixel, " if header.count else ""
    return (
        f"{header.count:,} images in {size:,} bytes: {per_pixel}with {8 * OVERHEAD:,} bits of "
        f"header and {32 * header.startup:,} bits to start up with"
    )


class VerificationError(WorkError):
    """An archive does not decode to what was encoded; there is no known way for this to happen."""


def encode_file(args: argparse.Namespace) -> None:
    images = read_images(args.images, args.discretize)
    codec = Codec(load_model(find_checkpoint(args.checkpoint)), progress=True)
    with replacing(args.archive, args.force) as new:
        archive = codec.encode(images)
        if args.verify:
            try:
                same = np.array_equal(codec.decode(archive), images)
            except InputError:
                same = False
            if not same:
                raise VerificationError("the archive does not decode to the images: not written")
        new.write_bytes(archive)
    verified = "verified by decoding it" if args.verify else "not verified"
    print(f"{args.archive}: {cost(read_header(archive), len(archive))}; {verified}")


def decode_file(args: argparse.Namespace) -> None:
    archive, _ = read_archive(args.archive)
    codec = Codec(load_model(find_checkpoint(args.checkpoint)), progress=True)
    with replacing(args.images, args.force) as new:
        with naming(args.archive):
            images = codec.decode(archive)
        write_images(new, images, as_npy=args.images.suffix == ".npy")
    print(f"{args.images}: {len(images):,} images, as they were")


def show_info(args: argparse.Namespace) -> None:
    archive, header = read_archive(args.archive)
    print(
        f"version      {header.version}\n"
        f"images       uint8 {list(header.shape)}, values 0..15\n"
        f"size         {cost(header, len(archive))}\n"
        f"checkpoint   weights of fingerprint {header.weights.hex()}\n"
        f"pixels       CRC-32 {header.pixels:08x}\n"
        f"file         whole, its CRC-32 is right"
    )


@torch.inference_mode()
def negative_elbo(model: VAE, images: np.ndarray) -> float:
    """The mean over the images with one sample of z each, in bits per dimension."""
    with isolate_rng():
        torch.manual_seed(0)
        parts = torch.from_numpy(images).long().unsqueeze(1).split(500)
        return sum(len(part) * model(part)[2].item() for part in parts) / len(images)


def bench(args: argparse.Namespace) -> None:
    checkpoint = find_checkpoint(args.checkpoint)
    model, dataset = load_model(checkpoint), trained_on(checkpoint) or "MNIST"
    fmnist.prepare(dataset=dataset)
    images = fmnist.load(dataset=dataset, train=False).images.squeeze(1).numpy()[: args.limit]
    codec = Codec(model, progress=True)
    speeds = []

    def timed(name: str, function: Callable, argument: object) -> object:
        started, in_networks = time.perf_counter(), codec.network_seconds
        result = function(argument)
        seconds = time.perf_counter() - started
        share = (codec.network_seconds - in_networks) / seconds
        speeds.append(
            f"{name}: {len(images) / seconds:,.0f} images/s on one thread, {share:.0%} of the time "
            f"in the networks, {1 - share:.0%} in the coder"
        )
        return result

    archive = timed("encoding", codec.encode, images)
    if not np.array_equal(timed("decoding", codec.decode, archive), images):
        raise VerificationError("the archive does not decode to the images")
    elbo = negative_elbo(model, images)
    rate = 8 * len(archive) / images.size
    lines = [("this model, one archive", rate, len(archive))]
    for name, size in {**codec_bytes(images), **slow_codec_bytes(images)}.items():
        lines.append((name, 8 * size / images.size, size))
    print(f"{len(images):,} test images of {dataset}\n")
    print("| method | bits per pixel | bytes |\n| --- | --- | --- |")
    for name, bits, size in sorted(lines, key=lambda line: line[1]):
        print(f"| {name} | {bits:.4f} | {size:,} |")
    if not any("JPEG XL" in name for name, *_ in lines):
        print("\nJPEG XL is left out: pip install imagecodecs")
    print(f"\nthis model: {cost(read_header(archive), len(archive))}")
    print(f"its negative ELBO: {elbo:.4f} bits per pixel, the archive has {rate / elbo - 1:+.2%}")
    print(*speeds, sep="\n")


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description="Lossless compression of 4-bit digits with a trained VAE.")
    commands = parser.add_subparsers(required=True, metavar="encode|decode|info|bench")

    def command(name: str, run: Callable[[argparse.Namespace], None], summary: str) -> Callable:
        subparser = commands.add_parser(name, help=summary, description=summary)
        subparser.set_defaults(run=run)
        return subparser.add_argument

    checkpoint = {"type": Path, "default": PRETRAINED, "help": "model (default: %(default)s)"}
    force = {"action": "store_true", "help": "replace what is there"}
    archive = {"type": Path, "metavar": "ARCHIVE"}

    add = command("encode", encode_file, "compress images without loss")
    images = ".npy file, uint8 [N, 28, 28] or [N, 1, 28, 28], values 0..15, or an IDX file"
    add("images", type=Path, metavar="IMAGES", help=images)
    add("archive", **archive)
    add("--checkpoint", **checkpoint)
    add("--discretize", action="store_true", help="of an IDX file's 256 grey levels, keep 16")
    add("--no-verify", dest="verify", action="store_false", help="do not decode the result")
    add("--force", **force)

    add = command("decode", decode_file, "get the images back")
    add("archive", **archive)
    images = ".npy file to write; any other name is a folder for PNGs of 17 times the level"
    add("images", type=Path, metavar="IMAGES", help=images)
    add("--checkpoint", **checkpoint)
    add("--force", **force)

    add = command("info", show_info, "show what an archive contains")
    add("archive", **archive)

    add = command("bench", bench, "compare with general codecs on the test images")
    add("--checkpoint", **checkpoint)
    add("--limit", type=whole_number(1, 10_000), help="take only the first images")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command line: see `run_main`."""
    parser = make_parser()

    def work() -> None:
        args = parser.parse_args(argv)
        args.run(args)

    run_main(parser, work)


if __name__ == "__main__":
    main()
