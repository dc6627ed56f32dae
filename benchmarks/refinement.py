"""What the encoder loses: bounds with posteriors that are improved image by image.

python benchmarks/refinement.py [CHECKPOINT] --steps 2

The encoder gives every image its posterior in one pass, and so not the best one: the amortisation
gap (Cremer et al. 2018, "Inference suboptimality in variational autoencoders"). Gradient steps for
each image close a part of it (Kim et al. 2018, "Semi-amortized variational autoencoders").
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fmnist import load
from judging.bounds import image_noise, mean_and_error
from runs.from_checkpoint import add_checkpoint
from utils import KLD, elbo_to_bpd, sampled_negative_elbo, unit_gaussian_log_prob
from vae import PRETRAINED, load_model

MEAN_RATE, LOG_STD_RATE = 0.3, 0.2  # found on 200 validation images; twice as much overshoots
BATCH, SEED = 100, 42


@torch.enable_grad()
def refine(
    log_px: Callable[[Tensor, Tensor], Tensor],
    imgs: Tensor,
    mean: Tensor,
    log_std: Tensor,
    log_prior: Callable[[Tensor], Tensor],
    noise: Tensor,
) -> tuple[Tensor, Tensor]:
    """Steps of natural gradient descent on each image's negative ELBO.

    The natural gradient is std^2 times the mean's and half of log_std's: it measures a step in
    units of the posterior's own width, so that one rate does for all latents. The ELBO is judged
    at mean + std and mean - std, with the signs of the noise, latent by latent: such pairs have
    the Gaussian's mean and variance exactly, which leaves less to chance than draws from it.

    Args:
        log_px: of z [N, z_dim] and images [N, 1, H, W], in nats: `VAE.log_px`.
        imgs: long [B, 1, H, W].
        mean, log_std: float [B, z_dim], of q(z|x), to start from.
        log_prior: maps z [N, z_dim] to log p(z) [N] in nats.
        noise: float [steps, B, z_dim].
    Returns:
        mean and log_std, float [B, z_dim], without gradients.
    """
    both = imgs.repeat(2, 1, 1, 1)
    for part in noise:
        mean, log_std = mean.detach().requires_grad_(), log_std.detach().requires_grad_()
        step = log_std.exp() * part.sign()
        z = torch.cat([mean + step, mean - step])
        negative_elbo = -(log_px(z, both) + log_prior(z)).sum() / 2 - log_std.sum()  # + constant
        mean_gradient, log_std_gradient = torch.autograd.grad(negative_elbo, [mean, log_std])
        mean = mean - MEAN_RATE * (2 * log_std).exp() * mean_gradient
        log_std = log_std - LOG_STD_RATE * log_std_gradient / 2
    return mean.detach(), log_std.detach()


@torch.no_grad()
def compare(path: str, make: Callable | None, steps: int, limit: int | None) -> None:
    model, images = load_model(path, make), load(train=False).images[:limit].long()
    for name, log_prior in (
        ("N(0, I)", unit_gaussian_log_prob),
        ("learned prior", model.prior.log_prob),
    ):
        found, started = [], time.monotonic()
        for start in range(0, len(images), BATCH):
            imgs = images[start : start + BATCH]
            parts = image_noise(range(start, start + len(imgs)), 1 + steps, model.prior.z_dim, SEED)
            draw, *noise = torch.cat([*parts])  # judged by a draw that the steps do not see
            posterior = model.encoder(imgs)
            refined = refine(model.log_px, imgs, *posterior, log_prior, torch.stack(noise))
            for mean, log_std in (posterior, refined):
                z = mean + log_std.exp() * draw
                L_rec = -model.log_px(z, imgs)
                if log_prior is unit_gaussian_log_prob:
                    found.append(L_rec + KLD(mean, log_std))
                else:
                    found.append(sampled_negative_elbo(L_rec, z, mean, log_std, log_prior(z)))
        before, after = (elbo_to_bpd(torch.cat(found[n::2]), images.shape) for n in (0, 1))
        for what, bpd in (("encoder", before), ("refined", after), ("gain", before - after)):
            shown = mean_and_error(bpd)
            print(f"{name:14} {what:8} {shown['mean']:.4f} ± {shown['standard_error']:.4f} bpd")
        print(f"{name:14} {(time.monotonic() - started) / len(images):.3f} seconds an image")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_checkpoint(parser, PRETRAINED)
    parser.add_argument("--steps", type=int, default=2, help="gradient steps for each image")
    parser.add_argument("--limit", type=int, help="only the first test images")
    args = parser.parse_args()
    compare(args.checkpoint, args.model, args.steps, args.limit)
