"""Binary MNIST in nats per test image, by as many importance samples as the papers take.

python train_pl.py --bits 1 --seed 0
python benchmarks/binary.py VAE_logs/version_0    # an hour, one thread

Papers' models see no labels. So beside N(0, I) and the prior of the run, which knows them, there is
a third one, of a single class, that is learned afterwards for the same encoder and decoder.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from priors import own_stage
from refinement import refine
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from burda import Burda

from fmnist import DATA_DIR, MNISTDataModule, binarize
from judging.bounds import image_noise, mean_and_error
from pictures.of_model import encoded
from prior import LatentPrior
from runs.checkpoints import find_checkpoint
from train_pl import VAE, load_model
from utils import importance_weighted_bpd, sampled_negative_elbo, unit_gaussian_log_prob

SEED, CHUNK = 42, 100
DRAWS, EPOCHS = 8, 4  # of the training images, for the prior without labels; passes over all
WIDER = 1.2  # times the standard deviations: where q(z|x) has too little, weights are huge


def without_labels(model: VAE, grey: Tensor) -> LatentPrior:
    """The prior of prior.py with one class, learned on posteriors of training images."""
    torch.manual_seed(SEED)
    noise = torch.Generator().manual_seed(SEED)
    drawn = [encoded(model, binarize(grey, noise)) for _ in range(DRAWS)]
    mean, log_std = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    return own_stage(mean, log_std, torch.zeros(len(mean), dtype=torch.long), EPOCHS).eval()


@torch.no_grad()
def bounds(
    model: VAE, priors: list, images: Tensor, which: Tensor, num_samples: int, steps: int
) -> Tensor:
    """-ELBO from one sample of z, and the importance-weighted bound: float [2, priors, B], nats.

    The ELBO is that of the encoder's q(z|x). Any other q gives a bound on the same log p(x), so the
    importance samples are of one that suits them: after so many steps of `refine`, by the second
    prior, and WIDER. Both were chosen on 200 validation images.
    """
    imgs, z_dim = images[which].long(), model.prior.z_dim
    mean, log_std = model.encoder(imgs)
    (noise,) = image_noise(which.tolist(), 1, z_dim, SEED)
    z = mean + log_std.exp() * noise[0]
    known = -model.log_px(z, imgs), z, mean, log_std
    elbos = torch.stack([sampled_negative_elbo(*known, prior(z)) for prior in priors])
    if steps:
        noise = torch.cat(list(image_noise(which.tolist(), steps, z_dim, SEED + 1)))
        mean, log_std = refine(model.log_px, imgs, mean, log_std, priors[1], noise)
    noise = image_noise(which.tolist(), num_samples, z_dim, SEED)
    log_std = log_std + math.log(WIDER)
    tighter = importance_weighted_bpd(model.log_px, imgs, mean, log_std, noise, priors)
    return torch.stack([elbos, tighter * math.log(2) * imgs[0].numel()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a run with --bits 1")
    parser.add_argument("--burda", action="store_true", help="it is of benchmarks/burda.py")
    parser.add_argument("--samples", type=int, default=500, help="K of the bound")
    parser.add_argument("--limit", type=int, default=10_000, help="so many images, in random order")
    parser.add_argument("--labels", action="store_true", help="also the run's prior: twice as long")
    help = "steps that improve the posteriors, image by image, before z is drawn from them"
    parser.add_argument("--refine", type=int, default=3, metavar="STEPS", help=help)
    args = parser.parse_args()
    model = load_model(args.run, Burda if args.burda else VAE)
    train, _, test = MNISTDataModule(DATA_DIR, bits=1).read()
    saved = find_checkpoint(args.run).with_suffix(".without_labels.pt")
    started = time.process_time()
    prior = LatentPrior(model.prior.z_dim, num_classes=1).eval()
    if saved.exists():
        prior.load_state_dict(torch.load(saved, weights_only=True))
    else:
        prior = without_labels(model, train.grey.images)
        torch.save(prior.state_dict(), saved)
    print(f"prior without labels: {time.process_time() - started:.0f} s of CPU time")
    priors = {"N(0, I)": unit_gaussian_log_prob, "learned, without labels": prior.log_prob}
    if args.labels:
        priors["learned, with labels"] = model.prior.log_prob
    print("| prior | -ELBO | importance-weighted | lower by |")
    # A random order makes what is printed on the way an estimate for all.
    order, found = torch.randperm(len(test), generator=torch.Generator().manual_seed(SEED)), []
    for which in order[: args.limit].split(CHUNK):
        how = args.samples, args.refine
        found.append(bounds(model, [*priors.values()], test.images, which, *how))
        seconds, values = time.process_time() - started, torch.cat(found, dim=2)
        print(f"{values.shape[2]:,} images, {args.samples} samples, {seconds:.0f} s of CPU time")
        for name, (elbo, tighter) in zip(priors, values.unbind(dim=1), strict=True):
            means = (mean_and_error(each) for each in (elbo, tighter, elbo - tighter))
            shown = ("{mean:.2f} ± {standard_error:.2f}".format(**each) for each in means)
            print("|", name, "|", " | ".join(shown), "|", flush=True)


if __name__ == "__main__":
    main()
