"""How good a trained model is, in numbers and pictures: python evaluate.py [CHECKPOINT]

Without a checkpoint it judges the one in pretrained/. The maths is in utils.py.
"""

import argparse
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

import fmnist
from fmnist import DATA_DIR, DATASETS, DiscreteImages
from support.checkpoints import find_checkpoint, trained_on
from support.checks import check_finite
from support.command_line import (
    InputError,
    OneLineParser,
    check_writable,
    nearest_folder,
    run_main,
    whole_number,
)
from support.general_codecs import codec_bytes
from support.pictures import (
    grid_figure,
    interpolation_rows,
    kl_figure,
    latent_figure,
    manifold_figure,
    pairs_figure,
    samples_figure,
    traversal_rows,
)
from train_pl import PRETRAINED, VAE, load_model
from utils import (
    active_units,
    elbo_to_bpd,
    gaussian_log_prob,
    importance_weighted_bpd,
    kl_per_dimension,
    reconstruction_loss,
    unit_gaussian_log_prob,
)

BOUNDS = ("elbo", "importance_weighted", "prior_elbo", "importance_weighted_prior")
NATS = ("reconstruction", "kl", *BOUNDS)  # per image; elbo is its negative
DECODER_BATCH = 200  # latents decoded at a time: the memory that any number of samples needs


def image_noise(indices: range, num_samples: int, z_dim: int, seed: int) -> Iterator[Tensor]:
    """Standard normal noise for these images of a set, in parts: float [k, B, z_dim] each.

    Every image has a stream of its own from (seed, index), so that its noise depends neither on
    the batch that it is in nor on the size of the parts.
    """
    streams = [np.random.default_rng((seed, index)) for index in indices]
    part = max(1, DECODER_BATCH // len(indices))
    for start in range(0, num_samples, part):
        shape = (min(part, num_samples - start), z_dim)
        noise = [stream.standard_normal(shape, dtype=np.float32) for stream in streams]
        yield torch.from_numpy(np.stack(noise, axis=1))


@torch.no_grad()
def judge(
    model: VAE,
    images: Tensor,
    num_samples: int = 64,
    batch_size: int = 100,
    seed: int = 42,
    progress_bar: bool = False,
) -> dict[str, Tensor]:
    """The bounds of every image and its latents.

    Args:
        images: uint8 [N, 1, 28, 28], values 0..15.
        num_samples: K of the importance-weighted bound.
    Returns:
        On the CPU: reconstruction, kl, elbo (negative), importance_weighted, float [N] in nats, the
        first three from one sample of z; elbo_bpd and importance_weighted_bpd, float [N] in bits
        per dimension; the same bounds with the learned prior, prior_elbo and
        importance_weighted_prior; mean, the latent means, and kl_per_dimension, in nats, float
        [N, z_dim].
    """
    device, z_dim = model.decoder.device, model.decoder.z_dim
    batches = []
    for start in tqdm(range(0, len(images), batch_size), unit="batch", disable=not progress_bar):
        imgs = images[start : start + batch_size].long().to(device)
        indices = range(start, start + len(imgs))
        mean, log_std = model.encoder(imgs)
        (one,) = image_noise(indices, 1, z_dim, seed)
        z = mean + log_std.exp() * one[0].to(device)
        noise = (part.to(device) for part in image_noise(indices, num_samples, z_dim, seed))
        L_rec, kl = reconstruction_loss(model.decoder(z), imgs), kl_per_dimension(mean, log_std)
        L_reg = kl.sum(dim=1)
        priors = (unit_gaussian_log_prob, model.prior.log_prob)
        bpd, prior_bpd = importance_weighted_bpd(model.decoder, imgs, mean, log_std, noise, priors)
        prior_elbo = L_rec + gaussian_log_prob(z, mean, log_std) - model.prior.log_prob(z)
        result = {
            "prior_elbo": prior_elbo,
            "prior_elbo_bpd": elbo_to_bpd(prior_elbo, imgs.shape),
            "importance_weighted_prior": prior_bpd * math.log(2) * imgs[0].numel(),
            "importance_weighted_prior_bpd": prior_bpd,
            "reconstruction": L_rec,
            "kl": L_reg,
            "elbo": L_rec + L_reg,
            "elbo_bpd": elbo_to_bpd(L_rec + L_reg, imgs.shape),
            "importance_weighted": bpd * math.log(2) * imgs[0].numel(),
            "importance_weighted_bpd": bpd,
            "mean": mean,
            "kl_per_dimension": kl,
        }
        batches.append({name: value.cpu() for name, value in result.items()})
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def summary(judged: dict[str, Tensor]) -> dict[str, object]:
    """Means over the images with their standard errors, and what the latent dimensions hold."""

    def over_images(name: str) -> dict[str, float | None]:
        values = judged[name].double()
        several = len(values) > 1
        error = values.std().item() / math.sqrt(len(values)) if several else None
        return {"mean": values.mean().item(), "standard_error": error}

    return {
        **{f"{name}_nats": over_images(name) for name in NATS},
        **{f"{name}_bpd": over_images(f"{name}_bpd") for name in BOUNDS},
        "kl_per_dimension_nats": judged["kl_per_dimension"].mean(dim=0).tolist(),
        "active_units": active_units(judged["mean"]),
    }


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
    z = model.prior.sample(64, None, model.TEMPERATURE)
    source = "the learned prior" if model.prior.learned else "N(0, I)"
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


def table(metrics: dict[str, dict]) -> str:
    """The metrics for a reader."""

    def entry(name: str, digits: int) -> str:
        mean, error = metrics[name].values()
        spread = "" if error is None else f" ± {error:.{digits}f}"
        return f"{mean:.{digits}f}{spread}".rjust(18)

    def bound(title: str, name: str) -> str:
        return f"{title:32}{entry(f'{name}_nats', 2)}    {entry(f'{name}_bpd', 4)}"

    K = f"importance-weighted, K = {metrics['iwae_samples']}"
    learned = [
        "with the learned prior:",
        bound("negative ELBO", "prior_elbo"),
        bound(K, "importance_weighted_prior"),
    ]
    if not metrics["learned_prior"]:
        learned = ["the checkpoint has no learned prior: N(0, I) serves as one"]
    lines = [
        f"{metrics['checkpoint']}: {metrics['images']:,} images, {metrics['dataset']} "
        f"{metrics['split']}, seed {metrics['seed']}",
        "",
        f"{'':32}{'nats per image':>18}{'bits per dimension':>22}",
        f"{'reconstruction':32}{entry('reconstruction_nats', 2)}",
        f"{'KL to the unit Gaussian':32}{entry('kl_nats', 2)}",
        bound("negative ELBO", "elbo"),
        bound(K, "importance_weighted"),
        *learned,
        "",
        f"active units: {metrics['active_units']} of {len(metrics['kl_per_dimension_nats'])}",
        "general codecs on the same images, bits per dimension: "
        + ", ".join(f"{name} {bpd:.3f}" for name, bpd in metrics["codec_bpd"].items()),
    ]
    if metrics["trained_on"] is None:
        lines[1:1] = ["the checkpoint does not say what it was trained on"]
    elif metrics["trained_on"] != metrics["dataset"]:
        lines[1:1] = [f"the model was trained on other images, those of {metrics['trained_on']}"]
    return "\n".join(lines)


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


def write_report(output: Path, metrics: dict[str, object], figures: dict[str, Figure]) -> None:
    """metrics.json and the pictures, in place of those of a model that was judged before.

    Raises:
        InputError: they cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=nearest_folder(output), prefix="evaluating-") as stage:
            for name, figure in figures.items():
                figure.savefig(Path(stage, f"{name}.png"))
            Path(stage, "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
            output.mkdir(parents=True, exist_ok=True)
            for file in Path(stage).iterdir():
                os.replace(file, output / file.name)
        for name in {"latent_means", "manifold"} - figures.keys():
            (output / f"{name}.png").unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"argument --output: {error.filename2 or error.filename or output} cannot be written "
            f"({error.strerror}): choose another folder"
        ) from error


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
        "learned_prior": model.prior.learned,
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
    kl = torch.tensor(metrics["kl_per_dimension_nats"])
    figures = pictures(model, data, judged["mean"], kl, args.seed)
    output = Path(args.output)
    write_report(output, metrics, figures)
    print(f"{table(metrics)}\nmetrics.json and pictures: {output}{os.sep}")
    return metrics


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        description="Judge a trained model: bounds on its likelihood, its latents, pictures.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "checkpoint",
        nargs="?",
        default=str(PRETRAINED),
        help="a .ckpt file, or a run's log directory for its best one",
    )
    add("--split", choices=("test", "val", "train"), default="test", help="images to judge it on")
    add("--iwae_samples", type=whole_number(1), default=64, help="z's per image, for the bound")
    add("--limit", type=whole_number(1), help="only the split's first images")
    add("--batch_size", type=whole_number(1), default=100, help="images at a time")
    add("--output", default="evaluation", help="folder for metrics.json and the pictures")
    add("--accelerator", default="auto", help="cpu, gpu, cuda, mps, ...")
    add("--seed", type=whole_number(0, 2**32 - 1), default=42, help="of all noise")
    add("--progress_bar", action="store_true", help="a progress bar")
    add("--data_dir", default=str(DATA_DIR), help="folder of the data files")
    add("--dataset", choices=DATASETS, help="images to judge it on; without, those of its training")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command line: see `run_main`."""
    parser = make_parser()
    run_main(parser, lambda: evaluate(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
