"""New digits from a trained model: python sample.py [CHECKPOINT] --label 3

Or the way between two of one's own: python sample.py --from 6.png --to 8.png

Without a checkpoint it draws from the model in pretrained/.
"""

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inputs.command_line import (
    InputError,
    OneLineParser,
    check_writable,
    path_name,
    run_main,
    whole_number,
)
from inputs.files import write_whole
from judging.handwriting import read_pictures
from pictures.figures import grid_figure, png, rendered
from pictures.of_model import beta_words, drawn_images, mean_images, samples_figure, way
from reading.choice import class_number, training_record
from runs.checkpoints import find_checkpoint
from runs.from_checkpoint import add_checkpoint
from vae import PRETRAINED, VAE, load_model


@torch.no_grad()
def sample(args: argparse.Namespace) -> None:
    """Draws images and writes them as an array or a picture."""
    output = Path(args.output)
    if output.suffix not in (".png", ".npy"):
        raise InputError(f"argument --output: {output}: give a name that ends with .png or .npy")
    check_writable("--output", output.parent)
    if (args.start is None) != (args.to is None):
        raise InputError("argument --from: give it with --to, a picture each")
    path = find_checkpoint(args.checkpoint)
    model, labels = load_model(path, args.model), None
    if args.start is not None:
        return write_way(args, model, path, output)
    if args.label is not None:
        labels = torch.full((args.num,), class_number(path, model.prior.num_classes, args.label))
    torch.manual_seed(args.seed)
    z = model.sample_latents(args.num, labels)
    if output.suffix == ".npy":
        white = model.hparams.num_levels - 1
        images = white * mean_images(model, z) if args.mean else drawn_images(model, z).byte()
        content = npy(images)
    else:
        which = "" if args.label is None else f" of class {args.label}"
        title = f"Samples{which}, seed {args.seed}{beta_words(model)}"
        content = png(rendered(samples_figure(model, z, title, draw=not args.mean)))
    write_whole(output, content)
    print(f"{output}: {args.num} images, drawn from the learned prior")


def npy(images: Tensor) -> bytes:
    """A .npy file of images [N, 1, H, W], as [N, H, W]."""
    file = BytesIO()
    np.save(file, images.squeeze(1).numpy())
    return file.getvalue()


def write_way(args: argparse.Namespace, model: VAE, checkpoint: Path, output: Path) -> None:
    """Two pictures of one's own, and what the model draws along the line between their latents."""
    for name in ("label", "mean"):
        if getattr(args, name):
            raise InputError(f"argument --{name}: it is not for --from, leave it out")
    record, ends = training_record(checkpoint), []
    for option, picture in (("--from", args.start), ("--to", args.to)):
        ends.append(read_pictures([Path(picture)], record, option).images[:1])
    ends = torch.cat(ends)
    row = way(model, *ends, *model.encoder(ends.long())[0])
    if output.suffix == ".npy":
        content = npy((model.hparams.num_levels - 1) * row)
    else:
        title = f"From {Path(args.start).name} to {Path(args.to).name}{beta_words(model)}"
        content = png(rendered(grid_figure([row], title)))
    write_whole(output, content)
    print(f"{output}: both pictures, and ten images along the line between their latents")


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        description="Draw new digits from a trained model.",
        example="python sample.py VAE_logs/version_0 --label 7 --output sevens.npy",
    )
    add = parser.add_argument
    add_checkpoint(parser, PRETRAINED)
    add("--label", help="only images of this class, by its name")
    add(
        "--from",
        dest="start",
        type=path_name,
        metavar="PICTURE",
        help="picture of your own to begin at, with --to",
    )
    help = "picture of your own to end at: shows the way between the two"
    add("--to", type=path_name, metavar="PICTURE", help=help)
    add("--num", type=whole_number(1, 10_000), default=64, help="number of images")
    add("--mean", action="store_true", help="expected grey levels only, no pixel drawn on its own")
    add(
        "--seed",
        type=whole_number(0, 2**32 - 1),
        default=0,
        help="number that all draws derive from",
    )
    output = "a .png to look at, or a .npy of grey levels, uint8 [N, 28, 28] (float with --mean)"
    add("--output", type=path_name, default="samples.png", help=output)
    return parser


def main(argv: list[str] | None = None) -> None:
    run_main(make_parser(), sample, argv)


if __name__ == "__main__":
    main()
