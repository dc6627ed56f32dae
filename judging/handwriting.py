"""Pictures of one's own: what a model, the classifier and the training images say of each."""

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from boundary.command_line import InputError, one_line
from fmnist import DiscreteImages, four_bit
from judging.bounds import image_bounds
from judging.classifier import Classifier
from judging.samples import classify, nearest
from own_data import fitted, mnist_form, read_picture, visible
from pictures.figures import captioned_figure, short

SHOWN = 64  # pictures in the figure at most


def read_pictures(path: Path, like_mnist: bool = True) -> tuple[list[str], Tensor]:
    """A picture, or all of a folder and its subfolders, in any size and colours, in 16 levels.

    Args:
        like_mnist: bring each to MNIST's form; else it only becomes as large as it can be.
    Returns:
        their names, and uint8 [N, 1, 28, 28], values 0..15.
    Raises:
        InputError: there are none, or one cannot be read.
    """
    if not path.exists():
        raise InputError(f"argument --images: {path} does not exist: give a folder of pictures")
    entries = visible(path) if path.is_dir() else [path]
    files = [file for entry in entries for file in (visible(entry) if entry.is_dir() else [entry])]
    if not files:
        raise InputError(f"argument --images: {path} has no pictures: put some into it")
    images = []
    for file in files:
        try:
            picture = read_picture(file)
            images.append(mnist_form(picture) if like_mnist else fitted(picture))
        except Exception as error:  # there is no end to what a damaged file can raise
            raise InputError(
                f"argument --images: {file} is no picture that can be used ({one_line(error)}): "
                "take it out, or save it as a PNG"
            ) from error
    pixels = torch.from_numpy(four_bit(np.stack(images)))
    folder = path if path.is_dir() else path.parent
    return [str(file.relative_to(folder)) for file in files], pixels.unsqueeze(1)


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
        names: of the pictures.
        images: uint8 [N, 1, 28, 28], values 0..15.
        train: the model's training images, with the names of their classes.
        classifier: None where it does not know such images.
        num_samples, seed: see `image_bounds`.
    Returns:
        By column, with a value for each picture: file; class and probability by the classifier;
        bits, the negative ELBO with the learned prior; nearest_class and nearest_distance, in grey
        levels, of the nearest training image. Then what `image_bounds` returns, and a figure.
    """
    bounds = image_bounds(model, images, num_samples, seed=seed)
    columns = {"file": names}
    if classifier is not None:
        probabilities, found = classify(classifier, images)[1].softmax(dim=1).max(dim=1)
        columns |= {"class": found.tolist(), "probability": probabilities.tolist()}
    columns["bits"] = (bounds["negative_elbo_prior"] / math.log(2)).tolist()
    distances, positions = nearest(images, train.images, 1)
    labels = train.labels[positions[:, 0]].tolist()
    if train.classes:
        columns["nearest_class"] = [train.classes[label] for label in labels]
    columns["nearest_distance"] = distances[:, 0].tolist()
    captions = [f"{short(Path(name).stem)}\n" for name in names]
    if classifier is not None:
        sure = zip(captions, columns["class"], columns["probability"], strict=True)
        captions = [f"{caption}{label} ({share:.0%})\n" for caption, label, share in sure]
    captions = [
        f"{line}{bits:.0f} bits" for line, bits in zip(captions, columns["bits"], strict=True)
    ]
    reconstructions = [
        model.reconstruct(part.long().to(model.device)).cpu() for part in images.split(100)
    ]
    rows = {
        "picture": images / 15,
        "reconstruction": torch.cat(reconstructions),
        "nearest": train.images[positions[:, 0]] / 15,
    }
    some = f"the first {SHOWN} of {len(names)} pictures" if len(names) > SHOWN else "Your pictures"
    figure = captioned_figure(
        {name: row[:SHOWN] for name, row in rows.items()},
        captions[:SHOWN],
        f"{some}, how the model draws them, and the nearest training images",
    )
    return columns, bounds, figure
