"""Pictures of one's own: what a model, the classifier and the training images say of each."""

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from fmnist import DiscreteImages, as_bits
from inputs.command_line import InputError
from judging.bounds import image_bounds
from judging.classifier import Classifier
from judging.samples import classify, nearest
from pictures.figures import captioned_figure, short
from reading.names import visible
from reading.pictures import read_picture

SHOWN = 64  # pictures in the figure at most


def read_pictures(path: Path, like_mnist: bool = True, bits: int = 4) -> tuple[list[str], Tensor]:
    """A picture, or all of a folder and its subfolders, in any size and colours, as the model's.

    Args:
        like_mnist: bring each to MNIST's form; else it only becomes as large as it can be.
        bits: 4 for 16 levels, 1 for two, see `as_bits`.
    Returns:
        their names, and uint8 [N, 1, 28, 28], values below 2**bits.
    Raises:
        InputError: there are none, or one cannot be read.
    """
    if not path.exists():
        raise InputError(f"argument --images: {path} does not exist: give a folder of pictures")
    files = visible(path) if path.is_dir() else [path]
    if not files:
        raise InputError(f"argument --images: {path} has no pictures: put some into it")
    images = []
    for file in files:
        try:
            images.append(read_picture(file, like_mnist))
        except ValueError as error:
            remedy = "take it out, or save it as a PNG"
            raise InputError(f"argument --images: {file}: {error}: {remedy}") from error
    data = as_bits(np.stack(images), np.zeros(len(images), np.int64), (), bits)
    folder = path if path.is_dir() else path.parent
    return [str(file.relative_to(folder)) for file in files], data.images


@torch.no_grad()
def judge_pictures(
    model: nn.Module,
    names: list[str],
    images: Tensor,
    train: DiscreteImages,
    classifier: Classifier | None,
    num_samples: int,
    seed: int,
) -> tuple[dict[str, list], dict[str, Tensor], Figure]:
    """How well a model knows pictures that it was not trained on, and what is in them.

    Args:
        names, images: see `read_pictures`.
        train: the model's training images, with the names of their classes.
        classifier: None where it does not know such images.
        num_samples, seed: see `image_bounds`.
    Returns:
        By column, with a value for each picture: file; class and probability by the classifier;
        bits, the negative ELBO with the learned prior; nearest_class and nearest_distance, in grey
        levels, of the nearest training image. Then what `image_bounds` returns, and a figure.
    """
    bounds = image_bounds(model, images, num_samples, seed=seed)
    columns, captions = {"file": names}, [[short(Path(name).stem) for name in names]]
    if classifier is not None:
        highest, found = classify(classifier, images)[1].softmax(dim=1).max(dim=1)
        columns |= {"class": found.tolist(), "probability": highest.tolist()}
        sure = zip(columns["class"], columns["probability"], strict=True)
        captions.append([f"{label} ({share:.0%})" for label, share in sure])
    columns["bits"] = (bounds["negative_elbo_prior"] / math.log(2)).tolist()
    captions.append([f"{bits:.0f} bits" for bits in columns["bits"]])
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
    some = f"the first {SHOWN} of {len(names)} pictures" if len(names) > SHOWN else "Your pictures"
    figure = captioned_figure(
        rows,
        ["\n".join(lines) for lines in zip(*captions, strict=True)][:SHOWN],
        f"{some}, how the model draws them, and the nearest training images",
    )
    return columns, bounds, figure
