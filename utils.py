"""The maths of the VAE as small pure functions, and pictures of its latent space.

The training loss is the negative evidence lower bound (Kingma & Welling 2014, eq. 3),

    -ELBO(x) = E_q(z|x) [-log p(x|z)] + KL(q(z|x) || p(z))    in nats per image,
                L_rec                   L_reg

with q(z|x) = N(mean, diag(std^2)) from the encoder, p(z) = N(0, I), and p(x|z) one categorical
distribution over the L grey levels per pixel (here 16), whose logits are the decoder's output.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.utils import make_grid

from inputs.checks import (
    at_least_float32,
    check_finite,
    check_size,
    check_tensors,
    values_are_checked,
)


def sample_reparameterize(mean: Tensor, std: Tensor) -> Tensor:
    """z = mean + std * noise with noise ~ N(0, I), differentiable in mean and std.

    The reparameterisation trick (Kingma & Welling 2014, section 2.4); noise comes from torch's
    global random stream.

    Args:
        mean, std: float tensors of one shape, std >= 0; z has their shape and dtype.
    Raises:
        TypeError, ValueError: other types, shapes or devices; a negative std, where
            `values_are_checked`.
    """
    check_tensors("mean and std", ("...",), mean, std)
    if values_are_checked(std) and bool((std < 0).any()):
        low = std.min().item()
        raise ValueError(f"std must not be negative, got {low:g}: of a log std, pass its exp()")
    return mean + std * torch.randn_like(mean)


def gaussian_log_prob(z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(z; mean, diag(std^2)) in nats: float [..., z_dim] to [...], float32 or better."""
    check_tensors("z, mean and log_std", ("...", "z_dim"), z, mean, log_std)
    z, mean, log_std = (at_least_float32(value) for value in (z, mean, log_std))
    distance = (z - mean) * torch.exp(-log_std)
    return (-0.5 * (distance.square() + math.log(2 * math.pi)) - log_std).sum(dim=-1)


def unit_gaussian_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) in nats, float [..., z_dim] to float [...]: the prior of the ELBO."""
    return gaussian_log_prob(z, torch.zeros_like(z), torch.zeros_like(z))


def kl_per_dimension(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std) || N(0, 1)) in nats of each latent dimension on its own.

        KL_d = 1/2 (std_d^2 - 1 - log std_d^2 + mean_d^2)    (Kingma & Welling 2014, appendix B)

    mean, log_std: float [..., z_dim]. Returns the same shape, float32 for half precisions.
    """
    check_tensors("mean and log_std", ("...", "z_dim"), mean, log_std)
    mean, log_std = at_least_float32(mean), at_least_float32(log_std)
    # expm1 keeps its digits where std is near 1 and std^2 - 1 would cancel.
    return 0.5 * (torch.expm1(2 * log_std) - 2 * log_std + mean.square())


def KLD(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std) || N(0, 1)) in nats: `kl_per_dimension`, summed over the last dimension.

    mean, log_std: float [..., z_dim]. Returns float [...], float32 for half precisions.
    """
    return kl_per_dimension(mean, log_std).sum(dim=-1)


def reconstruction_loss(logits: Tensor, imgs: Tensor) -> Tensor:
    """-log p(x|z) in nats per image: the cross-entropy summed over the pixels.

    Args:
        logits: float [B, L, H, W], unnormalised log-probabilities of the grey levels.
        imgs: long [B, 1, H, W], values 0..L-1.
    Returns:
        float [B], in nats; float32 for half precisions.
    Raises:
        TypeError, ValueError: other types or shapes.
        IndexError: on the CPU, a grey level that there is no logit for.
    """
    check_tensors("imgs", ("B", 1, "H", "W"), imgs, dtype=torch.long)
    check_tensors("logits", (len(imgs), "L", *imgs.shape[2:]), logits, device=imgs.device)
    # One row per pixel is no copy of channels_last logits, and the kernel is fastest on rows.
    rows = at_least_float32(logits.permute(0, 2, 3, 1).flatten(0, 2))
    nothing = -(2**63)  # the default, -100, would let a pixel of that value pass at no cost
    nats = F.cross_entropy(rows, imgs.flatten(), reduction="none", ignore_index=nothing)
    return nats.view_as(imgs).flatten(1).sum(dim=1)


def sampled_negative_elbo(
    L_rec: Tensor, z: Tensor, mean: Tensor, log_std: Tensor, log_pz: Tensor
) -> Tensor:
    """The negative ELBO with any prior p(z), from one z of each image: float [B], in nats.

        -log p(x|z) + log q(z|x) - log p(z)

    For the unit Gaussian, `KLD` is the mean of the last two terms over q(z|x).

    Args:
        L_rec, log_pz: float [B], -log p(x|z) and log p(z), in nats.
        z, mean, log_std: float [B, z_dim], z drawn from q(z|x) = N(mean, diag(std^2)).
    """
    return L_rec + gaussian_log_prob(z, mean, log_std) - log_pz


def elbo_to_bpd(negative_elbo: Tensor, img_shape: Sequence[int]) -> Tensor:
    """Negative ELBO in nats per image to bits per dimension: divided by ln 2 * C * H * W.

    Args:
        negative_elbo: float [B] or the mean over images, a scalar, in nats.
        img_shape: [B, C, H, W] of the images.
    Returns:
        same shape, bits per dimension; float32 for half precisions.
    """
    check_tensors("negative_elbo", ("...",), negative_elbo)
    return at_least_float32(negative_elbo) / (math.log(2) * math.prod(img_shape[1:]))


def importance_weighted_bpd(
    log_px: Callable[[Tensor, Tensor], Tensor],
    imgs: Tensor,
    mean: Tensor,
    log_std: Tensor,
    noise: Iterable[Tensor],
    log_priors: Sequence[Callable[[Tensor], Tensor]] = (unit_gaussian_log_prob,),
) -> Tensor:
    """The importance-weighted bound on -log p(x) with K samples of z (Burda et al. 2016, eq. 8).

        -log 1/K sum_k w_k,   w_k = p(x|z_k) p(z_k) / q(z_k|x),   z_k ~ q(z|x)

    With K = 1 it is a sample of the negative ELBO; it falls towards -log p(x) as K grows. All
    `log_priors` are judged by the same z. It is differentiable, the objective of IWAE; under
    `torch.no_grad()` only one part of the noise is in memory at a time.

    Args:
        log_px: maps z [N, z_dim] and imgs [N, 1, H, W] to log p(x|z) [N] in nats: `VAE.log_px`.
        imgs: long [B, 1, H, W].
        mean, log_std: float [B, z_dim], of q(z|x).
        noise: standard normal, in parts of any size: float [k, B, z_dim] each, K the sum of the k.
        log_priors: each maps z [N, z_dim] to log p(z) [N] in nats.
    Returns:
        float [len(log_priors), B], bits per dimension.
    Raises:
        ValueError: there is no noise, K = 0.
    """
    total, count = torch.full((len(log_priors), len(imgs)), -math.inf, device=imgs.device), 0
    mean, log_std = at_least_float32(mean), at_least_float32(log_std)
    for part in noise:
        z = mean + log_std.exp() * part
        repeated = imgs.expand(len(part), *imgs.shape).flatten(0, 1)
        log_pxz = log_px(z.flatten(0, 1), repeated).view(z.shape[:2])
        log_qz = gaussian_log_prob(z, mean.expand_as(z), log_std.expand_as(z))
        log_pz = torch.stack([prior(z.flatten(0, 1)).view(z.shape[:2]) for prior in log_priors])
        total = torch.logaddexp(total, (log_pxz + log_pz - log_qz).logsumexp(dim=1))
        count += len(part)
    if count == 0:
        raise ValueError("importance_weighted_bpd needs noise for at least one sample of z")
    return elbo_to_bpd(math.log(count) - total, imgs.shape)


def active_units(means: Tensor, threshold: float = 0.01) -> int:
    """How many latent dimensions the encoder uses (Burda et al. 2016, section 5.1).

    Those whose posterior means, float [N, z_dim], vary over the images by more than the threshold.
    """
    return int((means.var(dim=0, correction=0) > threshold).sum())


def mean_image(logits: Tensor) -> Tensor:
    """The expected grey level of every pixel, scaled to [0, 1] for display.

    logits: float [B, L, H, W]. Returns float [B, 1, H, W].
    """
    check_tensors("logits", ("B", "L", "H", "W"), logits)
    probabilities = at_least_float32(logits).softmax(dim=1)
    levels = torch.linspace(0, 1, logits.shape[1]).to(probabilities)
    return torch.einsum("bvhw,v->bhw", probabilities, levels).unsqueeze(1)


def draw_image(logits: Tensor) -> Tensor:
    """A grey level for every pixel, each drawn on its own from torch's global random stream.

    logits: float [B, L, H, W]. Returns long [B, 1, H, W], values 0..L-1.

    Raises:
        FloatingPointError: the logits are not finite numbers.
    """
    check_tensors("logits", ("B", "L", "H", "W"), logits)
    probabilities = logits.float().softmax(dim=1).permute(0, 2, 3, 1)
    check_finite(probabilities)
    levels = torch.multinomial(probabilities.flatten(0, 2), num_samples=1)
    return levels.view(len(logits), 1, *logits.shape[2:])


def normal_percentiles(num: int) -> Tensor:
    """The percentiles 0.5/n, 1.5/n, ..., (n-0.5)/n of the standard normal: float [num], rising."""
    return torch.special.ndtri((torch.arange(num) + 0.5) / num)


def manifold_grid(grid_size: int) -> Tensor:
    """Points of a two-dimensional latent space, row by row from the upper left: [grid_size^2, 2].

    Each stands for an equal share of the prior. z[0] runs to the right, z[1] upwards.
    """
    axis = normal_percentiles(check_size("grid_size", grid_size))
    upward, rightward = torch.meshgrid(axis.flip(0), axis, indexing="ij")
    return torch.stack([rightward, upward], dim=-1).reshape(-1, 2)


@torch.no_grad()
def visualize_manifold(decoder: nn.Module, grid_size: int = 20) -> Tensor:
    """What the decoder makes of the `manifold_grid` (Kingma & Welling 2014, figure 4).

    Args:
        decoder: maps z [B, 2] to logits [B, L, H, W]; has `z_dim`.
        grid_size: n, pictures per row and per column.
    Returns:
        float [3, n * H, n * W] in [0, 1] on the decoder's device, one image for `save_image`.
    Raises:
        ValueError: the decoder's latent space is not two-dimensional, or grid_size < 1.
    """
    if decoder.z_dim != 2:
        raise ValueError(f"the manifold needs a decoder with z_dim 2, this one has {decoder.z_dim}")
    z = manifold_grid(grid_size).to(next(decoder.parameters()).device)
    images = torch.cat([mean_image(decoder(part)) for part in z.split(500)])
    return make_grid(images, nrow=grid_size, padding=0)
