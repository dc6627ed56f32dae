"""New digits from a trained model: python sample.py [CHECKPOINT] --label 3

Without a checkpoint it draws from the model in pretrained/.
"""

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torchvision.utils import make_grid, save_image

from support.checkpoints import find_checkpoint
from support.checks import check_finite
from support.command_line import (
    InputError,
    OneLineParser,
    check_output,
    path_name,
    run_main,
    whole_number,
)
from support.image_files import replacing
from train_pl import PRETRAINED, load_model
from utils import mean_image

ZOOM = 3  # screen pixels per pixel
DECODER_BATCH = 500  # latents decoded at a time: the memory that any number of digits needs


@torch.no_grad()
def sample(args: argparse.Namespace) -> None:
    """Draws digits and writes them as one picture, or as an array.

    Raises:
        InputError: the checkpoint or the output cannot be used.
    """
    output = Path(args.output)
    if output.suffix not in (".png", ".npy"):
        raise InputError(f"argument --output: {output}: give a name that ends with .png or .npy")
    check_output("--output", output)
    model = load_model(find_checkpoint(args.checkpoint))
    torch.manual_seed(args.seed)
    labels = None if args.label is None else torch.full((args.num,), args.label)
    z = model.prior.sample(args.num, labels, model.TEMPERATURE)
    parts = z.split(DECODER_BATCH)
    if args.mean:
        images = torch.cat([mean_image(model.decoder(part)) for part in parts])
    else:
        images = torch.cat([model.draw_pixels(part) for part in parts]) / 15
    check_finite(images)
    file = BytesIO()
    if output.suffix == ".npy":
        levels = 15 * images.squeeze(1).numpy()
        np.save(file, levels if args.mean else levels.round().astype(np.uint8))
    else:
        grid = make_grid(images, nrow=8).repeat_interleave(ZOOM, 1).repeat_interleave(ZOOM, 2)
        save_image(grid, file, format="png")
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output, force=True) as new:
        new.write_bytes(file.getbuffer())
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
    add("--num", type=whole_number(1, 10_000), default=64, help="how many")
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
