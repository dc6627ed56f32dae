"""What --data reads of images of your own: python own_data.py PATH --output read.png

Or read.npy, all of them, for compress.py. docs/own_data.md has the kinds of files that are read.
"""

import argparse
import io
import math
from pathlib import Path

import numpy as np
from torchvision.utils import save_image

from inputs.command_line import InputError, OneLineParser, path_name, run_main
from inputs.files import write_whole
from reading.choice import add_own_data
from reading.own import read_own

SHOWN = 20  # images in a row and in a column of the picture that this file writes, at most


def show(args: argparse.Namespace) -> None:
    """Writes what is read of images of one's own: a picture of some, or an array of all."""
    output, file = Path(args.output), io.BytesIO()
    if output.suffix not in (".png", ".npy"):
        raise InputError(f"argument --output: {output}: give a name that ends with .png or .npy")
    if output.exists():
        raise InputError(f"argument --output: {output} is there already: choose another name")
    own = read_own(args.data, args.levels or 256, args.like_mnist)
    if output.suffix == ".npy":
        np.save(file, own.data.images.squeeze(1).numpy())
    else:
        images = own.data.images[:: math.ceil(len(own.data) / SHOWN**2)] / 15
        save_image(images, file, "PNG", nrow=SHOWN, padding=1, pad_value=0.3)
    write_whole(output, file.getvalue())
    print(f"{output}: {own.summary()}")


def main(argv: list[str] | None = None) -> None:
    parser = OneLineParser(
        description="Show what --data reads of images of your own.",
        example="python own_data.py my_pictures --like_mnist",
    )
    add_own_data(parser.add_argument, "data")
    help = "a .png of up to 400 images, or a .npy of all, uint8 [N, 28, 28] in 0..15"
    parser.add_argument("--output", type=path_name, default="own_data.png", help=help)
    run_main(parser, show, argv)


if __name__ == "__main__":
    main()
