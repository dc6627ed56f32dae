"""What explore.py writes into the page: models, test images, and figures to check the page by."""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torchvision import datasets

import fmnist
from boundary.checks import check_finite
from fmnist import DiscreteImages
from own_data import DataSets
from page.layers import networks, packed, weights_at
from utils import KLD, elbo_to_bpd, kl_per_dimension, reconstruction_loss

PARTS = Path(__file__).resolve().parent  # page.html and what it takes in
NUM_JUDGED = 1000  # test images that the mean figures come from
PER_CLASS = 2  # test images in the page, from each of the classes; the self-test uses them
NUM_POINTS = 1500  # test images shown as points in a latent plane
CHECKED = 16  # the self-test compares every 16th pixel's logits, of other pixels for every image
CHECKED_THEN = 2  # images that the self-test takes for each epoch that was kept
NUM_DRAWS = 5000  # from the learned prior, for the ends of the sliders
SEED = 42
NOUNS = {"MNIST": "digit", "FashionMNIST": "garment", "KMNIST": "character"}


@dataclass
class Shown:
    """A model of the page: its file's name, and the epochs that its run kept, with their models."""

    name: str
    model: nn.Module
    epochs: list[tuple[float, nn.Module]] = field(default_factory=list)


def examples(data: DiscreteImages) -> DiscreteImages:
    """The first images of every class, one class after the other."""
    labels = range(int(data.labels.max()) + 1)
    firsts = [(data.labels == label).nonzero()[:PER_CLASS, 0] for label in labels]
    return data.subset(torch.cat(firsts))


@torch.no_grad()
def costs(model: nn.Module, imgs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What images cost, with one z each.

    Args:
        imgs: long [N, 1, 28, 28], values 0..15.
    Returns:
        bpd, float [N]; mean and log_std of q(z|x), float [N, z_dim].
    """
    encoded = [model.encoder(part) for part in imgs.split(250)]
    mean, log_std = (torch.cat(part) for part in zip(*encoded, strict=True))
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(SEED))
    pairs = zip((mean + log_std.exp() * noise).split(250), imgs.split(250), strict=True)
    L_rec = torch.cat([reconstruction_loss(model.decoder(z), x) for z, x in pairs])
    return elbo_to_bpd(L_rec + KLD(mean, log_std), imgs.shape), mean, log_std


@torch.no_grad()
def typical(model: nn.Module, data: DiscreteImages) -> dict[str, object]:
    """Mean figures of test images, and the latents in the order of what they tell.

    Returns:
        images, how many; bpd, the mean, and bpdOfClass, by class, None for one without images;
        read, the share of the images whose class is that with the highest p(z | class) at their
        posterior mean; reach, the ends of the sliders, which draws of the prior pass in one of 500
        cases per latent; spread, their standard deviation; latents, a list of {index, kl} with the
        KL in nats.
    """
    data = data.subset(torch.arange(min(NUM_JUDGED, len(data))))
    classes = range(model.prior.num_classes)
    bpd, mean, log_std = costs(model, data.images.long())
    check_finite(bpd)
    kl = kl_per_dimension(mean, log_std).mean(dim=0)
    each = [model.prior.log_prob(mean, torch.full_like(data.labels, y)) for y in classes]
    with isolate_rng(include_cuda=False):
        torch.manual_seed(SEED)
        draws = model.prior.sample(NUM_DRAWS)
    return {
        "images": len(data),
        "bpd": bpd.mean().item(),
        "bpdOfClass": [mean_or_none(bpd[data.labels == y]) for y in classes],
        "read": (torch.stack(each).argmax(dim=0) == data.labels).float().mean().item(),
        "reach": math.ceil(2 * draws.abs().quantile(0.998, dim=0).max().item()) / 2,
        "spread": draws.std().item(),
        "latents": [{"index": d, "kl": kl[d].item()} for d in kl.argsort(descending=True).tolist()],
    }


def mean_or_none(values: Tensor) -> float | None:
    return values.mean().item() if len(values) else None


@torch.no_grad()
def networks_test(model: nn.Module, imgs: Tensor) -> tuple[dict[str, object], Tensor]:
    """What PyTorch computes for images with encoder and decoder, in 32 bits; and the z of it.

    Args:
        imgs: long [N, 1, 28, 28], values 0..15.
    """
    mean, log_std = model.encoder(imgs)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(SEED))
    z = mean + log_std.exp() * noise
    logits = model.decoder(z)
    pixels = logits.flatten(2).mT  # [N, 784, 16]
    checked = [image[-n % CHECKED :: CHECKED] for n, image in enumerate(pixels)]
    values = {"noise": noise, "mean": mean, "logStd": log_std, "logits": torch.cat(checked)}
    bpd = elbo_to_bpd(reconstruction_loss(logits, imgs) + KLD(mean, log_std), imgs.shape)
    return {
        "images": len(imgs),
        "every": CHECKED,
        **{name: packed(value, "<f4") for name, value in values.items()},
        "bpd": bpd.tolist(),
    }, z


@torch.no_grad()
def prior_test(model: nn.Module, z: Tensor, labels: Tensor) -> dict[str, object]:
    """What PyTorch computes with the learned prior: z float [N, z_dim], labels long [N]."""
    mixtures = torch.stack(model.prior.conditionals(z, labels), dim=2)
    log_prob = model.prior.log_prob(z, labels)
    return {"mixtures": packed(mixtures, "<f4"), "logPrior": log_prob.tolist()}


@torch.no_grad()
def points(model: nn.Module, data: DiscreteImages) -> dict[str, object] | None:
    """Where test images lie in a latent space of one or two dimensions, which has a map."""
    if model.prior.z_dim > 2:
        return None
    shown = data.subset(torch.arange(min(NUM_POINTS, len(data))))
    mean, _ = model.encoder(shown.images.long())
    return {"mean": packed(mean, "<f4"), "labels": shown.labels.tolist()}


def describe_model(shown: Shown, data: DiscreteImages, chosen: DiscreteImages) -> dict[str, object]:
    """One model of the page; `chosen` are the images that are in it."""
    model, imgs = shown.model, chosen.images.long()
    test, z = networks_test(model, imgs)
    judged = data.images[:NUM_JUDGED].long()
    return {
        "name": shown.name,
        **networks(model),
        "typical": typical(model, data),
        "points": points(model, data),
        "check": {**test, **prior_test(model, z, chosen.labels)},
        "epochs": [
            {
                "epoch": epoch,
                "bpd": costs(then, judged)[0].mean().item(),
                "weights": weights_at(then),
                "check": networks_test(then, imgs[:CHECKED_THEN])[0],
            }
            for epoch, then in shown.epochs
        ],
    }


def class_names(name: str, data: DiscreteImages) -> list[str]:
    """What the classes of a data set are called; of images without labels, what they are."""
    if name in fmnist.DATASETS:
        return [known.split(" - ")[0] for known in getattr(datasets, name).classes]
    return list(data.classes) or ["image"]


def contents(models: list[Shown], sets: DataSets) -> dict[str, object]:
    """All that the page knows, ready to be written as JSON."""
    chosen = examples(sets.test)
    return {
        "dataset": sets.name,
        "noun": NOUNS.get(sets.name, "picture"),
        "trainImages": len(sets.train),
        "classes": class_names(sets.name, sets.test),
        "images": packed(chosen.images, "u1"),
        "labels": chosen.labels.tolist(),
        "models": [describe_model(shown, sets.test, chosen) for shown in models],
    }


def page(models: list[Shown], sets: DataSets) -> str:
    """The whole page.

    Args:
        models: one or several, the first is shown first; of one data set.
        sets: its images.
    Raises:
        InputError: a layer that the page cannot have.
        FloatingPointError: a model's outputs are not finite numbers.
    """
    return filled(contents(models, sets))


def filled(known: dict[str, object]) -> str:
    """The page of these `contents`: page.html with all that it takes in."""
    model_json = json.dumps(known, separators=(",", ":"))
    values = {
        "model": model_json.replace("<", r"\u003c"),  # nothing in it can end the script
        "noun": known["noun"],
    }

    def value(found: re.Match) -> str:
        name = found[1]
        return values[name] if name in values else (PARTS / name).read_text(encoding="utf-8")

    return re.sub("@@(.+?)@@", value, (PARTS / "page.html").read_text(encoding="utf-8"))
