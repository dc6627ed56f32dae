"""What is exported: encode, decode and sample, each a function of tensors only."""

import torch
from torch import Tensor, nn

from fmnist import SIDE
from prior import check_prior
from vae import VAE


class Sample(nn.Module):
    """`VAE.sample` as a function of its noise, for priors with `autoregressive_steps`."""

    def __init__(self, model: VAE):
        super().__init__()
        check_prior(model.prior, "exported programs", "autoregressive_steps")
        self.prior, self.decoder = model.prior, model.decoder
        self.temperature = model.hparams.temperature

    def forward(self, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Labels long [B] and noise float [B, 2 * z_dim + 784] to the images and their z."""
        z_dim, T = self.prior.z_dim, self.temperature
        choices, normal, pixels = noise.split([z_dim, z_dim, SIDE**2], dim=1)
        steps, latents = self.prior.autoregressive_steps(labels), [None]
        for i in range(z_dim):
            log_weights, means, log_stds = steps.send(latents[-1])
            k = chosen((log_weights / T**2).softmax(dim=1), choices[:, i : i + 1])
            mean, log_std = means.gather(1, k), log_stds.gather(1, k)
            latents.append((mean + T * log_std.exp() * normal[:, i : i + 1]).squeeze(1))
        z = torch.stack(latents[1:], dim=1)
        levels = chosen(self.decoder(z).softmax(dim=1).flatten(2), pixels.unsqueeze(1))
        return levels.unflatten(2, (SIDE, SIDE)), z


def chosen(probabilities: Tensor, noise: Tensor) -> Tensor:
    """Draws from categoricals by the inverse of their CDF: long [B, 1, ...], values 0..K-1.

    Args:
        probabilities: float [B, K, ...], which sum to 1 over K.
        noise: float [B, 1, ...] from N(0, 1).
    """
    uniform = 0.5 * (1 + torch.erf(noise / 2**0.5))
    return (probabilities.cumsum(dim=1)[:, :-1] < uniform).sum(dim=1, keepdim=True)


def programs(model: VAE) -> dict[str, nn.Module]:
    """The modules, by the names that their files get."""
    decode = nn.Sequential(model.decoder, nn.Softmax(dim=1))
    return {"encode": model.encoder, "decode": decode, "sample": Sample(model)}


def example(model: VAE, size: int) -> dict[str, dict[str, Tensor]]:
    """Random inputs of every program for `size` images."""
    z_dim, num_classes = model.prior.z_dim, model.prior.num_classes
    noise = torch.randn(size, 2 * z_dim + SIDE**2)
    return {
        "encode": {"images": torch.randint(model.hparams.num_levels, (size, 1, SIDE, SIDE))},
        "decode": {"z": torch.randn(size, z_dim)},
        "sample": {"labels": torch.randint(num_classes, (size,)), "noise": noise},
    }
