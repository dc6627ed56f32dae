"""Lossless compression with a trained VAE: its bits per dimension, made real.

    python compress.py encode t10k-images-idx3-ubyte.gz digits.vae   # or a .npy file, or PNG files
    python compress.py decode digits.vae t10k-images-idx3-ubyte      # or digits.npy, or a folder
    python compress.py info digits.vae

This is the command line; how it works, and what is guaranteed, stands in compression/codec.py.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from compression import low_bits
from compression.archive import OVERHEAD, STORED, VERSION, Header, read_archive
from compression.codec import Codec
from compression.image_files import check_target, read_images, write_images
from fmnist import SIDE
from inputs.command_line import InputError, OneLineParser, WorkError, add_model, run_main
from inputs.files import write_whole
from vae import PRETRAINED, VAE, check_logits, load_model


def encode(images: ArrayLike, model: VAE, levels: int = 16) -> bytes:
    """Images to an archive that `decode` turns into the same images with the same model.

    Args:
        images: uint8 [N, 28, 28] or [N, 1, 28, 28], values 0..levels-1, N >= 0.
        model: its weights are float32 and on the CPU.
        levels: 16, or 256: then the shipped model of the low bits is needed too,
            see compression/low_bits.py.
    Raises:
        TypeError, ValueError: images or model are something else.
        FloatingPointError: the model's outputs are not finite numbers.
    """
    return Codec(model, low_bits_of(levels)).encode(images)


def decode(archive: bytes, model: VAE) -> np.ndarray:
    """An archive to its images: uint8, in the shape that they were given in.

    Args:
        archive: what `encode` returned.
        model: the one that it was encoded with.
    Raises:
        InputError: the archive is damaged or of another model or version, or its pixels come out
            differently on this machine.
        ValueError: the model is not float32 on the CPU.
    """
    return Codec(model, low_bits_of(read_archive(archive).header.levels)).decode(archive)


def low_bits_of(levels: int) -> low_bits.LowBits | None:
    """The model of what images of so many grey levels have beyond 4 bits."""
    if levels not in (16, 256):
        raise ValueError(f"levels must be 16 or 256, got {levels}")
    return low_bits.load() if levels == 256 else None


def codec_for(args: argparse.Namespace, levels: int) -> Codec:
    model = load_model(args.checkpoint, args.model)
    check_logits(model, "archives")
    return Codec(model, low_bits_of(levels), progress=True)


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def cost(header: Header, size: int) -> str:
    """An archive's size in bytes, in words."""
    rate = 8 * size / max(1, header.count * SIDE**2)
    per_pixel = f", {rate:.4f} bits per pixel" if header.count else ""
    return f"{header.count:,} images in {size:,} bytes{per_pixel}"


def encode_file(args: argparse.Namespace) -> None:
    check_target("ARCHIVE", args.archive, args.force)
    images, levels, names = read_images(args.images, args.levels, args.discretize)
    if args.archive.exists() and args.archive.samefile(args.images):
        raise InputError(f"{args.archive} has the images themselves: choose another name")
    codec = codec_for(args, levels)
    archive = codec.encode(images, names)
    if args.verify:
        try:
            same = np.array_equal(codec.decode(archive), images)
        except InputError:
            same = False
        if not same:
            raise WorkError("the archive does not decode to the images: not written")
    args.archive.parent.mkdir(parents=True, exist_ok=True)
    write_whole(args.archive, archive)
    verified = "verified by decoding it" if args.verify else "not verified"
    print(f"{args.archive}: {cost(read_archive(archive).header, len(archive))}; {verified}")


def decode_file(args: argparse.Namespace) -> None:
    archive = read_file(args.archive)
    header, _, names = read_archive(archive)
    check_target("IMAGES", args.images, args.force, header.count)
    codec = codec_for(args, header.levels)
    images = codec.decode(archive)
    write_images(args.images, images, header.levels, names)
    print(f"{args.images}: {len(images):,} images, as they were")


def show_info(args: argparse.Namespace) -> None:
    archive = read_file(args.archive)
    header, content, _ = read_archive(archive)
    stored = header.form & STORED
    kind = "the pixels as they are" if stored else f"{32 * header.startup:,} bits to start up with"
    print(
        f"version      {VERSION}\n"
        f"images       uint8 {list(header.shape)}, values 0..{header.levels - 1}\n"
        f"size         {cost(header, len(archive))}\n"
        f"header       {8 * OVERHEAD:,} bits\n"
        f"names        {8 * (len(archive) - len(content) - OVERHEAD):,} bits\n"
        f"content      {8 * len(content):,} bits, {kind}\n"
        f"checkpoint   weights of fingerprint {header.weights.hex()}\n"
        f"pixels       CRC-32 {header.pixels:08x}\n"
        f"file         whole, its CRC-32 is right"
    )


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description="Lossless compression of digits with a trained VAE.")
    commands = parser.add_subparsers(required=True, metavar="encode|decode|info")
    with_model, with_target = (argparse.ArgumentParser(add_help=False) for _ in range(2))
    help = "a .ckpt file, or a run's log directory for its best one (default: %(default)s)"
    with_model.add_argument("--checkpoint", type=Path, default=PRETRAINED, help=help)
    add_model(with_model)
    with_target.add_argument("--force", action="store_true", help="replace a file that is there")

    def command(name: str, run: Callable, summary: str, *parents: argparse.ArgumentParser):
        added = commands.add_parser(name, help=summary, description=summary, parents=parents)
        added.set_defaults(run=run)
        return added.add_argument

    add = command("encode", encode_file, "compress images without loss", with_model, with_target)
    help = ".npy file (uint8 [N, 28, 28] or [N, 1, 28, 28]), IDX file, PNG or folder of PNGs"
    add("images", type=Path, metavar="IMAGES", help=help)
    add("archive", type=Path, metavar="ARCHIVE", help="file to write")
    help = "grey levels of the file (default: 16 for .npy, 256 for others)"
    add("--levels", type=int, choices=(16, 256), help=help)
    add("--discretize", action="store_true", help="of 256 grey levels, keep 16")
    add("--no-verify", dest="verify", action="store_false", help="do not decode the result")

    add = command("decode", decode_file, "get the images back", with_model, with_target)
    add("archive", type=Path, metavar="ARCHIVE")
    help = "to write: x.npy, an IDX file (x.idx, x-ubyte), x.png, or a new folder for PNGs"
    add("images", type=Path, metavar="IMAGES", help=help)

    add = command("info", show_info, "show what an archive contains")
    add("archive", type=Path, metavar="ARCHIVE")
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
