"""Pictures of one's own: what a model, the classifier and the training images say of each."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from fmnist import as_bits
from inputs.command_line import InputError
from judging.bounds import image_bounds
from judging.classifier import Classifier
from judging.percentiles import UNUSUAL, percentile
from judging.samples import classify, nearest
from pictures.figures import captioned_figure, short
from reading.choice import DataSets, bits_of
from reading.photo import things_in
from reading.pictures import some, visible

SHOWN = 64  # pictures in the figure at most
NUM_USUAL = 1000  # test images that pictures are compared with


class Handwriting(NamedTuple):
    """The things that were found in pictures."""

    names: list[tuple[str, int]]  # of each thing: its file, and its number there
    images: Tensor  # uint8 [N, 1, 28, 28], grey levels as the model's training images have them
    notes: list[str]  # what was left out


def read_pictures(
    paths: Sequence[Path], record: Mapping[str, object], option: str = "--images"
) -> Handwriting:
    """The things in pictures, and in all pictures of folders and their subfolders.

    Args:
        record: the model's `training_record`, which says how its images were made.
        option: the command line's name for the paths.
    Raises:
        InputError: none of them can be read, or the model's images have other grey levels.
    """
    names, images, left_out, notes = [], [], [], []
    like_mnist, bits = record.get("like_mnist"), bits_of(record)
    for path in paths:
        for file in visible(path) if path.is_dir() else [path]:
            name = file.relative_to(path if path.is_dir() else path.parent).as_posix()
            try:
                found = things_in(file, like_mnist)
            except (ValueError, ImportError) as error:
                left_out.append(f"{name} ({error})")
            else:
                names += [(name, number) for number in range(1, len(found) + 1)]
                images += found
    if left_out:
        notes.append(f"left out: {some(left_out)}")
    if not images:
        why = notes[0] if notes else f"there are no pictures in {', '.join(map(str, paths))}"
        raise InputError(f"argument {option}: {why}")
    if several := [name for name, number in names if number == 2]:
        notes.append(f"several things in one picture, each taken for itself: {some(several)}")
    data = as_bits(np.stack(images), np.zeros(len(images), np.int64), (), bits)
    return Handwriting(names, data.images, notes)


@torch.no_grad()
def judge_pictures(
    model: nn.Module,
    found: Handwriting,
    sets: DataSets,
    classifier: Classifier | None,
    num_samples: int,
    seed: int,
) -> tuple[dict[str, list], dict[str, Tensor], Figure, float]:
    """How well a model knows pictures that it was not trained on, and what is in them.

    Args:
        sets: the images of the model's training.
        classifier: None if it does not know such images.
        num_samples, seed: see `image_bounds`.
    Returns:
        The columns of a table with a row for each thing, what `image_bounds` returns, a figure, and
        the median of the test images' bits. In the table, bits are the negative ELBO with the
        learned prior, log_prior is log p(z) at the posterior mean, in nats, and percentiles are
        among test images.
    """
    images, train = found.images, sets.train
    columns = {"file": [file for file, _ in found.names], "thing": [n for _, n in found.names]}
    if classifier is not None:
        highest, classes = classify(classifier, images)[1].softmax(dim=1).max(dim=1)
        columns |= {"class": classes.tolist(), "probability": highest.tolist()}
    bounds = image_bounds(model, images, num_samples, seed=seed)
    of_test = image_bounds(model, sets.test.images[:NUM_USUAL], 1, seed=seed)
    log_prior, usual_log_prior = (
        model.prior.log_prob(each["mean"].to(model.device)).cpu() for each in (bounds, of_test)
    )
    bits, usual_bits = (each["negative_elbo_prior"] / math.log(2) for each in (bounds, of_test))
    lower, higher = percentile(log_prior, usual_log_prior), percentile(bits, usual_bits)
    columns |= {"bits": bits.tolist(), "bits_percentile": higher.tolist()}
    columns |= {"log_prior": log_prior.tolist(), "log_prior_percentile": lower.tolist()}
    columns["unusual"] = ((lower < UNUSUAL) | (higher > 100 - UNUSUAL)).tolist()
    distances, positions = nearest(images, train.images, 1)
    if train.classes:
        labels = train.labels[positions[:, 0]].tolist()
        columns["nearest_class"] = [train.classes[label] for label in labels]
    columns["nearest_distance"] = distances[:, 0].tolist()
    captions = []
    for n, (file, number) in enumerate(found.names[:SHOWN]):
        lines = [short(Path(file).stem) + f" {number}" * ((file, 2) in found.names)]
        if classifier is not None:
            lines.append(f"{columns['class'][n]} ({columns['probability'][n]:.0%})")
        lines.append(f"{columns['bits'][n]:.0f} bits" + ", unusual" * columns["unusual"][n])
        captions.append("\n".join(lines))
    shown, white = images[:SHOWN].long(), model.hparams.num_levels - 1
    rows = {
        "picture": shown / white,
        "reconstruction": model.reconstruct(shown.to(model.device)).cpu(),
        "nearest": train.images[positions[:SHOWN, 0]] / white,
    }
    count, median = len(images), usual_bits.median().item()
    which = f"The first {SHOWN} of {count} things" if count > SHOWN else "Your pictures"
    title = f"{which}, how the model draws them, and the nearest training images"
    title += f"\nTest images have {median:.0f} bits (median)"
    return columns, bounds, captioned_figure(rows, captions, title), median
