"""New digits from a trained model: python sample.py [CHECKPOINT] --label 3

Without a checkpoint it draws from the model in pretrained/.
"""

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torchvision.utils import make_grid, save_image

from support.checkpoints import atomic_write
from support.command_line import (
    InputError,
    OneLineParser,
    check_writable,
    path_name,
    run_main,
    whole_number,
)
from train_pl import PRETRAINED, load_model
from utils import mean_image

ZOOM = 3  # screen pixels per pixel


@torch.no_grad()
def sample(args: argparse.Namespace) -> None:
    """Draws digits and writes them as one picture, or as an array.

    Raises:
        InputError: the checkpoint or the output cannot be used.
    """
    output = Path(args.output)
    if output.suffix not in (".png", ".npy"):
        raise InputError(f"argument --output: {output}: give a name that ends with .png or .npy")
    check_writable("--output", output.parent)
    model = load_model(args.checkpoint)
    torch.manual_seed(args.seed)
    labels = None if args.label is None else torch.full((args.num,), args.label)
    z = model.prior.sample(args.num, labels, model.TEMPERATURE)
    images = mean_image(model.decoder(z)) if args.mean else model.draw_pixels(z) / 15
    file = BytesIO()
    if output.suffix == ".npy":
        levels = 15 * images.squeeze(1).numpy()
        np.save(file, levels if args.mean else levels.round().astype(np.uint8))
    else:
        grid = make_grid(images, nrow=8).repeat_interleave(ZOOM, 1).repeat_interleave(ZOOM, 2)
        save_image(grid, file, format="png")
    atomic_write(output, file.getbuffer())
    source = "the learned prior" if model.prior.learned else "N(0, I): no learned prior is there"
    print(f"{output}: {args.num} digits, drawn from {source}")


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        description="Draw new digits from a trained model.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    checkpoint = "a .ckpt file, or a run's log directory for its best one"
    add("checkpoint", nargs="?", default=str(PRETRAINED), help=checkpoint)
    add("--label", type=whole_number(0, 9), help="only digits of this class")
    add("--num", type=whole_number(1), default=64, help="how many")
    add("--mean", action="store_true", help="expected grey levels, no pixel drawn on its own")
    add("--seed", type=whole_number(0, 2**32 - 1), default=0, help="of all draws")
    output = "a .png, or a .npy of uint8 [N, 28, 28] in 0..15 (float with --mean)"
    add("--output", type=path_name, default="samples.png", help=output)
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command line: see `run_main`."""
    parser = make_parser()
    run_main(parser, lambda: sample(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
