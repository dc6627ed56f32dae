"""The report on a model: the table that is printed, metrics.json and the pictures."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from boundary.command_line import InputError, check_writable
from boundary.files import write_whole
from judging.bounds import BOUNDS
from judging.samples import DISTANCE_FROM
from pictures.figures import png, rendered
from runs.result import beta_note

METRICS = "metrics.json"
PICTURES = "pictures.csv"  # of --images
NOT_OF_EVERY_MODEL = ("latent_means.png", "manifold.png")  # pictures, by the number of latents
SAMPLES = {
    "training_images": "training images",
    "posterior_samples": "training images, encoded and drawn",
    "unit_gaussian": "z from N(0, I)",
    "learned_prior": "z from the learned prior",
    "learned_prior_by_class": "the same, class by class",
}
# By benchmarks/distance.py: what the distance of perfect samples would be.
OF_REAL_DIGITS = "0.23 ± 0.06 of 1,000 each, 0.15 ± 0.05 of 2,000, 0.05 ± 0.01 of 5,000"


def table(metrics: dict[str, dict]) -> str:
    """The metrics for a reader."""
    codecs = ", ".join(f"{name} {bpd:.3f}" for name, bpd in metrics["codec_bpd"].items())
    lines = [
        f"{metrics['checkpoint']}: {metrics['images']:,} images, {metrics['dataset']} "
        f"{metrics['split']}, seed {metrics['seed']}"
    ]
    if metrics["trained_on"] is None:
        lines.append("the checkpoint does not say what it was trained on")
    elif metrics["trained_on"] != metrics["dataset"]:
        lines.append(f"the model was trained on other images, those of {metrics['trained_on']}")
    if note := beta_note(metrics.get("beta", 1)):
        lines.append(note)
    lines += ["", *_bounds(metrics)]
    if "refined" in metrics:
        lines += _refined(metrics["refined"])
    lines += [
        "",
        f"active units: {metrics['active_units']} of {len(metrics['kl_per_dimension_nats'])}",
        f"general codecs on the same images, bits per dimension: {codecs}",
        "",
    ]
    if "samples" in metrics:
        lines += _samples(metrics["samples"])
    nearest = metrics["nearest_training_image"]
    titles = {"test_images": "test images", "samples": "samples"}
    titles["posterior_samples"] = SAMPLES["posterior_samples"]
    distances = "; ".join(f"{title} {_entry(nearest[name], 1)}" for name, title in titles.items())
    number = f"{nearest['of_each_kind']:,}"
    lines.append(f"grey levels to the nearest training image, means of {number}: {distances}")
    return "\n".join(lines)


def _entry(value: dict[str, float | None], digits: int) -> str:
    mean, error = value.values()
    return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _row(title: str, nats: dict, bpd: dict | None = None) -> str:
    bits = "" if bpd is None else f"{_entry(bpd, 4):>22}"
    return f"{title:32}{_entry(nats, 2):>18}{bits}"


def _bounds(metrics: dict[str, dict]) -> list[str]:
    def bound(title: str, name: str) -> str:
        return _row(title, metrics[f"{name}_nats"], metrics[f"{name}_bpd"])

    K = f"importance-weighted, K = {metrics['iwae_samples']}"
    lines = [
        f"{'':32}{'nats per image':>18}{'bits per dimension':>22}",
        _row("reconstruction", metrics["reconstruction_nats"]),
        _row("KL to the unit Gaussian", metrics["kl_nats"]),
        bound("negative ELBO", "negative_elbo"),
        bound(K, "importance_weighted"),
        "with the learned prior:",
        bound("negative ELBO", "negative_elbo_prior"),
        bound(K, "importance_weighted_prior"),
        _row("gain in log p(z) over N(0, I)", metrics["prior_gain_nats"]),
    ]
    if metrics["split"] != "train":
        train, judged = metrics["log_prior_train_nats"], metrics["log_prior_nats"]
        errors = train["standard_error"], judged["standard_error"]
        error = None if None in errors else math.hypot(*errors)  # of a difference of other images
        apart = {"mean": train["mean"] - judged["mean"], "standard_error": error}
        lines.append(_row(f"log p(z), training - {metrics['split']}", apart))
    return lines


def _refined(refined: dict[str, dict]) -> list[str]:
    lines = [f"posteriors refined by {refined['steps']} steps for each image:"]
    titles = {
        "negative_elbo": "negative ELBO",
        "negative_elbo_prior": "the same with the learned prior",
    }
    for name, title in titles.items():
        nats, bpd, gain, seconds = refined[name].values()
        lines.append(f"{_row(title, nats, bpd)}    {_entry(gain, 4)} lower, {seconds:.0f} s")
    return lines


def _samples(samples: dict[str, object]) -> list[str]:
    def share(value: float | None, width: int) -> str:
        return f"{'-' if value is None else f'{value:.3f}':>{width}}"

    images = f"{samples['of_each_kind']:,} images each, for a classifier"
    lines = [f"{images:44}{'Fréchet distance':>16}{'P > 0.9':>9}{'right class':>14}"]
    for name, title in SAMPLES.items():
        if name not in samples:  # by class, of a model of other classes
            continue
        if name == "learned_prior":
            title += f", T = {samples['temperature']:g}"
        distance, sure, right = samples[name].values()
        lines.append(f"{title:44}{share(distance, 16)}{share(sure, 9)}{share(right, 14)}")
    if samples["of_each_kind"] < DISTANCE_FROM:
        lines.append(f"Fréchet distance: from {DISTANCE_FROM:,} images on")
    else:
        lines.append(f"Fréchet distance of two sets of real digits: {OF_REAL_DIGITS}")
    return lines


def check_report_folder(output: Path) -> None:
    """Raises InputError unless the folder is new, empty or that of an earlier report.

    No other file is ever replaced, such as a run's own latent_means.png.
    """
    check_writable("--output", output)
    earlier = output / METRICS
    own = (output / PICTURES).is_file() or (
        earlier.is_file() and "negative_elbo_bpd" in earlier.read_text(errors="replace")
    )
    if output.is_dir() and any(output.iterdir()) and not own:
        raise InputError(
            f"argument --output: {output} has other files than a report's: choose a new folder"
        )


def scores_csv(columns: Mapping[str, Sequence], bounds: Mapping[str, Tensor]) -> bytes:
    """A table with a row for each image: the columns, then its bounds and their parts in nats.

    Args:
        bounds: what `image_bounds` returned.
    """
    nats = {f"{name}_nats": bounds[name].tolist() for name in ("reconstruction", "kl", *BOUNDS)}
    table = {**columns, **nats}
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table)
    for row in zip(*table.values(), strict=True):
        writer.writerow(f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row)
    return file.getvalue().encode()


def write_report(output: Path, metrics: dict[str, object], figures: dict[str, Figure]) -> None:
    """metrics.json and the pictures, in place of those of a model that was judged before.

    Raises:
        OSError: they cannot be written.
    """
    files = {METRICS: (json.dumps(metrics, indent=2) + "\n").encode()}
    write_files(
        output, files | {f"{name}.png": png(rendered(figure)) for name, figure in figures.items()}
    )
    for name in set(NOT_OF_EVERY_MODEL) - {f"{name}.png" for name in figures}:
        Path(output, name).unlink(missing_ok=True)


def write_files(output: Path, files: Mapping[str, bytes]) -> None:
    """Files of a report by name, whole each, in a folder that is made if need be."""
    output.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_whole(output / name, content)
