"""Three kinds of a learned prior for the same encoder and decoder, on both figures that count.

python benchmarks/priors.py VAE_logs/version_0 VAE_logs/version_1 ...    # 4 minutes each

Nats: how far log p(z) of the test images' latents is above N(0, I)'s, and how much more that is on
training images. Samples: what evaluate.py measures, see judging/samples.py.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Categorical, MultivariateNormal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fmnist import DATA_DIR, load, prepare, split
from judging.samples import BATCH, judge_samples, load_classifier
from muon import warmup_and_line
from pictures.of_model import encoded
from prior import LatentPrior
from train_pl import VAE, load_model
from utils import sample_reparameterize, unit_gaussian_log_prob


class ClassGaussians:
    """p(z|y): so many Gaussians of full covariance for each class, by expectation maximisation."""

    STEPS, JITTER = 40, 1e-3

    def __init__(self, z: Tensor, labels: Tensor, num: int = 10):
        self.parts = [self.fit(z[labels == y], num) for y in range(10)]

    def fit(self, z: Tensor, num: int) -> tuple[Categorical, MultivariateNormal]:
        share = torch.rand(len(z), num).softmax(dim=1)
        share[torch.arange(num), torch.arange(num)] += 10  # each begins near an image of its own
        for _ in range(self.STEPS):
            total = share.sum(dim=0)
            mean = share.T @ z / total.unsqueeze(1)
            apart = z.unsqueeze(1) - mean
            cov = torch.einsum("nk,nkd,nke->kde", share, apart, apart) / total[:, None, None]
            gaussians = MultivariateNormal(mean, cov + self.JITTER * torch.eye(z.shape[1]))
            weights = Categorical(total)
            share = (weights.logits + gaussians.log_prob(z.unsqueeze(1))).softmax(dim=1)
        return weights, gaussians

    def log_prob(self, z: Tensor) -> Tensor:
        each = [
            (weights.logits + gaussians.log_prob(z.unsqueeze(1))).logsumexp(dim=1)
            for weights, gaussians in self.parts
        ]
        return torch.stack(each).logsumexp(dim=0) - math.log(10)

    def sample(self, num: int, labels: Tensor | None, temperature: float) -> Tensor:
        labels = torch.randint(10, (num,)) if labels is None else labels
        z = torch.empty(num, self.parts[0][1].loc.shape[1])
        for y, (weights, gaussians) in enumerate(self.parts):
            chosen = weights.sample(((labels == y).sum(),))
            noise = torch.randn(len(chosen), z.shape[1], 1)
            moved = (gaussians.scale_tril[chosen] @ noise).squeeze(2)
            z[labels == y] = gaussians.loc[chosen] + temperature * moved
        return z


def own_stage(mean: Tensor, log_std: Tensor, labels: Tensor, epochs: int) -> LatentPrior:
    """The prior of prior.py, learned afterwards on stored posteriors with fresh noise."""
    prior, batch = LatentPrior(mean.shape[1], num_classes=int(labels.max()) + 1), 128
    optimizer = torch.optim.AdamW(prior.parameters(), lr=VAE().hparams.prior_lr, weight_decay=0.01)
    total = epochs * (len(mean) // batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_and_line(step, total, VAE().hparams.warmup)
    )
    for step in range(total):
        if step % (len(mean) // batch) == 0:
            order = torch.randperm(len(mean)).split(batch)
        at = order[step % (len(mean) // batch)]
        loss = -prior.log_prob(
            sample_reparameterize(mean[at], log_std[at].exp()), labels[at]
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return prior


def compare(path: str, epochs: int) -> None:
    torch.manual_seed(0)
    model, classifier = load_model(path), load_classifier()
    train, _ = split(load(DATA_DIR))
    test = load(DATA_DIR, train=False)
    mean, log_std = encoded(model, train.images)
    z = sample_reparameterize(mean, log_std.exp())
    test_mean, test_log_std = encoded(model, test.images)
    test_z = sample_reparameterize(test_mean, test_log_std.exp())
    known, labels = z[: len(test)], train.labels[: len(test)]

    def judge(name: str, prior: LatentPrior | ClassGaussians, seconds: float, T: float) -> None:
        with torch.no_grad():
            on_test, on_train = (
                (prior.log_prob(some) - unit_gaussian_log_prob(some)).mean()
                for some in (test_z, known)
            )
            drawn = {
                kind: prior.sample(len(labels), given, T)
                for kind, given in (("learned_prior", None), ("learned_prior_by_class", labels))
            }
            kinds = {
                kind: torch.cat([model.draw_pixels(part).byte() for part in some.split(BATCH)])
                for kind, some in drawn.items()
            }
        judged = judge_samples(classifier, kinds, labels, test.images)
        nats = f"{on_test:.2f} | {on_train - on_test:.2f}"
        shown = " | ".join(
            f"{kind['frechet_distance']:.3f} | {kind['sure']:.3f}" for kind in judged.values()
        )
        right = judged["learned_prior_by_class"]["right_class"]
        print(f"| {path} | {name} | {seconds:.0f} | {nats} | {shown} | {right:.3f} |", flush=True)

    judge("beside the VAE", model.prior, 0, model.hparams.temperature)
    started = time.process_time()
    afterwards = own_stage(mean, log_std, train.labels, epochs)
    judge(
        "a stage of its own", afterwards, time.process_time() - started, model.hparams.temperature
    )
    started = time.process_time()
    gaussians = ClassGaussians(z, train.labels)
    judge("10 Gaussians per class", gaussians, time.process_time() - started, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", help="folders of runs, or checkpoints")
    parser.add_argument("--epochs", type=int, default=14, help="of the stage of its own")
    args = parser.parse_args()
    prepare(DATA_DIR)
    print("| model | prior | s | nats | on training | FD | sure | by class: FD | sure | right |")
    print("|" + " --- |" * 10)
    for path in args.runs:
        compare(path, args.epochs)


if __name__ == "__main__":
    main()
