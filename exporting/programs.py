"""What is exported: encode, decode and sample, each a function of tensors alone."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmnist import SIDE
from vae import VAE


class Sample(nn.Module):
    """`VAE.sample` as a function of its noise, with no more operations than it needs.

    Latent by latent, a Gaussian is chosen from the learned prior's mixture and z_i drawn from it,
    then the level of every pixel.
    """

    def __init__(self, model: VAE):
        super().__init__()
        prior, self.z_dim = model.prior, model.prior.z_dim
        self.decoder, self.temperature = model.decoder, model.hparams.temperature
        weights = {
            "classes": prior.class_embedding.weight + prior.first.bias,
            "first": (prior.first.weight * prior.first_mask).T,
            "middle": prior.middle.weight * prior.middle_mask,
            "middle_bias": prior.middle.bias,
            "last": (prior.last.weight * prior.last_mask).unflatten(0, (self.z_dim, -1)),
            "last_bias": prior.last.bias.unflatten(0, (self.z_dim, -1)),
        }
        for name, tensor in weights.items():
            self.register_buffer(name, tensor.detach().contiguous())

    def forward(self, labels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Labels long [B] and noise float [B, 2 * z_dim + 784] to the images and their z."""
        choices, steps, pixels = noise.split([self.z_dim, self.z_dim, SIDE**2], dim=1)
        seen, latents = self.classes[labels], []
        for i in range(self.z_dim):
            hidden = F.silu(F.linear(F.silu(seen), self.middle, self.middle_bias))
            mixture = F.linear(hidden, self.last[i], self.last_bias[i])
            log_weights, means, log_stds = mixture.chunk(3, dim=1)
            weights = (log_weights / self.temperature**2).softmax(dim=1)
            k = chosen(weights, choices[:, i : i + 1])
            step = self.temperature * steps[:, i : i + 1]
            z_i = means.gather(1, k) + log_stds.gather(1, k).exp() * step
            seen = seen + z_i * self.first[i]
            latents.append(z_i)
        z = torch.cat(latents, dim=1)
        levels = chosen(self.decoder(z).softmax(dim=1).flatten(2), pixels.unsqueeze(1))
        return levels.unflatten(2, (SIDE, SIDE)), z


def chosen(probabilities: Tensor, noise: Tensor) -> Tensor:
    """Draws from categoricals, by the inverse of their CDF.

    Args:
        probabilities: float [B, K, ...], which sum to 1 over K.
        noise: float [B, 1, ...] from N(0, 1).
    Returns:
        long [B, 1, ...], values 0..K-1.
    """
    uniform = 0.5 * (1 + torch.erf(noise / 2**0.5))
    return (probabilities.cumsum(dim=1)[:, :-1] < uniform).sum(dim=1, keepdim=True)


def programs(model: VAE) -> dict[str, nn.Module]:
    """The modules, by the names that their files get."""
    decode = nn.Sequential(model.decoder, nn.Softmax(dim=1))
    return {"encode": model.encoder, "decode": decode, "sample": Sample(model)}


def example(model: VAE, size: int) -> dict[str, dict[str, Tensor]]:
    """The inputs of every program, by their names, for so many images."""
    z_dim, num_classes = model.prior.z_dim, model.prior.num_classes
    noise = torch.randn(size, 2 * z_dim + SIDE**2)
    return {
        "encode": {"images": torch.randint(model.hparams.num_levels, (size, 1, SIDE, SIDE))},
        "decode": {"z": torch.randn(size, z_dim)},
        "sample": {"labels": torch.randint(num_classes, (size,)), "noise": noise},
    }
