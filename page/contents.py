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
from fmnist import DiscreteImages
from inputs.checks import check_finite
from judging.percentiles import hundredths
from page.layers import networks, packed, weights_at
from pictures.figures import CLASS_COLOURS
from reading.choice import DataSets
from utils import KLD, elbo_to_bpd, kl_per_dimension, reconstruction_loss

PARTS = Path(__file__).resolve().parent  # page.html and what it takes in
NUM_JUDGED = 2000  # test images that say what is usual, and are the points of a map
PER_CLASS = 2  # test images in the page, from each of the classes; the self-test uses them
CHECKED = 16  # the self-test compares every 16th pixel's logits, for every image of other pixels
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
def outputs(model: nn.Module, imgs: Tensor) -> dict[str, Tensor]:
    """What PyTorch computes for images long [N, 1, 28, 28] in 0..15, with one z each.

    Returns:
        noise, mean, logStd and z, float [N, z_dim]; logits, float [N, 16, 28, 28]; bpd, float [N].
    """
    encoded = [model.encoder(part) for part in imgs.split(250)]
    mean, log_std = (torch.cat(part) for part in zip(*encoded, strict=True))
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(SEED))
    z = mean + log_std.exp() * noise
    logits = torch.cat([model.decoder(part) for part in z.split(250)])
    bpd = elbo_to_bpd(reconstruction_loss(logits, imgs) + KLD(mean, log_std), imgs.shape)
    computed = {"noise": noise, "mean": mean, "logStd": log_std, "z": z, "logits": logits}
    return {**computed, "bpd": bpd}


@torch.no_grad()
def typical(model: nn.Module, found: dict[str, Tensor], labels: Tensor) -> dict[str, object]:
    """What is usual for test images, and the latents in the order of what they tell.

    Args:
        found: the `outputs` for them.
        labels: long [N].
    Returns:
        images, how many; costs, the `hundredths` of their bits per dimension; logProbs, those of
        log p(z) at their posterior means under the learned prior, in nats; read, the share of the
        images whose class is that with the highest p(z | class) there; reach, the ends of the
        sliders, which draws of the prior pass in one of 500 cases per latent; spread, their
        standard deviation; latents, a list of {index, kl} with the KL in nats.
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
    """What the page's own networks and prior are compared with; each list goes image by image."""
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
    model, judged = shown.model, data.subset(torch.arange(len(data))[:NUM_JUDGED])
    found = outputs(model, judged.images.long())
    points = {"mean": packed(found["mean"]), "labels": judged.labels.tolist()}
    return {
        "name": shown.name,
        **networks(model),
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
    """What the classes of a data set are called; of images without labels, what they are."""
    if name in fmnist.DATASETS:
        return [known.split(" - ")[0] for known in getattr(datasets, name).classes]
    return list(data.classes) or ["image"]


def contents(models: list[Shown], sets: DataSets) -> dict[str, object]:
    """All that the page knows of models of one data set, the first shown first; ready for JSON.

    Raises:
        InputError: a layer that the page cannot have.
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
    """The whole page of these `contents`: page.html with all that it takes in."""
    model_json = json.dumps(known, separators=(",", ":")).replace("<", r"\u003c")  # ends no script
    values = {"model": model_json, "noun": known["noun"], "levels": str(known["levels"])}
    files = {part.name: part.read_text(encoding="utf-8") for part in PARTS.glob("*.*s*")}
    html = (PARTS / "page.html").read_text(encoding="utf-8")
    return re.sub("@@(.+?)@@", lambda found: (values | files)[found[1]], html)
