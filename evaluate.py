"""How good a trained model is, in numbers and pictures: python evaluate.py [CHECKPOINT]

Without a checkpoint it judges the one in pretrained/. The maths is in utils.py.
"""

import argparse
import os
from pathlib import Path

import torch
from lightning_fabric import Fabric

from inputs.command_line import (
    InputError,
    OneLineParser,
    check_output,
    one_line,
    path_name,
    run_main,
    whole_number,
)
from inputs.files import write_whole
from judging.bounds import image_bounds, summary
from judging.handwriting import judge_pictures, read_pictures
from judging.report import (
    PICTURES,
    check_report_folder,
    clear_report,
    codec_bpd,
    table,
    write_report,
    write_scores,
)
from judging.samples import CLASSIFIED_DATASET, NUM_COMPARED, load_classifier, sample_quality
from pictures.figures import png, rendered
from pictures.of_model import model_figures
from reading.choice import DataSets, add_data_options, data_for, training_record
from runs.checkpoints import find_checkpoint
from runs.from_checkpoint import add_checkpoint
from vae import PRETRAINED, VAE, load_model


def find_device(accelerator: str) -> torch.device:
    """The device that Lightning takes for --accelerator; InputError if there is none."""
    try:
        return Fabric(accelerator=accelerator, devices=1).device
    except (ImportError, RuntimeError, ValueError) as error:
        raise InputError(
            f"argument --accelerator: {accelerator!r} cannot be used: choose cpu or auto "
            f"({one_line(error)})"
        ) from error


def evaluate(args: argparse.Namespace) -> None:
    """Judges a model, or pictures by it: writes the report and prints it."""
    for name in ("limit", "per_image"):
        if args.images and getattr(args, name):
            raise InputError(f"argument --{name}: it is not for --images, leave it out")
    path = find_checkpoint(args.checkpoint)
    model = load_model(path, args.model)
    check_report_folder(Path(args.output))
    if args.per_image:
        check_output("--per_image", Path(args.per_image), b"index,label,")
    model.to(find_device(args.accelerator))
    sets = data_for(path, args.dataset, args.data, args.data_dir)
    if args.images:
        evaluate_pictures(args, path, model, sets)
    else:
        evaluate_split(args, path, model, sets)


def evaluate_split(args: argparse.Namespace, path: Path, model: VAE, sets: DataSets) -> None:
    """Judges the model on a split of its images; writes metrics.json and the pictures."""
    data = getattr(sets, args.split).first(args.limit)
    bounds = image_bounds(
        model, data.images, args.iwae_samples, args.batch_size, args.seed, args.progress_bar
    )
    if args.per_image:
        labels = [data.classes[label] if data.classes else "" for label in data.labels.tolist()]
        write_scores(args.per_image, {"index": range(len(data)), "label": labels}, bounds)
    metrics = {
        "checkpoint": path.name,
        "trained_on": sets.trained_on,
        "beta": model.hparams.beta,
        "dataset": sets.name,
        "split": args.split,
        "images": len(data),
        "seed": args.seed,
        "iwae_samples": args.iwae_samples,
        **summary(bounds, data.images.shape),
        "codec_bpd": codec_bpd(data.images),
    }
    kl = bounds["kl_per_dimension"].mean(dim=0)
    figures = model_figures(model, data, bounds["mean"], kl, args.seed)
    classified = sets.name == CLASSIFIED_DATASET
    test = sets.test.first(args.limit)
    test = test if classified else test.first(NUM_COMPARED)
    quality, nearest = sample_quality(model, sets.train, test, args.seed, classified)
    metrics |= quality
    figures["nearest_training_images"] = nearest
    said = write_report(Path(args.output), metrics, figures)
    print(f"{table(metrics)}\nmetrics.json and pictures: {Path(args.output)}{os.sep}{said}")


def evaluate_pictures(args: argparse.Namespace, path: Path, model: VAE, sets: DataSets) -> None:
    """Judges the user's own pictures; writes pictures.csv and pictures.png."""
    found = read_pictures([*map(Path, args.images)], training_record(path))
    classifier = load_classifier() if sets.name == CLASSIFIED_DATASET else None
    columns, bounds, figure, usual = judge_pictures(
        model, found, sets, classifier, args.iwae_samples, args.seed
    )
    output, picture = Path(args.output), png(rendered(figure))
    said = clear_report(output)
    write_scores(output / PICTURES, columns, bounds)
    write_whole(output / "pictures.png", picture)
    count, odd = len(found.names), sum(columns["unusual"])
    bits = sum(columns["bits"]) / count
    lines = [
        f"{count} thing{'s' * (count > 1)} in pictures, {bits:.0f} bits each by the bound with the "
        f"learned prior, where test images have {usual:.0f}; unusual: {odd}",
        *found.notes,
        f"{output / PICTURES} and {output / 'pictures.png'}{said}",
    ]
    print("\n".join(lines))


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        description="Judge a trained model: bounds on its likelihood, latents, samples, pictures.",
        example="python evaluate.py VAE_logs/version_0 --limit 1000",
    )
    add = parser.add_argument
    add_checkpoint(parser, PRETRAINED)
    add("--split", choices=("test", "val", "train"), default="test", help="images to judge it on")
    add(
        "--iwae_samples",
        type=whole_number(1),
        default=64,
        help="samples of z per image, for the importance-weighted bound",
    )
    add(
        "--limit",
        type=whole_number(1),
        help="use only so many images of the split, and as many samples",
    )
    pictures = "judge pictures, or folders of pictures, of your own handwriting instead"
    add("--images", type=path_name, nargs="+", metavar="PATH", help=pictures)
    add("--per_image", type=path_name, metavar="CSV", help="file for the scores of every image")
    add("--batch_size", type=whole_number(1), default=100, help="images at a time")
    output = "folder for metrics.json and the pictures"
    add("--output", type=path_name, default="evaluation", help=output)
    add("--accelerator", default="auto", help="cpu, gpu, cuda, mps, ...")
    add(
        "--seed",
        type=whole_number(0, 2**32 - 1),
        default=42,
        help="number that all noise derives from",
    )
    add("--progress_bar", action="store_true", help="show a progress bar")
    add_data_options(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    run_main(make_parser(), evaluate, argv)


if __name__ == "__main__":
    main()
