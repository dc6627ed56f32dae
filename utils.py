"""The maths of the VAE as small pure functions, and pictures of its latent space.

The training loss is the negative evidence lower bound (Kingma & Welling 2014, eq. 3),

    -ELBO(x) = E_q(z|x) [-log p(x|z)] + KL(q(z|x) || p(z))    in nats per image,
                L_rec                   L_reg

with q(z|x) = N(mean, diag(std^2)) from the encoder, p(z) = N(0, I), and p(x|z) one categorical
distribution over the 16 grey levels per pixel from the decoder.
"""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchvision.utils import make_grid


def check_floats(what: str, shape: str, num_dims: int, *tensors: Tensor) -> None:
    """Raises TypeError or ValueError unless all are float tensors of one shape and device.

    Only what a tensor knows without its values is looked at, which costs nothing in a training
    step.

    Args:
        what: the tensors' names, for the message.
        shape: the expected shape, for the message.
        num_dims: at least so many dimensions.
    """
    for tensor in tensors:
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"{what}: expected float tensors {shape}, got {kind}")
    first = tensors[0]
    if first.ndim < num_dims or any(tensor.shape != first.shape for tensor in tensors):
        got = " and ".join(str(list(tensor.shape)) for tensor in tensors)
        raise ValueError(f"{what}: expected the shape {shape}, got {got}")
    if any(tensor.device != first.device for tensor in tensors):
        got = " and ".join(str(tensor.device) for tensor in tensors)
        raise ValueError(f"{what}: expected one device, got {got}")


def check_images(imgs: Tensor, device: torch.device) -> None:
    """Raises TypeError or ValueError unless these are 4-bit images, on that device.

    Args:
        imgs: expected to be long [B, 1, 28, 28], values 0..15. To look at values makes the host
            wait for an accelerator, so that is left out there while gradients are recorded.
        device: where the model is.
    """
    if not isinstance(imgs, Tensor) or imgs.dtype != torch.long:
        kind = imgs.dtype if isinstance(imgs, Tensor) else type(imgs).__name__
        raise TypeError(f"imgs: expected long [B, 1, 28, 28] with values 0..15, got {kind}")
    if imgs.ndim != 4 or imgs.shape[1:] != (1, 28, 28):
        raise ValueError(f"imgs: expected the shape [B, 1, 28, 28], got {list(imgs.shape)}")
    if imgs.device != device:
        raise ValueError(f"imgs: expected on the model's device {device}, got {imgs.device}")
    looked_at = device.type == "cpu" or not torch.is_grad_enabled()
    looked_at &= not torch.compiler.is_compiling()  # a look at values would cut the graph in two
    if looked_at and device.type != "meta" and imgs.numel():
        low, high = (value.item() for value in imgs.aminmax())
        if low < 0 or high > 15:
            raise ValueError(
                f"imgs: expected values 0..15, got {low} to {high}: see fmnist.discretize"
            )


def check_latents(z: Tensor, z_dim: int, device: torch.device) -> None:
    """Raises TypeError or ValueError unless these are latents of a decoder on that device.

    Args:
        z: expected to be float [B, z_dim], finite. Values are looked at only where z comes from
            outside, neither from an encoder in training nor in Lightning's evaluation, where a
            loss that is not finite tells the same.
        z_dim: the decoder's.
        device: where the decoder is.
    """
    check_floats("z", f"[B, {z_dim}]", 2, z)
    if z.ndim != 2 or z.shape[1] != z_dim:
        raise ValueError(f"z: expected the shape [B, {z_dim}], got {list(z.shape)}")
    if z.device != device:
        raise ValueError(f"z: expected on the decoder's device {device}, got {z.device}")
    outside = not z.requires_grad and not torch.is_inference_mode_enabled()
    outside &= not torch.compiler.is_compiling()
    if outside and device.type != "meta" and not bool(z.isfinite().all()):
        raise ValueError("z: expected finite values, got NaN or infinity")


def sample_reparameterize(mean: Tensor, std: Tensor) -> Tensor:
    """z = mean + std * noise with noise ~ N(0, I), differentiable in mean and std.

    The reparameterisation trick (Kingma & Welling 2014, section 2.4); noise comes from torch's
    global random stream.

    Args:
        mean, std: float tensors of one shape, std >= 0.
    Returns:
        z, same shape and dtype.
    Raises:
        TypeError: not float tensors.
        ValueError: other shapes or devices, or a std is negative. Looking at values makes the host
            wait for an accelerator, so that check is left out there while gradients are recorded,
            as in a training step.
    """
    check_floats("mean and std", "[...]", 0, mean, std)
    if std.device.type == "cpu" or not std.requires_grad:
        if bool((std < 0).any()):
            raise ValueError(
                f"std must not be negative, got {std.min().item():g}: is it a log std? "
                "Pass log_std.exp()"
            )
    return mean + std * torch.randn_like(mean)


def kl_per_dimension(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std) || N(0, 1)) in nats of each latent dimension on its own.

        KL_d = 1/2 (std_d^2 - 1 - log std_d^2 + mean_d^2)

    (Kingma & Welling 2014, appendix B.)

    Args:
        mean, log_std: float [..., z_dim].
    Returns:
        float [..., z_dim], >= 0 up to rounding, in nats.
    """
    check_floats("mean and log_std", "[..., z_dim]", 1, mean, log_std)
    # expm1 keeps its digits where std is near 1 and std^2 - 1 would cancel.
    return 0.5 * (torch.expm1(2 * log_std) - 2 * log_std + mean.square())


def KLD(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, std) || N(0, 1)) in nats: `kl_per_dimension` summed over the last dimension.

    Args:
        mean, log_std: float [..., z_dim].
    Returns:
        float [...], >= 0 up to rounding, in nats.
    """
    return kl_per_dimension(mean, log_std).sum(dim=-1)


def reconstruction_loss(logits: Tensor, imgs: Tensor) -> Tensor:
    """-log p(x|z) in nats per image: the cross-entropy summed over the pixels.

    Args:
        logits: float [B, 16, H, W], unnormalised log-probabilities of the grey levels.
        imgs: long [B, 1, H, W], values 0..15.
    Returns:
        float [B], in nats.
    Raises:
        TypeError, ValueError: other types or shapes, and on the CPU grey levels out of range.
    """
    check_floats("logits", "[B, 16, H, W]", 4, logits)
    if imgs.dtype != torch.long:
        raise TypeError(f"imgs: expected long with values 0..15, got {imgs.dtype}")
    if imgs.shape != (len(logits), 1, *logits.shape[2:]) or logits.device != imgs.device:
        raise ValueError(
            "expected logits [B, 16, H, W] and imgs [B, 1, H, W] on one device, got "
            f"{list(logits.shape)} on {logits.device} and {list(imgs.shape)} on {imgs.device}"
        )
    if imgs.device.type == "cpu" and imgs.numel():  # an accelerator would have to be waited for
        low, high = (value.item() for value in imgs.aminmax())
        if low < 0 or high >= logits.shape[1]:
            raise ValueError(f"imgs: expected values 0..{logits.shape[1] - 1}, got {low} to {high}")
    # One row per pixel is no copy of channels_last logits, and the kernel is fastest on rows.
    rows = logits.permute(0, 2, 3, 1).flatten(0, 2)
    return F.cross_entropy(rows, imgs.flatten(), reduction="none").view(len(imgs), -1).sum(dim=1)


def elbo_to_bpd(elbo: Tensor, img_shape: Sequence[int]) -> Tensor:
    """Negative ELBO in nats per image to bits per dimension: elbo / (ln 2 * C * H * W).

    Args:
        elbo: float [B] or the mean over images, a scalar; the negative ELBO in nats.
        img_shape: [B, C, H, W] of the images.
    Returns:
        same shape as elbo, bits per dimension.
    """
    check_floats("elbo", "[B]", 0, elbo)
    if len(img_shape) < 2 or min(img_shape[1:]) < 1:
        raise ValueError(f"img_shape: expected [B, C, H, W], got {list(img_shape)}")
    return elbo / (math.log(2) * math.prod(img_shape[1:]))


@torch.no_grad()
def importance_weighted_bpd(
    decoder: nn.Module, imgs: Tensor, mean: Tensor, log_std: Tensor, noise: Iterable[Tensor]
) -> Tensor:
    """The importance-weighted bound on -log p(x) with K samples of z (Burda et al. 2016, eq. 8).

        -log 1/K sum_k w_k,   w_k = p(x|z_k) p(z_k) / q(z_k|x),   z_k ~ q(z|x)

    For K = 1 it is the negative ELBO with the KL estimated too; it falls towards -log p(x) as K
    grows.

    Args:
        decoder: maps z [N, z_dim] to logits [N, 16, H, W].
        imgs: long [B, 1, H, W], values 0..15.
        mean, log_std: float [B, z_dim], of q(z|x).
        noise: standard normal, in parts of any size: float [k, B, z_dim] each, K the sum of the k.
            Only one part is in memory at a time.
    Returns:
        float [B], bits per dimension.
    Raises:
        ValueError: there is no noise, K = 0.
    """
    total, count = torch.full((len(imgs),), -math.inf, device=imgs.device), 0
    for part in noise:
        z = mean + log_std.exp() * part
        repeated = imgs.expand(len(part), *imgs.shape).flatten(0, 1)
        log_px = -reconstruction_loss(decoder(z.flatten(0, 1)), repeated).view(z.shape[:2])
        # The normalising constants of p(z) and q(z|x) cancel but for the std.
        log_w = log_px + 0.5 * (part.square() - z.square()).sum(dim=-1) + log_std.sum(dim=-1)
        total = torch.logaddexp(total, log_w.logsumexp(dim=0))
        count += len(part)
    if count == 0:
        raise ValueError("importance_weighted_bpd needs noise for at least one sample of z")
    return elbo_to_bpd(math.log(count) - total, imgs.shape)


def active_units(means: Tensor, threshold: float = 0.01) -> int:
    """How many latent dimensions the encoder uses (Burda et al. 2016, section 5.1).

    A dimension is active if the variance of its posterior mean over the data is above the
    threshold.

    Args:
        means: float [N, z_dim], the posterior means of N images.
    """
    return int((means.var(dim=0, correction=0) > threshold).sum())


def interpolate(start: Tensor, end: Tensor, num_steps: int) -> Tensor:
    """Points at equal distances on the line from start to end, both included.

    Args:
        start, end: float [B, z_dim].
        num_steps: points per line.
    Returns:
        float [B, num_steps, z_dim].
    """
    share = torch.linspace(0, 1, num_steps, device=start.device).view(1, -1, 1)
    return torch.lerp(start.unsqueeze(1), end.unsqueeze(1), share)


def mean_image(logits: Tensor) -> Tensor:
    """The expected grey level of every pixel, scaled to [0, 1] for display.

    Args:
        logits: float [B, 16, H, W].
    Returns:
        float [B, 1, H, W] in [0, 1].
    """
    check_floats("logits", "[B, 16, H, W]", 4, logits)
    levels = torch.linspace(0, 1, logits.shape[1], device=logits.device)
    return torch.einsum("bvhw,v->bhw", logits.float().softmax(dim=1), levels).unsqueeze(1)


def orthogonalize(matrices: Tensor, num_steps: int = 5) -> Tensor:
    """About the nearest matrix with orthonormal rows (or columns): U V^T for a matrix U S V^T.

    The odd quintic Newton-Schulz iteration of the Muon optimiser (Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon/), whose coefficients bring small singular values up
    fast and leave all of them around 1, between about 0.7 and 1.2, which is all that a step needs.

    Args:
        matrices: float [N, rows, columns]; a single row or column is brought to length 1 exactly.
        num_steps: iterations; each brings a matrix's singular values closer to each other.
    Returns:
        float [N, rows, columns]; zero for a zero matrix.
    """
    check_floats("matrices", "[N, rows, columns]", 3, matrices)
    _, rows, columns = matrices.shape
    x = matrices if rows <= columns else matrices.mT
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    if min(rows, columns) > 1:
        # X <- (a I + b G + c G^2) X with G = X X^T: as all factors are polynomials in the first G,
        # they are multiplied on the short side, and the long one is met only twice.
        gram = torch.bmm(x, x.mT)
        product = torch.eye(len(gram[0]), dtype=x.dtype, device=x.device).expand_as(gram)
        for _ in range(num_steps):
            factor = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
            factor.diagonal(dim1=1, dim2=2).add_(3.4445)
            product = torch.bmm(factor, product)
            gram = torch.bmm(torch.bmm(factor, gram), factor)
        x = torch.bmm(product, x)
    return x if rows <= columns else x.mT


def pairs_grid(imgs: Tensor, reconstructions: Tensor) -> Tensor:
    """One picture: rows of eight images, each row over the row of their reconstructions.

    Args:
        imgs, reconstructions: float [N, 1, H, W] in [0, 1].
    Returns:
        float [3, height, width] in [0, 1].
    """
    pairs = torch.stack([imgs, reconstructions])
    return make_grid(torch.cat([row for eight in pairs.split(8, dim=1) for row in eight]), nrow=8)


def kl_figure(kl: Tensor) -> Figure:
    """What each latent dimension tells about an image, as bars, the most informative one first.

    Args:
        kl: float [z_dim], in nats, mean over images; see `kl_per_dimension`.
    """
    order = kl.argsort(descending=True)
    figure = Figure(figsize=(max(4.5, 0.25 * len(kl)), 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.bar(range(len(kl)), kl[order].tolist())
    axes.set_xticks(range(len(kl)), [str(d + 1) for d in order.tolist()], fontsize=8)
    axes.set(xlabel="latent dimension", ylabel="KL to the prior in nats per image")
    axes.set_title(f"KL per latent dimension, {kl.sum():.1f} nats in all")
    return figure


def principal_plane(points: Tensor) -> tuple[Tensor, Tensor]:
    """The two directions in which points vary most, by singular value decomposition.

    Args:
        points: float [N, D], D >= 2.
    Returns:
        float [N, 2], the points' coordinates on their first two principal components, and
        float [2], the share of the points' variance that each component explains.
    """
    check_floats("points", "[N, D]", 2, points)
    if points.ndim != 2 or min(points.shape) < 2 or not bool(points.isfinite().all()):
        raise ValueError(
            f"points: expected finite [N, D] with N and D of at least 2, got {list(points.shape)}"
            f"{'' if bool(points.isfinite().all()) else ' with NaN or infinity'}"
        )
    centred = points - points.mean(dim=0)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    return centred @ directions[:2].T, (singular.square() / singular.square().sum())[:2]


def latent_figure(means: Tensor, labels: Tensor) -> Figure:
    """Each image at its posterior mean: the latent plane, or the principal one of more dimensions.

    Args:
        means: float [N, z_dim], z_dim >= 2.
        labels: long [N], classes 0..9, shown as colours.
    """
    check_floats("means", "[N, z_dim]", 2, means)
    if means.shape[1] < 2 or labels.shape != means.shape[:1]:
        raise ValueError(
            "expected means [N, z_dim], z_dim >= 2, and labels [N], got "
            f"{list(means.shape)} and {list(labels.shape)}"
        )
    if not bool(means.isfinite().all()):
        raise ValueError("means: expected finite values, got NaN or infinity")
    names = ["$z_1$", "$z_2$"]
    if means.shape[1] > 2:
        means, shares = principal_plane(means)
        names = [f"principal component {n + 1} ({shares[n]:.0%} of the variance)" for n in (0, 1)]
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    size = 3 if len(means) > 2000 else 12
    how = {"cmap": "tab10", "vmin": -0.5, "vmax": 9.5, "s": size, "linewidths": 0}
    points = axes.scatter(*means.T.numpy(), c=labels.numpy(), **how)
    figure.colorbar(points, ticks=range(10), label="class")
    axes.set(xlabel=names[0], ylabel=names[1], aspect="equal")
    axes.set_title(f"Latent means of {len(means):,} images")
    return figure


@torch.no_grad()
def visualize_manifold(decoder: nn.Module, grid_size: int = 20) -> Tensor:
    """What the decoder makes of a grid over a two-dimensional latent space.

    The grid points are the percentiles 0.5/n, 1.5/n, ..., (n-0.5)/n of the standard normal on
    each axis, so that every picture stands for an equal share of the prior (Kingma & Welling
    2014, figure 4). The first latent dimension runs to the right, the second one upwards.

    Args:
        decoder: maps z [B, 2] to logits [B, 16, H, W]; has `z_dim` and `device`.
        grid_size: n, pictures per row and per column.
    Returns:
        float [3, n * H, n * W] in [0, 1] on the decoder's device, one image for `save_image`.
    Raises:
        ValueError: the decoder's latent space is not two-dimensional, or grid_size < 1.
    """
    if decoder.z_dim != 2:
        raise ValueError(f"the manifold needs a decoder with z_dim 2, this one has {decoder.z_dim}")
    if not isinstance(grid_size, int) or grid_size < 1:
        raise ValueError(f"grid_size must be a whole number of at least 1, got {grid_size!r}")
    percentiles = (torch.arange(grid_size) + 0.5) / grid_size
    axis = torch.special.ndtri(percentiles).to(decoder.device)
    upward, rightward = torch.meshgrid(axis.flip(0), axis, indexing="ij")
    z = torch.stack([rightward, upward], dim=-1).reshape(-1, 2)
    images = torch.cat([mean_image(decoder(part)) for part in z.split(500)])
    return make_grid(images, nrow=grid_size, padding=0)
