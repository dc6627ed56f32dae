"""How well a model codes images: the bounds of every image, their terms, their means."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from inputs.checks import check_finite
from utils import (
    active_units,
    elbo_to_bpd,
    importance_weighted_bpd,
    kl_per_dimension,
    sampled_negative_elbo,
    unit_gaussian_log_prob,
)

# Bounds on -log p(x): two with the prior N(0, I), two with the learned one.
BOUNDS = (
    *("negative_elbo", "importance_weighted"),
    *("negative_elbo_prior", "importance_weighted_prior"),
)
DECODER_BATCH = 200  # latents decoded at a time: it bounds the memory


def image_noise(indices: range, num_samples: int, z_dim: int, seed: int) -> Iterator[Tensor]:
    """Standard normal noise for these images of a set, in parts: float [k, B, z_dim] each.

    An image's noise depends on the seed and its index only, not on its batch or the parts.
    """
    streams = [np.random.default_rng((seed, index)) for index in indices]
    part = max(1, DECODER_BATCH // len(indices))
    for start in range(0, num_samples, part):
        shape = (min(part, num_samples - start), z_dim)
        noise = [stream.standard_normal(shape, dtype=np.float32) for stream in streams]
        yield torch.from_numpy(np.stack(noise, axis=1))


@torch.no_grad()
def image_bounds(
    model: nn.Module,
    images: Tensor,
    num_samples: int = 64,
    batch_size: int = 100,
    seed: int = 42,
    progress_bar: bool = False,
) -> dict[str, Tensor]:
    """The bounds of every image and its latents.

    Args:
        images: uint8 [N, 1, 28, 28].
        num_samples: K of the importance-weighted bounds.
    Returns:
        On the CPU, float [N] in nats: `BOUNDS`; reconstruction and kl, whose sum is negative_elbo;
        log_prior, the learned prior's log p(z); prior_gain, log_prior minus that of N(0, I). All
        but the importance-weighted ones are from one and the same sample of z.
        float [N, z_dim]: mean, the posterior means, and kl_per_dimension, in nats.
    Raises:
        FloatingPointError: the model's outputs are not finite numbers.
    """
    device, z_dim = model.device, model.prior.z_dim
    batches = []
    for start in tqdm(range(0, len(images), batch_size), unit="batch", disable=not progress_bar):
        imgs = images[start : start + batch_size].long().to(device)
        indices = range(start, start + len(imgs))
        mean, log_std = model.encoder(imgs)
        (one,) = image_noise(indices, 1, z_dim, seed)
        z = mean + log_std.exp() * one[0].to(device)
        L_rec, kl = -model.log_px(z, imgs), kl_per_dimension(mean, log_std)
        log_prior = model.prior.log_prob(z)
        noise = (part.to(device) for part in image_noise(indices, num_samples, z_dim, seed))
        priors = (unit_gaussian_log_prob, model.prior.log_prob)
        bpd = importance_weighted_bpd(model.log_px, imgs, mean, log_std, noise, priors)
        importance_weighted = bpd * math.log(2) * imgs[0].numel()
        result = {
            "reconstruction": L_rec,
            "kl": kl.sum(dim=1),
            "negative_elbo": L_rec + kl.sum(dim=1),
            "importance_weighted": importance_weighted[0],
            "negative_elbo_prior": sampled_negative_elbo(L_rec, z, mean, log_std, log_prior),
            "importance_weighted_prior": importance_weighted[1],
            "log_prior": log_prior,
            "prior_gain": log_prior - unit_gaussian_log_prob(z),
            "mean": mean,
            "kl_per_dimension": kl,
        }
        check_finite(*result.values())
        batches.append({name: value.cpu() for name, value in result.items()})
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def mean_and_error(values: Tensor) -> dict[str, float | None]:
    """The mean of values, float [N], and its standard error; none of a single one."""
    values = values.double()
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
    return {"mean": values.mean().item(), "standard_error": error}


def summary(bounds: dict[str, Tensor], img_shape: Sequence[int]) -> dict[str, object]:
    """Means over images of shape [N, C, H, W] of all that `image_bounds` returned."""
    of_images = {name: values for name, values in bounds.items() if values.ndim == 1}
    bpd = {name: elbo_to_bpd(bounds[name], img_shape) for name in BOUNDS}
    return {
        **{f"{name}_nats": mean_and_error(values) for name, values in of_images.items()},
        **{f"{name}_bpd": mean_and_error(values) for name, values in bpd.items()},
        "kl_per_dimension_nats": bounds["kl_per_dimension"].mean(dim=0).tolist(),
        "active_units": active_units(bounds["mean"]),
    }
