"""Lossless compression with a trained VAE: its bits per dimension, made real.

    python compress.py encode t10k-images-idx3-ubyte.gz digits.vae   # or a .npy file, or PNG files
    python compress.py decode digits.vae t10k-images-idx3-ubyte      # or digits.npy, or a folder
    python compress.py info digits.vae
    python compress.py bench                # against general codecs, on the test set

This is the command line; how it works, and what is guaranteed, stands in compression/codec.py.
"""

import argparse
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C in the seconds of the imports ends without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import numpy as np
from numpy.typing import ArrayLike

from boundary.command_line import InputError, OneLineParser, run_main, whole_number
from boundary.files import replacing
from compression.archive import OVERHEAD, SIDE, Header, read_header
from compression.bench import VerificationError, bench
from compression.codec import Codec
from compression.image_files import check_target, read_bytes, read_images, write_images
from compression.low_bits import LowBits
from compression.low_bits import load as load_low_bits
from train_pl import PRETRAINED, VAE, load_model


def encode(images: ArrayLike, model: VAE, levels: int = 16) -> bytes:
    """Images to an archive that `decode` turns into the same images with the same model.

    Args:
        images: uint8 [N, 28, 28] or [N, 1, 28, 28], values 0..levels-1, N >= 0.
        model: its weights are float32 and on the CPU.
        levels: 16, or 256: then the shipped model of the low bits is needed too,
            see compression/low_bits.py.
    Raises:
        TypeError, ValueError: images or model are something else.
        InputError: the model is of no use, as its outputs are not finite numbers, or it codes
            these images in less than a byte each, which no archive may.
    """
    return Codec(model, low_bits_of(levels)).encode(images)


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
    return Codec(model, low_bits_of(read_header(archive).levels)).decode(archive)


def low_bits_of(levels: int) -> LowBits | None:
    """The model of what images of so many grey levels have beyond 4 bits."""
    if levels not in (16, 256):
        raise ValueError(f"levels must be 16 or 256, got {levels}")
    return load_low_bits() if levels == 256 else None


def load_codec(checkpoint: Path, levels: int) -> Codec:
    model = load_model(checkpoint)
    return Codec(model, low_bits_of(levels), progress=True)


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


def encode_file(args: argparse.Namespace) -> None:
    images, levels = read_images(args.images, args.levels, args.discretize)
    if args.archive.exists() and args.archive.samefile(args.images):
        raise InputError(f"{args.archive} has the images themselves: choose another name")
    codec = load_codec(args.checkpoint, levels)
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
    archive, header = read_archive(args.archive)
    check_target(args.images, header.count)
    codec = load_codec(args.checkpoint, header.levels)
    with replacing(args.images, args.force) as new:
        with naming(args.archive):
            images = codec.decode(archive)
        write_images(new, images, header.levels, args.images.name)
    print(f"{args.images}: {len(images):,} images, as they were")


def show_info(args: argparse.Namespace) -> None:
    archive, header = read_archive(args.archive)
    print(
        f"version      {header.version}\n"
        f"images       uint8 {list(header.shape)}, values 0..{header.levels - 1}\n"
        f"size         {cost(header, len(archive))}\n"
        f"checkpoint   weights of fingerprint {header.weights.hex()}\n"
        f"pixels       CRC-32 {header.pixels:08x}\n"
        f"file         whole, its CRC-32 is right"
    )


def run_bench(args: argparse.Namespace) -> None:
    bench(args.checkpoint, args.limit)


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description="Lossless compression of digits with a trained VAE.")
    commands = parser.add_subparsers(required=True, metavar="encode|decode|info|bench")

    def command(name: str, run: Callable[[argparse.Namespace], None], summary: str) -> Callable:
        subparser = commands.add_parser(name, help=summary, description=summary)
        subparser.set_defaults(run=run)
        return subparser.add_argument

    checkpoint = {"type": Path, "default": PRETRAINED, "help": "model (default: %(default)s)"}
    force = {"action": "store_true", "help": "replace what is there"}
    archive = {"type": Path, "metavar": "ARCHIVE"}

    add = command("encode", encode_file, "compress images without loss")
    images = ".npy file (uint8 [N, 28, 28] or [N, 1, 28, 28]), IDX file, PNG or folder of PNGs"
    add("images", type=Path, metavar="IMAGES", help=images)
    add("archive", **archive)
    add("--checkpoint", **checkpoint)
    levels = "grey levels of the file (default: 16 for .npy, 256 for others)"
    add("--levels", type=int, choices=(16, 256), help=levels)
    add("--discretize", action="store_true", help="of 256 grey levels, keep 16")
    add("--no-verify", dest="verify", action="store_false", help="do not decode the result")
    add("--force", **force)

    add = command("decode", decode_file, "get the images back")
    add("archive", **archive)
    images = "to write: x.npy, an IDX file (x.idx, x-ubyte), x.png, or a folder for PNGs"
    add("images", type=Path, metavar="IMAGES", help=images)
    add("--checkpoint", **checkpoint)
    add("--force", **force)

    add = command("info", show_info, "show what an archive contains")
    add("archive", **archive)

    add = command("bench", run_bench, "compare with general codecs on the test images")
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
