"""Lossless compression with a trained VAE: its bits per dimension, made real.

    python compress.py encode digits.npy digits.vae      # 4-bit images, or an IDX file
    python compress.py decode digits.vae digits.npy      # or a folder, for PNG files
    python compress.py info digits.vae
    python compress.py bench                             # against general codecs, on the test set

Bits-back coding with asymmetric numeral systems (Townsend, Bird & Barber 2019, section 2 and
algorithm 1, https://arxiv.org/abs/1901.04866). The compressed images are a stack of bits. An image
is put onto it in three steps, and taken from it by the same steps backwards:

    take z off it under the posterior q(z|x)     gives    log q(z|x)  bits back
    put x onto it under the decoder p(x|z)       costs   -log p(x|z)
    put z onto it under the prior p(z)           costs   -log p(z)

The sum is the negative ELBO, in bits. Only the first image finds nothing to take z from, and takes
it from random bits: the start-up cost of an archive.

What is guaranteed. Both directions run the networks on the same batches, with one thread, in the
same memory layout. An archive is therefore decoded exactly by the same versions of torch and
constriction with the same torch settings on the same kind of processor, whatever the number of
threads and of images. Another processor or version may round a probability differently, after which
everything decoded is noise. The archive's checksum of the pixels then makes the decoding an error,
never a wrong image: keep the originals until an archive has been decoded where it is to be used.
"""

import argparse
import gzip
import math
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from pytorch_lightning.utilities.seed import isolate_rng

import fmnist
from fmnist import four_bit
from support.bits_back import SIDE, Codec, Header, check_images, overhead, read_header
from support.checkpoints import find_checkpoint
from support.command_line import InputError, OneLineParser, one_line, whole_number
from support.general_codecs import codec_bytes, slow_codec_bytes
from train_pl import PRETRAINED, VAE, load_model


def encode(images: ArrayLike, model: VAE) -> bytes:
    """Images to an archive that `decode` turns into the same images with the same model.

    Args:
        images: uint8 [N, 28, 28] or [N, 1, 28, 28], values 0..15, N >= 0.
        model: its weights are float32 and on the CPU.
    Raises:
        TypeError, ValueError: images or model are something else.
        InputError: the model is of no use, as its outputs are not finite numbers.
    """
    return Codec(model).encode(images)


def decode(archive: bytes, model: VAE) -> np.ndarray:
    """An archive to its images: uint8, in the shape that they were given in.

    The time and memory that this takes are in proportion to what is in the archive, whatever its
    header says.

    Args:
        archive: what `encode` returned.
        model: the one that it was encoded with.
    Raises:
        InputError: the archive is damaged or of another model or version, or its pixels come out
            differently on this machine.
        ValueError: the model is not float32 on the CPU.
    """
    return Codec(model).decode(archive)


def read_images(path: Path, discretize: bool) -> np.ndarray:
    """Images from a .npy file or, with `discretize`, from an IDX file of 256 grey levels.

    Returns:
        uint8 [N, 28, 28] or [N, 1, 28, 28], values 0..15; those of a .npy file stay on disk.
    Raises:
        InputError: the file cannot be read or contains something else.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(6)
        if start == b"\x93NUMPY":
            if discretize:
                raise ValueError("--discretize is for IDX files, a .npy file has 16 levels already")
            return check_images(np.load(path, mmap_mode="r", allow_pickle=False))
        with (gzip.open if start.startswith(b"\x1f\x8b") else open)(path, "rb") as file:
            data = file.read()
        if len(data) < 16 or data[:4] != b"\0\0\x08\x03":  # unsigned bytes, three dimensions
            raise ValueError("neither a .npy file nor an IDX file of images")
        if not discretize:
            raise ValueError("it has 256 grey levels; with --discretize, 16 of them are kept")
        shape = struct.unpack(">3I", data[4:16])
        if len(data) - 16 != math.prod(shape):
            raise ValueError(f"it should have {list(shape)} pixels, but has {len(data) - 16}")
        return check_images(four_bit(np.frombuffer(data, np.uint8, offset=16)).reshape(shape))
    except Exception as error:  # there is no end to what a damaged file can raise
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{path} cannot be used: {one_line(why)}") from error


def read_archive(path: Path) -> bytes:
    """Raises InputError where the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


@contextmanager
def replacing(target: Path, force: bool) -> Iterator[Path]:
    """A path for a new file or folder, which takes the target's place once it is whole.

    Raises:
        InputError: the target exists and `force` is not given, or is a folder with anything but
            PNG files in it, or cannot be written.
    """
    target = target.absolute()
    try:
        if target.exists() and not force:
            raise InputError(f"{target} exists: pass --force to replace it, or choose another name")
        if target.is_dir() and any(path.suffix != ".png" for path in target.iterdir()):
            raise InputError(f"{target} is a folder with other files than PNGs: choose another")
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".compress-") as staging:
            new, old = Path(staging, "new"), Path(staging, "old")
            yield new
            if target.is_dir() and new.is_dir():
                os.replace(target, old)
            os.replace(new, target)
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror}): choose another"
        ) from error


def write_images(path: Path, images: np.ndarray, as_npy: bool) -> None:
    """A .npy file of the levels 0..15, or a folder of PNG files with 17 times the level."""
    if as_npy:
        with open(path, "xb") as file:
            np.save(file, images)
        return
    path.mkdir()
    width = max(5, len(str(len(images) - 1)))
    for number, image in enumerate(images.reshape(-1, SIDE, SIDE)):
        Image.fromarray(image * np.uint8(17)).save(path / f"{number:0{width}}.png")


def cost(header: Header, size: int) -> str:
    """An archive's size in bytes, in words."""
    rate = 8 * size / max(1, header.count * SIDE**2)
    per_pixel = f"{rate:.4f} bits per pixel, " if header.count else ""
    return (
        f"{header.count:,} images in {size:,} bytes: {per_pixel}with {8 * overhead():,} bits of "
        f"header and {32 * header.startup:,} bits to start up with"
    )


class VerificationError(Exception):
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
    archive = read_archive(args.archive)
    with naming(args.archive):
        read_header(archive)  # before the model is loaded
    codec = Codec(load_model(find_checkpoint(args.checkpoint)), progress=True)
    with replacing(args.images, args.force) as new:
        with naming(args.archive):
            images = codec.decode(archive)
        write_images(new, images, as_npy=args.images.suffix == ".npy")
    print(f"{args.images}: {len(images):,} images, as they were")


def show_info(args: argparse.Namespace) -> None:
    archive = read_archive(args.archive)
    with naming(args.archive):
        header = read_header(archive)
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
    model = load_model(find_checkpoint(args.checkpoint))
    fmnist.prepare()
    images = fmnist.load(train=False).images.squeeze(1).numpy()[: args.limit]
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
    """The command line: bad input ends with one line and exit code 2."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        args.run(args)
    except InputError as error:
        parser.error(str(error))
    except VerificationError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
