"""The report on a model: the table that is printed, metrics.json and the pictures."""

import bz2
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from inputs.command_line import InputError, check_writable
from inputs.files import write_csv, write_whole
from judging.bounds import BOUNDS
from judging.samples import DISTANCE_FROM
from pictures.figures import png, rendered

METRICS = "metrics.json"
PICTURES = "pictures.csv"  # of --images
# What pictures of a report can be called.
FIGURES = ("samples", "reconstructions", "interpolations", "traversals", "kl_per_dimension")
FIGURES += ("latent_means", "manifold", "nearest_training_images", "pictures")
SAMPLES = {
    "training_images": "training images",
    "posterior_samples": "training images, encoded and drawn",
    "unit_gaussian": "z from N(0, I)",
    "learned_prior": "z from the learned prior",
    "learned_prior_by_class": "the same, class by class",
}
# By benchmarks/distance.py: what the distance of perfect samples would be.
OF_REAL_DIGITS = "0.23 ± 0.06 of 1,000 each, 0.15 ± 0.05 of 2,000, 0.05 ± 0.01 of 5,000"


def beta_note(beta: float) -> str:
    """What must stand beside the bounds of a model with a beta; nothing without."""
    if beta == 1:
        return ""
    return f"trained with beta {beta:g}; all bounds are the ELBO's, where the KL has weight 1"


def of_test(result: Mapping[str, object]) -> str:
    """What a run says of its best model: both bounds, and hints if it has not learned."""
    lines = [
        "\nTest of the best checkpoint (by the validation bpd with the unit Gaussian):",
        f"unit Gaussian  {result['test_bpd']:.4f} bpd"
        f" = {result['test_reconstruction_loss']:.1f} nats reconstruction"
        f" + {result['test_regularization_loss']:.1f} nats KL",
        f"learned prior  {result['test_prior_bpd']:.4f} bpd",
    ]
    if "note" in result:
        lines.append(f"Note:          {result['note']}")
    lines += not_learned(result["test_prior_bpd"], result["codec_bpd"])
    if result.get("test_active_units") == 0 and result["test_regularization_loss"] < 2:
        lines.append(
            "No latent is active: no mean varies over the images by a variance above 0.01, z says "
            "next to nothing. Give more --epochs or a smaller --beta"
        )
    return "\n".join(lines)


def codec_bpd(images: Tensor) -> dict[str, float]:
    """Bits per dimension that bz2 needs for images uint8 [N, 1, H, W], for comparison."""
    return {"bz2": 8 * len(bz2.compress(images.cpu().contiguous().numpy())) / images.numel()}


def not_learned(bpd: float, codecs: Mapping[str, float]) -> list[str]:
    """A line of warning if bz2 needs no more bits per dimension than the model's bound."""
    if bpd < codecs["bz2"]:
        return []
    says = f"bz2 needs only {codecs['bz2']:.2f} bits per dimension of the same images, the model"
    return [f"{says} {bpd:.2f}: it has not learned them. Train longer, with more --epochs"]


def table(metrics: dict[str, dict]) -> str:
    """The metrics for a reader."""
    lines = [
        f"{metrics['checkpoint']}: {metrics['images']:,} images, {metrics['dataset']} "
        f"{metrics['split']}, seed {metrics['seed']}"
    ]
    if metrics["trained_on"] is None:
        lines.append("the checkpoint does not say what it was trained on")
    elif metrics["trained_on"] != metrics["dataset"]:
        lines.append(f"the model was trained on other images, those of {metrics['trained_on']}")
    if note := beta_note(metrics["beta"]):
        lines.append(note)
    lines += [
        "",
        *_bounds(metrics),
        "",
        f"active units: {metrics['active_units']} of {len(metrics['kl_per_dimension_nats'])}",
        "a general codec on the same images, bits per dimension: "
        f"bz2 {metrics['codec_bpd']['bz2']:.3f}",
        *not_learned(metrics["negative_elbo_prior_bpd"]["mean"], metrics["codec_bpd"]),
        "",
        *(_samples(metrics["samples"]) if "samples" in metrics else ()),
    ]
    nearest = metrics["nearest_training_image"]
    titles = {"test_images": "test images", "samples": "samples"}
    titles["posterior_samples"] = SAMPLES["posterior_samples"]
    distances = "; ".join(f"{title} {_entry(nearest[name], 1)}" for name, title in titles.items())
    number = f"{nearest['of_each_kind']:,}"
    lines.append(f"grey levels to the nearest training image, means of {number}: {distances}")
    return "\n".join(lines)


def _entry(value: dict[str, float | None] | None, digits: int) -> str:
    """A mean and its standard error, as far as they are known."""
    mean, error = value.values() if value else (None, None)
    shown = "" if mean is None else f"{mean:.{digits}f}"
    return shown if error is None else f"{shown} ± {error:.{digits}f}"


def _row(title: str, nats: dict | None, bpd: dict | None = None) -> str:
    return f"{title:32}{_entry(nats, 2):>18}{_entry(bpd, 4):>22}".rstrip()


def _bounds(metrics: dict[str, dict]) -> list[str]:
    K = f"importance-weighted, K = {metrics['iwae_samples']}"
    titles = {
        "reconstruction": "reconstruction",
        "kl": "KL to the unit Gaussian",
        "negative_elbo": "negative ELBO",
        "importance_weighted": K,
        "": "with the learned prior:",
        "negative_elbo_prior": "negative ELBO",
        "importance_weighted_prior": K,
        "prior_gain": "gain in log p(z) over N(0, I)",
    }
    lines = [f"{'':32}{'nats per image':>18}{'bits per dimension':>22}"]
    for name, title in titles.items():
        lines.append(_row(title, metrics.get(f"{name}_nats"), metrics.get(f"{name}_bpd")))
    if metrics["split"] != "train":  # does the prior overfit?
        train, judged = metrics["log_prior_train_nats"], metrics["log_prior_nats"]
        errors = train["standard_error"], judged["standard_error"]
        error = None if None in errors else math.hypot(*errors)  # of a difference of other images
        apart = {"mean": train["mean"] - judged["mean"], "standard_error": error}
        lines.append(_row(f"log p(z), training - {metrics['split']}", apart))
    return lines


def _samples(samples: dict[str, object]) -> list[str]:
    line = "{:44}{:>16}{:>9}{:>14}".format
    images = f"{samples['of_each_kind']:,} images each, for a classifier"
    lines = [line(images, "Fréchet distance", "P > 0.9", "right class")]
    for name, title in SAMPLES.items():
        if name in samples:  # by class, none of a model of other classes
            if name == "learned_prior":
                title += f", T = {samples['temperature']:g}"
            shown = ("-" if value is None else f"{value:.3f}" for value in samples[name].values())
            lines.append(line(title, *shown))
    known = f"Fréchet distance of two sets of real digits: {OF_REAL_DIGITS}"
    too_few = f"Fréchet distance: from {DISTANCE_FROM:,} images on"
    return [*lines, too_few if samples["of_each_kind"] < DISTANCE_FROM else known]


def check_report_folder(output: Path) -> None:
    """Raises InputError unless the folder is new, empty or that of an earlier report.

    No other file is ever replaced, such as a run's own latent_means.png.
    """
    check_writable("--output", output)
    if output.is_dir() and any(output.iterdir()) and not earlier_report(output):
        raise InputError(
            f"argument --output: {output} has other files than a report's: choose a new folder"
        )


def earlier_report(output: Path) -> bool:
    """Whether a folder has a report, which a new one may replace."""
    metrics = output / METRICS
    return (output / PICTURES).is_file() or (
        metrics.is_file() and "negative_elbo_bpd" in metrics.read_text(errors="replace")
    )


def write_scores(path: Path, columns: Mapping[str, Sequence], bounds: Mapping[str, Tensor]) -> None:
    """A table with a row per image: the columns, then what `image_bounds` returned, in nats."""
    nats = {f"{name}_nats": bounds[name].tolist() for name in ("reconstruction", "kl", *BOUNDS)}
    scores = {
        name: [f"{cell:.4f}" if isinstance(cell, float) else cell for cell in column]
        for name, column in {**columns, **nats}.items()
    }
    rows = zip(*scores.values(), strict=True)
    write_csv(path, [dict(zip(scores, row, strict=True)) for row in rows])


def clear_report(output: Path) -> str:
    """Removes the report that is in a folder; returns words that say so, if there was one."""
    replaced = earlier_report(output)
    for name in (METRICS, PICTURES, *(f"{figure}.png" for figure in FIGURES)):
        (output / name).unlink(missing_ok=True)
    return ", in place of the report that was there" if replaced else ""


def write_report(output: Path, metrics: dict[str, object], figures: dict[str, Figure]) -> str:
    """Writes metrics.json and the pictures; see `clear_report`."""
    pictures = {name: png(rendered(figure)) for name, figure in figures.items()}
    said = clear_report(output)
    write_whole(output / METRICS, (json.dumps(metrics, indent=2) + "\n").encode())
    for name, picture in pictures.items():
        write_whole(output / f"{name}.png", picture)
    return said
