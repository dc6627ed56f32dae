"""How well a model codes images: the bounds of every image, what they consist of, their means."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from utils import (
    active_units,
    elbo_to_bpd,
    importance_weighted_bpd,
    kl_per_dimension,
    reconstruction_loss,
    sampled_negative_elbo,
    unit_gaussian_log_prob,
)

BOUNDS = ("elbo", "importance_weighted", "prior_elbo", "importance_weighted_prior")
NATS = ("reconstruction", "kl", *BOUNDS, "log_prior", "prior_gain")  # per image
DECODER_BATCH = 200  # latents decoded at a time: the memory that any number of samples needs


def image_noise(indices: range, num_samples: int, z_dim: int, seed: int) -> Iterator[Tensor]:
    """Standard normal noise for these images of a set, in parts: float [k, B, z_dim] each.

    Every image has a stream of its own from (seed, index), so that its noise depends neither on
    the batch that it is in nor on the size of the parts.
    """
    streams = [np.random.default_rng((seed, index)) for index in indices]
    part = max(1, DECODER_BATCH // len(indices))
    for start in range(0, num_samples, part):
        shape = (min(part, num_samples - start), z_dim)
        noise = [stream.standard_normal(shape, dtype=np.float32) for stream in streams]
        yield torch.from_numpy(np.stack(noise, axis=1))


@torch.no_grad()
def judge(
    model: nn.Module,
    images: Tensor,
    num_samples: int = 64,
    batch_size: int = 100,
    seed: int = 42,
    progress_bar: bool = False,
) -> dict[str, Tensor]:
    """The bounds of every image and its latents.

    Args:
        images: uint8 [N, 1, 28, 28], values 0..15.
        num_samples: K of the importance-weighted bound.
    Returns:
        On the CPU: reconstruction, kl, elbo (negative), importance_weighted, float [N] in nats, the
        first three from one sample of z; elbo_bpd and importance_weighted_bpd, float [N] in bits
        per dimension; the same bounds with the learned prior, prior_elbo and
        importance_weighted_prior; of the same z log_prior, its log p(z) in nats, and prior_gain,
        how far that is above the unit Gaussian's; mean, the latent means, and kl_per_dimension,
        in nats, float [N, z_dim].
    """
    device, z_dim = model.decoder.device, model.decoder.z_dim
    batches = []
    for start in tqdm(range(0, len(images), batch_size), unit="batch", disable=not progress_bar):
        imgs = images[start : start + batch_size].long().to(device)
        indices = range(start, start + len(imgs))
        mean, log_std = model.encoder(imgs)
        (one,) = image_noise(indices, 1, z_dim, seed)
        z = mean + log_std.exp() * one[0].to(device)
        noise = (part.to(device) for part in image_noise(indices, num_samples, z_dim, seed))
        L_rec, kl = reconstruction_loss(model.decoder(z), imgs), kl_per_dimension(mean, log_std)
        L_reg = kl.sum(dim=1)
        priors = (unit_gaussian_log_prob, model.prior.log_prob)
        bpd, prior_bpd = importance_weighted_bpd(model.decoder, imgs, mean, log_std, noise, priors)
        log_prior = model.prior.log_prob(z)
        prior_elbo = sampled_negative_elbo(L_rec, z, mean, log_std, log_prior)
        result = {
            "log_prior": log_prior,
            "prior_gain": log_prior - unit_gaussian_log_prob(z),
            "prior_elbo": prior_elbo,
            "prior_elbo_bpd": elbo_to_bpd(prior_elbo, imgs.shape),
            "importance_weighted_prior": prior_bpd * math.log(2) * imgs[0].numel(),
            "importance_weighted_prior_bpd": prior_bpd,
            "reconstruction": L_rec,
            "kl": L_reg,
            "elbo": L_rec + L_reg,
            "elbo_bpd": elbo_to_bpd(L_rec + L_reg, imgs.shape),
            "importance_weighted": bpd * math.log(2) * imgs[0].numel(),
            "importance_weighted_bpd": bpd,
            "mean": mean,
            "kl_per_dimension": kl,
        }
        batches.append({name: value.cpu() for name, value in result.items()})
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def over_images(values: Tensor) -> dict[str, float | None]:
    """The mean of values, float [N], and its standard error; none of a single image."""
    values = values.double()
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": values.mean().item(), "standard_error": error}


def summary(judged: dict[str, Tensor]) -> dict[str, object]:
    """Means over the images with their standard errors, and what the latent dimensions hold."""
    return {
        **{f"{name}_nats": over_images(judged[name]) for name in NATS},
        **{f"{name}_bpd": over_images(judged[f"{name}_bpd"]) for name in BOUNDS},
        "kl_per_dimension_nats": judged["kl_per_dimension"].mean(dim=0).tolist(),
        "active_units": active_units(judged["mean"]),
    }
