"""How good samples are: what a classifier finds in them, and which training images are nearest.

The Fréchet distance is that between two Gaussians, fitted to the classifier's features of samples
and of test images (Heusel et al. 2017, "GANs trained by a two time-scale update rule", where the
features are those of the Inception network): it grows where samples are no digits, and where some
kinds of digits are missing.
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from fmnist import DiscreteImages, MNISTDataModule
from inputs.checkpoints import load_shipped
from judging.bounds import mean_and_error
from judging.classifier import Classifier
from pictures.figures import grid_figure
from utils import sample_reparameterize

CLASSIFIER = Path(__file__).resolve().parent.parent / "pretrained" / "classifier.pt"
CLASSIFIED_DATASET = "MNIST"  # whose classes the classifier tells
SURE = 0.9  # the probability above which it is sure of a class
BATCH = 100  # images at a time; more are no faster
WITHOUT_LABELS = ("unit_gaussian", "learned_prior")  # kinds of samples that nobody gave a class
DISTANCE_FROM = 1000  # images; of fewer, two sets of real digits are as far apart as samples are
NUM_COMPARED = 1000  # images whose nearest training images are looked for


def load_classifier(path: Path = CLASSIFIER) -> Classifier:
    """The classifier, on the CPU, in eval mode; InputError unless the file is the shipped one."""
    return load_shipped(Classifier(), path).to(memory_format=torch.channels_last)


def classifier_of(data: LightningDataModule) -> Classifier | None:
    """The classifier, if it knows the images of a run and its file is there."""
    known = type(data) is MNISTDataModule and (data.dataset, data.bits) == (CLASSIFIED_DATASET, 4)
    return load_classifier() if known and CLASSIFIER.exists() else None


@torch.no_grad()
def draw_samples(
    model: nn.Module, train: DiscreteImages, seed: int
) -> tuple[dict[str, Tensor], Tensor]:
    """As many images of each kind as there are training images, and one z from q(z|x) for each.

    Returns:
        By kind, uint8 [N, 1, 28, 28] on the CPU: posterior_samples, of z from q(z|x);
        unit_gaussian, of z from N(0, I); learned_prior; and learned_prior_by_class, if the model
        knows all classes. Then the z from q(z|x), float [N, z_dim] on the model's device.
    """
    torch.manual_seed(seed)
    batches = [model.encoder(part.long().to(model.device)) for part in train.images.split(BATCH)]
    posterior = [sample_reparameterize(mean, log_std.exp()) for mean, log_std in batches]
    torch.manual_seed(seed)
    from_posterior = [model.draw_pixels(z).byte() for z in posterior]
    noise = torch.randn(len(train), model.prior.z_dim).split(BATCH)
    labels = train.labels.to(model.device).split(BATCH)
    drawn = {
        "posterior_samples": from_posterior,
        "unit_gaussian": [model.draw_pixels(z.to(model.device)).byte() for z in noise],
        "learned_prior": [model.sample(len(part)).byte() for part in labels],
    }
    if train.labels.max() < model.prior.num_classes:
        drawn["learned_prior_by_class"] = [model.sample(len(part), part).byte() for part in labels]
    return {name: torch.cat(parts).cpu() for name, parts in drawn.items()}, torch.cat(posterior)


@torch.no_grad()
def classify(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """The classifier's features and logits, float [N, 64] and [N, 10], on the CPU.

    images: uint8 [N, 1, 28, 28], values 0..15.
    """
    device = classifier.classes.weight.device
    features = [classifier.features(part.to(device)) for part in images.split(BATCH)]
    logits = [classifier.classes(part) for part in features]
    return torch.cat(features).cpu(), torch.cat(logits).cpu()


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """The squared Fréchet distance of two sets of features, float [N, F] and [M, F], N, M >= 2.

        |m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)),   means m, covariances C

    Two sets of the same source are above 0 too: the smaller they are, the further. For how far, see
    benchmarks/distance.py.
    """
    one, other = features.double(), reference.double()
    C1, C2 = one.T.cov(), other.T.cov()
    root_trace = torch.linalg.eigvals(C1 @ C2).sqrt().real.sum()
    apart = (one.mean(dim=0) - other.mean(dim=0)).square().sum()
    return (apart + C1.trace() + C2.trace() - 2 * root_trace).item()


def judge_samples(
    classifier: Classifier, kinds: dict[str, Tensor], labels: Tensor, test_images: Tensor
) -> dict[str, dict[str, float | None]]:
    """What the classifier finds in images of several kinds.

    Args:
        kinds: by name, images uint8 [N, 1, 28, 28], values 0..15.
        labels: long [N], their classes; kinds `WITHOUT_LABELS` have none.
        test_images: uint8 [M, 1, 28, 28], the reference of the distance.
    Returns:
        By name: frechet_distance, None of fewer than `DISTANCE_FROM` images; sure, the share of
        images with a class of probability above `SURE`; right_class, the share whose class is the
        label, or None.
    """
    reference, _ = classify(classifier, test_images)
    judged = {}
    for name, images in kinds.items():
        features, logits = classify(classifier, images)
        highest, found = logits.softmax(dim=1).max(dim=1)
        enough = min(len(features), len(reference)) >= DISTANCE_FROM
        labelled = name not in WITHOUT_LABELS
        judged[name] = {
            "frechet_distance": frechet_distance(features, reference) if enough else None,
            "sure": (highest > SURE).double().mean().item(),
            "right_class": (found == labels).double().mean().item() if labelled else None,
        }
    return judged


def judge_drawn(
    model: nn.Module,
    classifier: Classifier,
    drawn: dict[str, Tensor],
    train: DiscreteImages,
    test: DiscreteImages,
) -> dict[str, object]:
    """`judge_samples` of these training images and of what `draw_samples` drew for them."""
    kinds = {"training_images": train.images, **drawn}
    judged = judge_samples(classifier.to(model.device), kinds, train.labels, test.images)
    return {"of_each_kind": len(test), "temperature": model.hparams.temperature, **judged}


def judge_run(
    model: nn.Module, classifier: Classifier, train: DiscreteImages, test: DiscreteImages, seed: int
) -> dict[str, object]:
    """What evaluate.py finds in samples with --limit 1000 and this seed; see `judge_samples`.

    It leaves torch's global random stream alone. train, test: all images, on any device.
    """
    num = min(len(train), len(test), NUM_COMPARED)
    train, test = (data.first(num).to(torch.device("cpu")) for data in (train, test))
    with isolate_rng():
        drawn, _ = draw_samples(model, train, seed)
    return judge_drawn(model, classifier, drawn, train, test)


@torch.no_grad()
def sample_quality(
    model: nn.Module, train: DiscreteImages, test: DiscreteImages, seed: int, classified: bool
) -> tuple[dict[str, object], Figure]:
    """How good samples are, and whether they are copies of training images.

    Args:
        train: all training images; of each kind there are as many samples as test images.
        classified: whether the classifier knows such images.
    Returns:
        log_prior_train_nats, log p(z) of training images; samples, see `judge_drawn`, if they are
        classified; nearest_training_image, mean distances in grey levels, of test images, samples
        and posterior_samples, which are nearly copies. Then a picture of eight samples with their
        nearest training images.
    """
    encoded = train.first(len(test))
    drawn, posterior = draw_samples(model, encoded, seed)
    log_prior = torch.cat([model.prior.log_prob(z).cpu() for z in posterior.split(1000)])
    samples = drawn.get("learned_prior_by_class", drawn["learned_prior"])
    compared = {
        "test_images": test.images,
        "samples": samples,
        "posterior_samples": drawn["posterior_samples"],
    }
    metrics = {"log_prior_train_nats": mean_and_error(log_prior)}
    if classified:
        metrics["samples"] = judge_drawn(model, load_classifier(), drawn, encoded, test)
    metrics["nearest_training_image"] = {"of_each_kind": min(len(test), NUM_COMPARED)} | {
        name: mean_and_error(nearest(images[:NUM_COMPARED], train.images, 1)[0])
        for name, images in compared.items()
    }
    _, positions = nearest(samples[:8], train.images, 3)
    rows = [samples[:8], *(train.images[column] for column in positions.T)]
    title = "Samples, each over the three nearest training images"
    names = ["sample", "nearest", "second", "third"]
    white = model.hparams.num_levels - 1
    return metrics, grid_figure([row / white for row in rows], title, names)


def nearest(images: Tensor, among: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The `num` nearest of `among` to each image, by Euclidean distance of their grey levels.

    Args:
        images, among: uint8 [N, 1, H, W] and [M, 1, H, W], values 0..15, M >= num.
    Returns:
        distances, float [N, num], ascending, and positions in `among`, long [N, num].
    """
    points, found = images.flatten(1).float(), []
    for part in among.flatten(1).split(5000):  # 5000 distances per image are in memory at a time
        part = part.float()
        # Squares and products of levels are whole numbers that float32 holds without rounding.
        squares = points.square().sum(1, keepdim=True) + part.square().sum(1) - 2 * points @ part.T
        found.append(squares.topk(min(num, len(part)), largest=False))
    squares = torch.cat([part.values for part in found], dim=1)
    positions = torch.cat([part.indices + 5000 * n for n, part in enumerate(found)], dim=1)
    lowest, where = squares.topk(num, largest=False)
    return lowest.sqrt(), positions.gather(1, where)
