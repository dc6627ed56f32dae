"""Posteriors that are improved image by image, from where the encoder puts them.

The encoder gives every image its posterior in one pass, and so not the best one: the amortisation
gap (Cremer et al. 2018, "Inference suboptimality in variational autoencoders"). Gradient steps for
each image close a part of it (Kim et al. 2018, "Semi-amortized variational autoencoders").
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from judging.bounds import image_bounds, image_noise, mean_and_error
from utils import elbo_to_bpd, reconstruction_loss, unit_gaussian_log_prob

# Found on 200 validation images; twice as much makes the steps overshoot.
MEAN_RATE, LOG_STD_RATE = 0.3, 0.2


@torch.enable_grad()
def refine(
    decoder: nn.Module,
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
        decoder: maps z [N, z_dim] to logits [N, 16, H, W].
        imgs: long [B, 1, H, W], values 0..15.
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
        L_rec, log_pz = reconstruction_loss(decoder(z), both), log_prior(z)
        negative_elbo = (L_rec - log_pz).sum() / 2 - log_std.sum()  # but for a constant
        mean_gradient, log_std_gradient = torch.autograd.grad(negative_elbo, [mean, log_std])
        mean = mean - MEAN_RATE * (2 * log_std).exp() * mean_gradient
        log_std = log_std - LOG_STD_RATE * log_std_gradient / 2
    return mean.detach(), log_std.detach()


def refined_negative_elbo(
    model: nn.Module, images: Tensor, steps: int, name: str, batch_size: int, seed: int
) -> Tensor:
    """The negative ELBO of every image by refined posteriors, float [N] in nats, on the CPU.

    Its z are drawn with the noise that `image_bounds` takes for this seed, of which the refinement
    sees nothing.

    Args:
        steps: of `refine`, at least 1.
        name: negative_elbo or negative_elbo_prior, with whose prior the steps are taken too.
        images, batch_size, seed: see `image_bounds`.
    """
    log_prior = unit_gaussian_log_prob if name == "negative_elbo" else model.prior.log_prob

    def posterior(imgs: Tensor, indices: range) -> tuple[Tensor, Tensor]:
        parts = image_noise(indices, 1 + steps, model.prior.z_dim, seed)
        noise = torch.cat(list(parts)).to(imgs.device)
        return refine(model.decoder, imgs, *model.encoder(imgs), log_prior, noise[1:])

    return image_bounds(model, images, 1, batch_size, seed, posterior=posterior)[name]


def refined_summary(
    model: nn.Module,
    images: Tensor,
    bounds: dict[str, Tensor],
    steps: int,
    batch_size: int,
    seed: int,
) -> dict[str, object]:
    """What refined posteriors gain, and what they cost.

    Args:
        bounds: what `image_bounds` returned for the same images and seed.
    Returns:
        steps and, for negative_elbo and negative_elbo_prior: nats and bpd, the refined bound;
        gain_bpd, by how much it is lower; each with the mean over the images and its standard
        error; seconds, the wall time.
    """
    result = {"steps": steps}
    for name in ("negative_elbo", "negative_elbo_prior"):
        started = time.monotonic()
        nats = refined_negative_elbo(model, images, steps, name, batch_size, seed)
        result[name] = {
            "nats": mean_and_error(nats),
            "bpd": mean_and_error(elbo_to_bpd(nats, images.shape)),
            "gain_bpd": mean_and_error(elbo_to_bpd(bounds[name] - nats, images.shape)),
            "seconds": time.monotonic() - started,
        }
    return result
