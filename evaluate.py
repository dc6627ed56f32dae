"""How good a trained model is, in numbers and pictures: python evaluate.py [CHECKPOINT]

Without a checkpoint it judges the one in pretrained/. The maths is in utils.py.
"""

import argparse
import os
import signal
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C in the seconds of the imports ends without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import torch
from lightning_fabric import Fabric

import fmnist
from boundary.checkpoints import find_checkpoint
from boundary.command_line import (
    InputError,
    OneLineParser,
    add_checkpoint,
    one_line,
    path_name,
    run_main,
    whole_number,
)
from compression.general_codecs import codec_bytes
from fmnist import DATA_DIR, DATASETS, DiscreteImages, trained_on
from judging.bounds import image_bounds, summary
from judging.refinement import refined_summary
from judging.report import check_report_folder, table, write_report
from judging.samples import CLASSIFIED_DATASET, NUM_COMPARED, sample_quality
from pictures.of_model import model_figures
from train_pl import PRETRAINED, load_model


def load_split(data_dir: str, dataset: str, name: str, limit: int | None) -> DiscreteImages:
    """The first `limit` images of the train, val or test split."""
    fmnist.prepare(data_dir, dataset)
    whole = fmnist.load(data_dir, dataset, train=name != "test")
    if name != "test":
        whole = dict(zip(("train", "val"), fmnist.split(whole), strict=True))[name]
    return whole if limit is None else whole.subset(torch.arange(min(limit, len(whole))))


def find_device(accelerator: str) -> torch.device:
    """The device that Lightning takes for --accelerator; `auto` is the machine's best.

    Raises:
        InputError: the machine has no such device.
    """
    try:
        return Fabric(accelerator=accelerator, devices=1).device
    except (ImportError, RuntimeError, ValueError) as error:
        raise InputError(
            f"argument --accelerator: {accelerator!r} cannot be used: choose cpu or auto "
            f"({one_line(error)})"
        ) from error


def evaluate(args: argparse.Namespace) -> dict[str, object]:
    """Judges a checkpoint, writes metrics.json and the pictures, prints the table; the metrics.

    Raises:
        InputError: the checkpoint, the data, the output directory or the accelerator is unusable.
        FloatingPointError: the model's outputs are not finite numbers.
    """
    path, output = find_checkpoint(args.checkpoint), Path(args.output)
    model, own_dataset = load_model(path), trained_on(path)
    dataset = args.dataset or own_dataset or "MNIST"
    check_report_folder(output)
    model.to(find_device(args.accelerator))
    data = load_split(args.data_dir, dataset, args.split, args.limit)
    bounds = image_bounds(
        model, data.images, args.iwae_samples, args.batch_size, args.seed, args.progress_bar
    )
    sizes = codec_bytes(data.images.squeeze(1).numpy())
    metrics = {
        "checkpoint": path.name,
        "trained_on": own_dataset,
        "dataset": dataset,
        "split": args.split,
        "images": len(data),
        "seed": args.seed,
        "iwae_samples": args.iwae_samples,
        **summary(bounds, data.images.shape),
        "codec_bpd": {name: 8 * size / data.images.numel() for name, size in sizes.items()},
    }
    if args.refine:
        metrics["refined"] = refined_summary(
            model, data.images, bounds, args.refine, args.batch_size, args.seed
        )
    kl = bounds["kl_per_dimension"].mean(dim=0)
    figures = model_figures(model, data, bounds["mean"], kl, args.seed)
    train = load_split(args.data_dir, dataset, "train", None)
    test = load_split(args.data_dir, dataset, "test", args.limit)
    classified = dataset == CLASSIFIED_DATASET
    if not classified:
        test = test.subset(torch.arange(min(len(test), NUM_COMPARED)))
    quality, nearest = sample_quality(model, train, test, args.seed, classified)
    metrics |= quality
    write_report(output, metrics, {**figures, "nearest_training_images": nearest})
    print(f"{table(metrics)}\nmetrics.json and pictures: {output}{os.sep}")
    return metrics


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        description="Judge a trained model: bounds on its likelihood, latents, samples, pictures.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add_checkpoint(parser, PRETRAINED)
    add("--split", choices=("test", "val", "train"), default="test", help="images to judge it on")
    add("--iwae_samples", type=whole_number(1), default=64, help="z's per image, for the bound")
    add("--limit", type=whole_number(1), help="only the split's first images, and as many samples")
    refine = "also judge posteriors improved image by image, by so many gradient steps"
    add("--refine", type=whole_number(0), default=0, metavar="STEPS", help=refine)
    add("--batch_size", type=whole_number(1), default=100, help="images at a time")
    add(
        "--output",
        type=path_name,
        default="evaluation",
        help="folder for metrics.json and the pictures",
    )
    add("--accelerator", default="auto", help="cpu, gpu, cuda, mps, ...")
    add("--seed", type=whole_number(0, 2**32 - 1), default=42, help="of all noise")
    add("--progress_bar", action="store_true", help="a progress bar")
    add("--data_dir", type=path_name, default=str(DATA_DIR), help="folder of the data files")
    add("--dataset", choices=DATASETS, help="images to judge it on; without, those of its training")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command line: see `run_main`."""
    parser = make_parser()
    run_main(parser, lambda: evaluate(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
