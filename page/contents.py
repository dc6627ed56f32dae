"""What explore.py writes into the page: models, test images, and results for its self-test."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torchvision import datasets

import fmnist
from fmnist import DiscreteImages
from inputs.checks import check_finite
from judging.percentiles import hundredths
from page.layers import networks, packed, weights_at
from pictures.figures import CLASS_COLOURS
from pictures.of_model import encoded
from reading.choice import DataSets
from utils import KLD, elbo_to_bpd, kl_per_dimension, reconstruction_loss

PARTS = Path(__file__).resolve().parent  # page.html and what it takes in
NUM_JUDGED = 2000  # test images that say what is usual, and are the points of a map
PER_CLASS = 2  # test images in the page, from each of the classes; the self-test uses them
CHECKED = 16  # the self-test compares every 16th pixel's logits, for every image of other pixels
NUM_DRAWS = 5000  # from the learned prior, for the ends of the sliders
SEED = 42
NOUNS = {"MNIST": "digit", "FashionMNIST": "garment", "KMNIST": "character"}


class Shown(NamedTuple):
    """A model of the page."""

    name: str
    model: nn.Module
    epochs: Sequence[tuple[float, nn.Module]] = ()  # see `kept_epochs`


def examples(data: DiscreteImages) -> DiscreteImages:
    """The first images of every class, one class after the other."""
    labels = range(int(data.labels.max()) + 1)
    firsts = [(data.labels == label).nonzero()[:PER_CLASS, 0] for label in labels]
    return data.subset(torch.cat(firsts))


@torch.no_grad()
def outputs(model: nn.Module, imgs: Tensor) -> dict[str, Tensor]:
    """What PyTorch computes for images long [N, 1, 28, 28] in 0..L-1, with one z each.

    Returns:
        noise, mean, logStd and z, float [N, z_dim]; logits, float [N, L, 28, 28]; bpd, float [N].
    """
    mean, log_std = encoded(model, imgs)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(SEED))
    z = mean + log_std.exp() * noise
    logits = torch.cat([model.decoder(part) for part in z.split(250)])
    bpd = elbo_to_bpd(reconstruction_loss(logits, imgs) + KLD(mean, log_std), imgs.shape)
    computed = {"noise": noise, "mean": mean, "logStd": log_std, "z": z, "logits": logits}
    return {**computed, "bpd": bpd}


@torch.no_grad()
def typical(model: nn.Module, found: dict[str, Tensor], labels: Tensor) -> dict[str, object]:
    """What is usual for test images, whose `outputs` were found, with labels long [N].

    Returns:
        images, how many; costs, the `hundredths` of their bits per dimension; logProbs, those of
        log p(z) at their posterior means, in nats; read, the share whose class has the highest
        p(z | class) there; reach, the ends of the sliders, beyond which are one in 500 draws of the
        prior per latent; spread, the standard deviation of these draws; latents, {index, kl} of
        each, the largest KL first, in nats.
    """
    mean, classes = found["mean"], range(model.prior.num_classes)
    check_finite(found["bpd"])
    kl = kl_per_dimension(mean, found["logStd"]).mean(dim=0)
    each = torch.stack([model.prior.log_prob(mean, torch.full_like(labels, y)) for y in classes])
    with isolate_rng(include_cuda=False):
        torch.manual_seed(SEED)
        draws = model.prior.sample(NUM_DRAWS)
    return {
        "images": len(mean),
        "costs": hundredths(found["bpd"]).tolist(),
        "logProbs": hundredths(each.logsumexp(dim=0) - math.log(len(each))).tolist(),
        "read": (each.argmax(dim=0) == labels).float().mean().item(),
        "reach": math.ceil(2 * draws.abs().quantile(0.998, dim=0).max().item()) / 2,
        "spread": draws.std().item(),
        "latents": [{"index": d, "kl": kl[d].item()} for d in kl.argsort(descending=True).tolist()],
    }


@torch.no_grad()
def reference(model: nn.Module, imgs: Tensor, labels: Tensor) -> dict[str, object]:
    """What the page compares its own results with; each list goes image by image."""
    found = outputs(model, imgs)
    pixels = found["logits"].flatten(2).mT  # [N, 784, 16]
    return {
        "images": len(imgs),
        "every": CHECKED,
        **{name: packed(found[name]) for name in ("noise", "mean", "logStd")},
        "logits": packed(torch.cat([p[n % CHECKED :: CHECKED] for n, p in enumerate(pixels)])),
        "bpd": found["bpd"].tolist(),
        "mixtures": packed(torch.stack(model.prior.conditionals(found["z"], labels), dim=2)),
        "logPrior": model.prior.log_prob(found["z"], labels).tolist(),
    }


def describe_model(shown: Shown, data: DiscreteImages, chosen: DiscreteImages) -> dict[str, object]:
    """One model of the page; `chosen` are the images that are in it."""
    model, judged = shown.model, data.first(NUM_JUDGED)
    described = networks(model)  # first, as it refuses what the page cannot compute
    found = outputs(model, judged.images.long())
    points = {"mean": packed(found["mean"]), "labels": judged.labels.tolist()}
    return {
        "name": shown.name,
        **described,
        "typical": typical(model, found, judged.labels),
        "points": points if model.prior.z_dim <= 2 else None,  # has a map
        "check": reference(model, chosen.images.long(), chosen.labels),
        "epochs": [
            {
                "epoch": epoch,
                "bpd": outputs(then, judged.images.long())["bpd"].mean().item(),
                "weights": weights_at(then),
            }
            for epoch, then in shown.epochs
        ],
    }


def class_names(name: str, data: DiscreteImages) -> list[str]:
    """The names of a data set's classes; "image" for images without labels."""
    if name in fmnist.DATASETS:
        return [known.split(" - ")[0] for known in getattr(datasets, name).classes]
    return list(data.classes) or ["image"]


def contents(models: list[Shown], sets: DataSets) -> dict[str, object]:
    """All that the page knows of models of one data set, ready for JSON.

    Raises:
        InputError: the page cannot compute one of the layers.
        FloatingPointError: a model's outputs are not finite numbers.
    """
    chosen = examples(sets.test)
    return {
        "dataset": sets.name,
        "noun": NOUNS.get(sets.name.removeprefix("binary "), "picture"),
        "trainImages": len(sets.train),
        "classes": class_names(sets.name, sets.test),
        "colours": CLASS_COLOURS,
        "levels": models[0].model.hparams.num_levels,
        "images": packed(chosen.images, "u1"),
        "labels": chosen.labels.tolist(),
        "models": [describe_model(shown, sets.test, chosen) for shown in models],
    }


def page(known: dict[str, object]) -> str:
    """The page with these `contents`: page.html with its parts in place of @@their names@@."""
    model_json = json.dumps(known, separators=(",", ":")).replace("<", r"\u003c")  # ends no script
    values = {"model": model_json, "noun": known["noun"], "levels": str(known["levels"])}
    files = {part.name: part.read_text(encoding="utf-8") for part in PARTS.glob("*.*s*")}
    html = (PARTS / "page.html").read_text(encoding="utf-8")
    return re.sub("@@(.+?)@@", lambda found: (values | files)[found[1]], html)
