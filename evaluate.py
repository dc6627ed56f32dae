"""How good a trained model is, in numbers and pictures: python evaluate.py [CHECKPOINT]

Without a checkpoint it judges the one in pretrained/. The maths is in utils.py.
"""

import argparse
import os
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

import fmnist
from boundary.checkpoints import find_checkpoint
from boundary.checks import check_finite
from boundary.command_line import (
    InputError,
    OneLineParser,
    add_checkpoint,
    check_writable,
    path_name,
    run_main,
    whole_number,
)
from compression.general_codecs import codec_bytes
from fmnist import DATA_DIR, DATASETS, DiscreteImages
from judging.bounds import judge, over_images, summary
from judging.refinement import judge_refined
from judging.report import table, write_report
from judging.samples import (
    KNOWN,
    NUM_COMPARED,
    draw_samples,
    judge_samples,
    load_classifier,
    nearest,
    nearest_figure,
    posterior_latents,
)
from pictures.figures import grid_figure, kl_figure, latent_figure, pairs_figure
from pictures.of_model import interpolation_rows, manifold_figure, samples_figure, traversal_rows
from train_pl import PRETRAINED, VAE, load_model, trained_on


@torch.no_grad()
def pictures(
    model: VAE, data: DiscreteImages, mean: Tensor, kl: Tensor, seed: int
) -> dict[str, Figure]:
    """The figures of a report by file name: what the model draws and what its latents mean.

    Args:
        mean: float [N, z_dim], posterior means of the images.
        kl: float [z_dim], in nats, of each latent dimension.
    """
    torch.manual_seed(seed)
    z = model.sample_latents(64)
    source = "the learned prior" if model.prior.is_trained else "N(0, I)"
    imgs = data.images[:32].long()
    reconstructions = model.reconstruct(imgs.to(model.decoder.device)).cpu()
    most = kl.argsort(descending=True)[:8].tolist()
    figures = {
        "samples": samples_figure(model, z, f"Samples, z from {source}"),
        "reconstructions": pairs_figure(imgs / 15, reconstructions, "Reconstructions"),
        "interpolations": grid_figure(
            interpolation_rows(model.decoder, data.images, data.labels, mean),
            "Interpolations between two images (outermost) along the latent line",
        ),
        "traversals": grid_figure(
            traversal_rows(model.decoder, mean[0], most),
            "Traversals: one latent dimension of an image from -3 to 3",
            [f"$z_{{{dimension + 1}}}$, {kl[dimension]:.1f} nats" for dimension in most],
        ),
        "kl_per_dimension": kl_figure(kl),
    }
    if model.decoder.z_dim > 1 and len(mean) > 1:
        figures["latent_means"] = latent_figure(mean, data.labels)
    if model.decoder.z_dim == 2:
        figures["manifold"] = manifold_figure(model.decoder, "The latent plane, decoded")
    return figures


@torch.no_grad()
def sample_quality(
    model: VAE, train: DiscreteImages, test: DiscreteImages, classified: bool, seed: int
) -> tuple[dict[str, object], Figure]:
    """How good samples are, of each kind as many as test images, and what is only learned by heart.

    Args:
        train: all training images.
        classified: whether the classifier knows such images.
    Returns:
        log_prior_train_nats, log p(z) for one z each of as many training images; samples, see
        `judge_samples`, where they are classified; nearest_training_image, the mean distances
        to it in grey levels, of test images, of samples and, to show what copies would have, of
        posterior_samples; and a picture of eight samples with their nearest training images.
    """
    device, encoded = model.decoder.device, train.subset(torch.arange(len(test)))
    posterior = posterior_latents(model, encoded.images, seed)
    log_prior = torch.cat([model.prior.log_prob(z.to(device)) for z in posterior.split(1000)])
    metrics = {"log_prior_train_nats": over_images(log_prior.cpu())}
    drawn = draw_samples(model, posterior, encoded.labels, seed)
    if classified:
        kinds = {"training_images": encoded.images, **drawn}
        metrics["samples"] = {
            "of_each_kind": len(test),
            "temperature": model.hparams.temperature,
            **judge_samples(load_classifier().to(device), kinds, encoded.labels, test.images),
        }
    samples = drawn.get("learned_prior_by_class", drawn["unit_gaussian"])
    compared = {
        "test_images": test.images,
        "samples": samples,
        "posterior_samples": drawn["posterior_samples"],
    }
    metrics["nearest_training_image"] = {"of_each_kind": min(len(test), NUM_COMPARED)} | {
        name: over_images(nearest(images[:NUM_COMPARED], train.images, 1)[0])
        for name, images in compared.items()
    }
    return metrics, nearest_figure(samples[:8], train.images)


def load_split(data_dir: str, dataset: str, name: str, limit: int | None) -> DiscreteImages:
    """The first `limit` images of the train, val or test split."""
    fmnist.prepare(data_dir, dataset)
    whole = fmnist.load(data_dir, dataset, train=name != "test")
    if name != "test":
        whole = dict(zip(("train", "val"), fmnist.split(whole), strict=True))[name]
    return whole if limit is None else whole.subset(torch.arange(min(limit, len(whole))))


def find_device(name: str) -> torch.device:
    """The device that --accelerator means: `auto` is the machine's accelerator, if it has one.

    Raises:
        InputError: the machine has no such device.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    if name == "cpu" or (name == "auto" and found is None):
        return torch.device("cpu")
    if found is not None and name in ("auto", "gpu", found.type):
        return found
    has = "cpu" if found is None else f"cpu and {found.type}"
    raise InputError(f"argument --accelerator: {name!r} is not on this machine, which has {has}")


def evaluate(args: argparse.Namespace) -> dict[str, object]:
    """Judges a checkpoint, writes metrics.json and the pictures, prints the table; the metrics.

    Raises:
        InputError: the checkpoint, the data, the output directory or the accelerator is unusable.
        FloatingPointError: the model's outputs are not finite numbers.
    """
    path = find_checkpoint(args.checkpoint)
    model, own_dataset = load_model(path), trained_on(path)
    dataset = args.dataset or own_dataset or "MNIST"
    check_writable("--output", args.output)
    model.to(find_device(args.accelerator))
    data = load_split(args.data_dir, dataset, args.split, args.limit)
    judged = judge(
        model, data.images, args.iwae_samples, args.batch_size, args.seed, args.progress_bar
    )
    check_finite(*judged.values())
    metrics = {
        "checkpoint": path.name,
        "trained_on": own_dataset,
        "learned_prior": model.prior.is_trained,
        "dataset": dataset,
        "split": args.split,
        "images": len(data),
        "seed": args.seed,
        "iwae_samples": args.iwae_samples,
        **summary(judged),
        "codec_bpd": {
            name: 8 * size / data.images.numel()
            for name, size in codec_bytes(data.images.squeeze(1).numpy()).items()
        },
    }
    if args.refine:
        how = (args.refine, args.batch_size, args.seed)
        metrics["refined"] = judge_refined(model, data.images, judged, *how)
    kl = torch.tensor(metrics["kl_per_dimension_nats"])
    figures = pictures(model, data, judged["mean"], kl, args.seed)
    train = load_split(args.data_dir, dataset, "train", None)
    test = load_split(args.data_dir, dataset, "test", args.limit)
    if dataset != KNOWN:
        test = test.subset(torch.arange(min(len(test), NUM_COMPARED)))
    measured, figure = sample_quality(model, train, test, dataset == KNOWN, args.seed)
    metrics |= measured
    figures["nearest_training_images"] = figure
    output = Path(args.output)
    write_report(output, metrics, figures)
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
