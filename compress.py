"""Lossless compression with a trained VAE: its bits per dimension, made real.

    python compress.py encode t10k-images-idx3-ubyte.gz digits.vae   # or a .npy file, or PNG files
    python compress.py decode digits.vae t10k-images-idx3-ubyte      # or digits.npy, or a folder
    python compress.py info digits.vae

This is the command line; how it works stands in compression/codec.py, what is promised in
docs/compression.md.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # threads of NumPy's wait for each other on matrices this small
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import ArrayLike

from compression.archive import OVERHEAD, STORED, VERSION, Archive, read_archive
from compression.codec import UNNAMED, Codec
from compression.image_files import check_target, hidden_files, read_images, write_images
from compression.whole_model import WholeModel, unpack, whole_model
from fmnist import SIDE
from inputs.command_line import InputError, OneLineParser, WorkError, run_main
from inputs.files import write_whole
from runs.checkpoints import find_checkpoint
from runs.from_checkpoint import add_model
from vae import PRETRAINED, VAE, load_model


def encode(
    images: ArrayLike, model: VAE, levels: int | None = None, with_model: bool = False
) -> bytes:
    """Images to an archive, which `decode` turns into the same images with the same model.

    Args:
        images: uint8 [N, 28, 28] or [N, 1, 28, 28], values 0..levels-1, N >= 0.
        model: with the networks of this repository, of any precision and on any device.
        levels: those of the model by default; 256 too if these are 16, see compression/low_bits.py.
        with_model: put the model into the archive.
    Raises:
        InputError: see `whole_model`.
        TypeError, ValueError: images are something else.
    """
    return Codec(whole_model(model, levels)).encode(images, with_model=with_model)


def decode(archive: bytes, model: VAE | None = None) -> np.ndarray:
    """An archive to its images: uint8, of the shape that they had.

    Raises:
        InputError: the archive is damaged, or of another model or version, or it does not contain
            its model and none is given.
    """
    return Codec(model_for(read_archive(archive), model)).decode(archive)


def model_for(archive: Archive, model: VAE | None) -> WholeModel:
    """The model in an archive or, if it has none, this one in whole numbers."""
    if archive.model:
        return unpack(archive.model)
    if model is None:
        raise InputError("the archive does not contain its model: give it the one it was made with")
    return whole_model(model, 256 if archive.header.levels == 256 else None)


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def cost(archive: Archive, size: int) -> str:
    """An archive's size, in words."""
    count = archive.header.count
    rate = 8 * size / max(1, count * SIDE**2)
    return f"{count:,} images in {size:,} bytes" + f", {rate:.4f} bits per pixel" * bool(count)


def name_of(checkpoint: Path) -> str:
    """What an archive calls its model: the run's folder and file; nothing for the shipped one."""
    if checkpoint.samefile(PRETRAINED):
        return ""
    is_of_run = checkpoint.parent.name == "checkpoints"
    return "/".join(checkpoint.absolute().parts[-4 if is_of_run else -1 :])


def encode_file(args: argparse.Namespace) -> None:
    check_target("ARCHIVE", args.archive, args.force)
    checkpoint = find_checkpoint(args.checkpoint)
    model, name = load_model(checkpoint, args.model), name_of(checkpoint)
    usual = model.hparams.num_levels
    images, levels, names = read_images(args.images, args.levels, args.discretize, usual)
    if args.archive.exists() and args.archive.samefile(args.images):
        raise InputError(f"{args.archive} has the images themselves: choose another name")
    codec = Codec(whole_model(model, levels), progress=True)
    archive = codec.encode(images, names, name, args.with_model)
    if args.verify:
        try:
            same = np.array_equal(codec.decode(archive), images)
        except InputError:
            same = False
        if not same:
            raise WorkError("the archive does not decode to the images: not written")
    write_whole(args.archive, archive)
    needs = f"keep {checkpoint}, decoding needs it" if name else "decodes with the shipped model"
    print(
        f"{args.archive}: {cost(read_archive(archive), len(archive))}; "
        f"{'verified by decoding it' if args.verify else 'not verified'}; "
        f"{'contains its model' if args.with_model else needs}"
    )
    if args.images.is_dir() and (hidden := hidden_files(args.images)):
        print(f"hidden files in {args.images}, which are not in the archive: {hidden}")


def decode_file(args: argparse.Namespace) -> None:
    archive = read_file(args.archive)
    parts = read_archive(archive)
    check_target("IMAGES", args.images, args.force, parts.header.count)
    model = model_for(parts, None if parts.model else load_model(args.checkpoint, args.model))
    images = Codec(model, progress=True).decode(archive)
    write_images(args.images, images, parts.header.levels, parts.names)
    print(f"{args.images}: {len(images):,} images, as they were")


def show_info(args: argparse.Namespace) -> None:
    packed = read_file(args.archive)
    archive = read_archive(packed)
    header, content, _, model_name, model = archive
    stored = header.form & STORED
    kind = "the pixels as they are" if stored else f"{32 * header.startup:,} bits to start up with"
    more = 8 * (len(packed) - len(content) - OVERHEAD)
    print(
        f"version      {VERSION}\n"
        f"images       uint8 {list(header.shape)}, values 0..{header.levels - 1}\n"
        f"size         {cost(archive, len(packed))}\n"
        f"header       {8 * OVERHEAD:,} bits\n"
        f"names, model {more:,} bits\n"
        f"content      {8 * len(content):,} bits, {kind}\n"
        f"model        {'in the archive' if model else model_name or UNNAMED}, "
        f"digest {header.model.hex()}\n"
        f"pixels       CRC-32 {header.pixels:08x}\n"
        f"file         whole, its CRC-32 is right"
    )


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        description="Compress digits without loss, with a trained VAE.",
        example="python compress.py encode pictures/ digits.vae",
    )
    commands = parser.add_subparsers(required=True, metavar="encode|decode|info")
    with_model, with_target = (argparse.ArgumentParser(add_help=False) for _ in range(2))
    help = "a .ckpt file, or a run's log directory for its best one"
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
    help = "grey levels of the file (default: the model's for .npy, 256 for others)"
    add("--levels", type=int, choices=(2, 16, 256), help=help)
    add("--discretize", action="store_true", help="of 256 grey levels, keep 16")
    help = "put the model into the archive, which then needs no checkpoint"
    add("--with_model", action="store_true", help=help)
    add("--no-verify", dest="verify", action="store_false", help="do not decode the result")

    add = command("decode", decode_file, "get the images back", with_model, with_target)
    add("archive", type=Path, metavar="ARCHIVE")
    help = "to write: x.npy, an IDX file (x.idx, x-ubyte), x.png, or a new folder for PNGs"
    add("images", type=Path, metavar="IMAGES", help=help)

    add = command("info", show_info, "show what an archive contains")
    add("archive", type=Path, metavar="ARCHIVE")
    return parser


def main(argv: list[str] | None = None) -> None:
    run_main(make_parser(), lambda args: args.run(args), argv)


if __name__ == "__main__":
    main()
