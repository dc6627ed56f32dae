"""The report on a model: the table that is printed, metrics.json and the pictures."""

import json
import math
import os
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from boundary.command_line import InputError, nearest_folder

SAMPLES = {
    "training_images": "training images",
    "posterior_samples": "training images, encoded and drawn",
    "unit_gaussian": "z from N(0, I)",
    "learned_prior": "z from the learned prior",
    "learned_prior_by_class": "the same, class by class",
}


def table(metrics: dict[str, dict]) -> str:
    """The metrics for a reader."""
    lines = [
        f"{metrics['checkpoint']}: {metrics['images']:,} images, {metrics['dataset']} "
        f"{metrics['split']}, seed {metrics['seed']}",
        *_origin(metrics),
        "",
        *_bounds(metrics),
        "",
        f"active units: {metrics['active_units']} of {len(metrics['kl_per_dimension_nats'])}",
        "general codecs on the same images, bits per dimension: "
        + ", ".join(f"{name} {bpd:.3f}" for name, bpd in metrics["codec_bpd"].items()),
        "",
        *(_samples(metrics["samples"]) if "samples" in metrics else []),
        *_nearest(metrics["nearest_training_image"]),
    ]
    return "\n".join(lines)


def _origin(metrics: dict[str, dict]) -> list[str]:
    if metrics["trained_on"] is None:
        return ["the checkpoint does not say what it was trained on"]
    if metrics["trained_on"] != metrics["dataset"]:
        return [f"the model was trained on other images, those of {metrics['trained_on']}"]
    return []


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
        bound("negative ELBO", "elbo"),
        bound(K, "importance_weighted"),
    ]
    if metrics["learned_prior"]:
        lines += [
            "with the learned prior:",
            bound("negative ELBO", "prior_elbo"),
            bound(K, "importance_weighted_prior"),
            _row("gain in log p(z) over N(0, I)", metrics["prior_gain_nats"]),
        ]
        if metrics["split"] != "train":
            title = f"log p(z), training - {metrics['split']}"
            lines += [_row(title, _difference(metrics, "log_prior_train_nats", "log_prior_nats"))]
    else:
        lines += ["the checkpoint has no learned prior: N(0, I) serves as one"]
    if refined := metrics.get("refined"):
        lines += [f"posteriors refined by {refined['steps']} steps for each image:"]
        titles = {"elbo": "negative ELBO", "prior_elbo": "the same with the learned prior"}
        for name, title in titles.items():
            if name in refined:
                nats, bpd, gain, seconds = refined[name].values()
                lines += [f"{_row(title, nats, bpd)}    {_entry(gain, 4)} lower, {seconds:.0f} s"]
    return lines


def _difference(metrics: dict[str, dict], name: str, other: str) -> dict[str, float | None]:
    """The difference of two means over different images."""
    (mean, error), (other_mean, other_error) = metrics[name].values(), metrics[other].values()
    spread = None if None in (error, other_error) else math.hypot(error, other_error)
    return {"mean": mean - other_mean, "standard_error": spread}


def _samples(samples: dict[str, object]) -> list[str]:
    def share(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    images = f"{samples['of_each_kind']:,} images each, for a classifier"
    lines = [f"{images:44}{'Fréchet distance':>16}{'P > 0.9':>9}{'right class':>14}"]
    for name, title in SAMPLES.items():
        if name not in samples:
            continue
        if name == "learned_prior":
            title += f", T = {samples['temperature']:g}"
        distance, sure, right = samples[name].values()
        lines += [f"{title:44}{share(distance, 3):>16}{share(sure, 3):>9}{share(right, 3):>14}"]
    return lines


def _nearest(nearest: dict[str, object]) -> list[str]:
    titles = {"test_images": "test images", "samples": "samples"}
    titles["posterior_samples"] = SAMPLES["posterior_samples"]
    return [
        f"grey levels to the nearest training image, means of {nearest['of_each_kind']:,}: "
        + "; ".join(f"{title} {_entry(nearest[name], 1)}" for name, title in titles.items())
    ]


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
