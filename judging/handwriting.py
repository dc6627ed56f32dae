"""Pictures of one's own: what a model, the classifier and the training images say of each."""

import math
from collections.abc import Sequence
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
from reading.choice import DataSets
from reading.pictures import some, things_in, visible

SHOWN = 64  # pictures in the figure at most
NUM_USUAL = 1000  # test images that pictures are compared with


class Handwriting(NamedTuple):
    """Things in pictures: the name of its file and a number for each, and what cannot be read.

    images: uint8 [N, 1, 28, 28], as the model's training images are.
    """

    names: list[tuple[str, int]]
    images: Tensor
    notes: list[str]


def read_pictures(
    paths: Sequence[Path],
    like_mnist: bool | None = None,
    bits: int = 4,
    option: str = "--images",
) -> Handwriting:
    """Pictures, or all in folders and their subfolders, of any size and colours.

    Each thing in a photo is one of its own, see `photographed`; a picture of 28x28 pixels is taken
    as it is, as explore.py's page does it.

    Args:
        like_mnist: what the model's images were, see `read_own`; None for MNIST itself.
        bits: 4 for 16 levels, 1 for two, see `as_bits`.
        option: its name on the command line.
    Raises:
        InputError: there are none that can be read.
    """
    names, images, left_out = [], [], []
    for path in paths:
        for file in visible(path) if path.is_dir() else [path]:
            name = file.relative_to(path if path.is_dir() else path.parent).as_posix()
            try:
                found = things_in(file, like_mnist)
            except (ValueError, ImportError) as error:
                left_out.append(f"{name} ({error})")
                continue
            names += [(name, number) for number in range(1, len(found) + 1)]
            images += found
    notes = [f"left out: {some(left_out)}"] * bool(left_out)
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
        sets: the model's images, with the names of their classes.
        classifier: None where it does not know such images.
        num_samples, seed: see `image_bounds`.
    Returns:
        By column, with a value for each thing: file and thing, its number there; class and
        probability by the classifier; bits, the negative ELBO with the learned prior, and
        log_prior, its log p(z) at the posterior mean in nats, each with its percentile among test
        images; unusual, see `UNUSUAL`; nearest_class and nearest_distance, in grey levels, of the
        nearest training image. Then what `image_bounds` returns, a figure, and the median of the
        test images' bits.
    """
    images, train = found.images, sets.train
    bounds = image_bounds(model, images, num_samples, seed=seed)
    files, numbers = map(list, zip(*found.names, strict=True))
    columns = {"file": files, "thing": numbers}
    captions = [[short(Path(n).stem) + f" {k}" * (files.count(n) > 1) for n, k in found.names]]
    if classifier is not None:
        highest, classes = classify(classifier, images)[1].softmax(dim=1).max(dim=1)
        columns |= {"class": classes.tolist(), "probability": highest.tolist()}
        sure = zip(columns["class"], columns["probability"], strict=True)
        captions.append([f"{label} ({share:.0%})" for label, share in sure])
    of_test = image_bounds(model, sets.test.images[:NUM_USUAL], 1, seed=seed)
    log_prior, usual_log_prior = (
        model.prior.log_prob(each["mean"].to(model.device)).cpu() for each in (bounds, of_test)
    )
    bits, usual_bits = (each["negative_elbo_prior"] / math.log(2) for each in (bounds, of_test))
    lower, higher = percentile(log_prior, usual_log_prior), percentile(bits, usual_bits)
    columns |= {"bits": bits.tolist(), "bits_percentile": higher.tolist()}
    columns |= {"log_prior": log_prior.tolist(), "log_prior_percentile": lower.tolist()}
    columns["unusual"] = ((lower < UNUSUAL) | (higher > 100 - UNUSUAL)).tolist()
    odd = zip(columns["bits"], columns["unusual"], strict=True)
    captions.append([f"{n:.0f} bits" + ", unusual" * unusual for n, unusual in odd])
    distances, positions = nearest(images, train.images, 1)
    labels = train.labels[positions[:, 0]].tolist()
    if train.classes:
        columns["nearest_class"] = [train.classes[label] for label in labels]
    columns["nearest_distance"] = distances[:, 0].tolist()
    shown, white = images[:SHOWN].long(), model.hparams.num_levels - 1
    rows = {
        "picture": shown / white,
        "reconstruction": model.reconstruct(shown.to(model.device)).cpu(),
        "nearest": train.images[positions[:SHOWN, 0]] / white,
    }
    count, median = len(images), usual_bits.median().item()
    which = f"The first {SHOWN} of {count} things" if count > SHOWN else "Your pictures"
    figure = captioned_figure(
        rows,
        ["\n".join(lines) for lines in zip(*captions, strict=True)][:SHOWN],
        f"{which}, how the model draws them, and the nearest training images\n"
        f"Test images have {median:.0f} bits (median)",
    )
    return columns, bounds, figure, median
