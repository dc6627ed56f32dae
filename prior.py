"""A density over the latents that is learned from the encoder's posteriors: the learned prior.

The latents of images, z ~ q(z|x) with x from the data, fill little of N(0, I), so most draws from
N(0, I) lie where no image ever was. A density that is fitted to them gives better samples and a
better bound, and leaves encoder and decoder as they are: ex-post density estimation (Ghosh et al.
2020, "From variational to deterministic autoencoders") or the second stage of Dai & Wipf 2019
("Diagnosing and enhancing VAE models").

A prior of one's own, `VAE(prior=...)`, is any module with these members of `LatentPrior`:

    z_dim, num_classes, log_prob    training and judging; its weights learn from -log_prob
    sample                          samples and all pictures
    autoregressive_steps            exported programs
    class_embedding, masked_layers  archives, which run these layers on whole numbers

The page of explore.py computes a `LatentPrior` in JavaScript, and no other one.
"""

import math
from collections.abc import Generator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import is_autocast_available

from inputs.checks import at_least_float32, check_finite, check_size, check_tensors
from inputs.command_line import InputError


def check_prior(prior: nn.Module, what: str, *needed: str) -> None:
    """Raises InputError, a line with `what`, where a prior of one's own lacks a member."""
    for name in needed:
        if not hasattr(prior, name):
            lacks = f"which {type(prior).__name__} lacks: see prior.py"
            raise InputError(f"{what} need the prior's {name}, {lacks}")


class LatentPrior(nn.Module):
    """p(z): an autoregressive mixture of Gaussians given the class of the image.

        p(z|y) = prod_i sum_k w_ik N(z_i; m_ik, s_ik^2),    p(z) = 1/C sum_y p(z|y)

    Weights w_ik, means m_ik and standard deviations s_ik depend on the class y and on z_1..z_{i-1}.
    One masked network gives all of them in one pass (MADE, Germain et al. 2015), with mixtures of
    Gaussians as in RNADE (Uria et al. 2013).

    It starts as N(0, I) exactly: the middle layer is 0, and so are the outputs, the Gaussians'
    log-weights, means and log-stds. The last layer is random, or all Gaussians of a mixture would
    learn the same.

    Args:
        z_dim: latent dimensions.
        width: hidden units per layer.
        num_components: Gaussians per mixture.
        num_classes: C; 1 for images without labels.
    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self, z_dim: int, width: int = 512, num_components: int = 8, num_classes: int = 10
    ):
        super().__init__()
        self.z_dim = check_size("z_dim", z_dim)
        self.num_components = check_size("num_components", num_components)
        self.num_classes = check_size("num_classes", num_classes)
        self.class_embedding = nn.Embedding(num_classes, check_size("width", width))
        self.first = nn.Linear(z_dim, width)
        self.middle = nn.Linear(width, width)
        self.last = nn.Linear(width, z_dim * 3 * num_components)
        nn.init.zeros_(self.middle.weight)
        nn.init.zeros_(self.middle.bias)
        nn.init.zeros_(self.last.bias)
        # A hidden unit of degree d sees z_1..z_d, and what units of degrees up to d see; the
        # mixture of latent i sees units of degrees below i. Ones where a weight is used.
        latents = torch.arange(1, z_dim + 1)
        hidden = torch.arange(width) * z_dim // width  # degrees 0..z_dim-1, equally often
        outputs = (latents - 1).repeat_interleave(3 * num_components)
        pairs = {"first": (hidden, latents), "middle": (hidden, hidden), "last": (outputs, hidden)}
        for name, (above, below) in pairs.items():
            mask = (above.unsqueeze(1) >= below).to(self.first.weight.dtype)
            self.register_buffer(f"{name}_mask", mask, persistent=False)

    def masked_layers(self) -> list[tuple[Tensor, Tensor]]:
        """Weight, 0 where it is masked, and bias of the three layers that follow one another."""
        layers = {"first": self.first, "middle": self.middle, "last": self.last}
        masks = {name: getattr(self, f"{name}_mask") for name in layers}
        return [(layer.weight * masks[name], layer.bias) for name, layer in layers.items()]

    def conditionals(self, z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mixture of every latent i given the class and z_1..z_{i-1}, all in one pass.

        Those of latent i do not change by a bit with z_i and the latents after it, which may hold
        anything finite: they are multiplied by weights that are exactly 0.

        Args:
            z: float [B, z_dim].
            labels: long [B], values 0..num_classes-1.
        Returns:
            log_weights (normalised: their exp sums to 1), means and log_stds, float
            [B, z_dim, num_components] each, in float32 or better.
        Raises:
            TypeError, ValueError: z or labels are of another type, shape, device or range.
        """
        check_tensors("z", ("B", self.z_dim), z, device=self.first.weight.device)
        self._check_labels(labels, len(z))
        kind = z.device.type if is_autocast_available(z.device.type) else "cpu"
        with torch.autocast(kind, enabled=False):  # half precision loses tenths of nats
            z = z.to(self.first.weight.dtype)
            first, middle, last = self.masked_layers()
            h = F.linear(z, *first) + self.class_embedding(labels)
            out = F.linear(F.silu(F.linear(F.silu(h), *middle)), *last)
        out = at_least_float32(out).view(len(z), self.z_dim, 3, self.num_components)
        log_weights, means, log_stds = out.unbind(dim=2)
        return log_weights.log_softmax(dim=-1), means, log_stds

    def autoregressive_steps(
        self, labels: Tensor
    ) -> Generator[tuple[Tensor, Tensor, Tensor], Tensor, None]:
        """What `conditionals` gives, latent by latent: each is sent back before the next mixture.

        It is the same up to rounding, and bit for bit for two runs that are sent the same latents:
        both run the same operations on the same shapes. A hidden unit is worked out as soon as all
        that it sees is known, so that all steps together take no longer than one pass.

        Args:
            labels: long [B], values 0..num_classes-1.
        Yields:
            log_weights, means and log_stds, float [B, num_components] each; float [B], the latent's
            values, have to be sent back.
        """
        width = self.first.out_features
        # Units before stops[i] are of degrees up to i, rounding as in the masks.
        stops = [-(-(i + 1) * width // self.z_dim) for i in range(self.z_dim)]
        bias = self.first.bias + self.class_embedding(labels)
        z = bias.new_zeros(labels.shape[0], self.z_dim)  # len would end torch.export
        first, middle = torch.zeros_like(bias), torch.zeros_like(bias)
        outputs = 3 * self.num_components
        for i, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
            new = slice(start, stop)  # hidden units that see z_1..z_i
            seen = F.linear(z[:, :i], self.first.weight[new, :i]) + bias[:, new]
            first[:, new] = F.silu(seen)
            seen = F.linear(first[:, :stop], self.middle.weight[new, :stop], self.middle.bias[new])
            middle[:, new] = F.silu(seen)
            rows = slice(i * outputs, (i + 1) * outputs)
            out = F.linear(middle[:, :stop], self.last.weight[rows, :stop], self.last.bias[rows])
            log_weights, means, log_stds = out.unflatten(1, (3, -1)).unbind(dim=1)
            z[:, i] = yield log_weights.log_softmax(dim=-1), means, log_stds

    def log_prob(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(z|y) for these labels, or log p(z) without: the mean of p(z|y) over the classes.

        Args:
            z: float [B, z_dim].
            labels: long [B], values 0..num_classes-1.
        Returns:
            float [B], in nats.
        Raises:
            TypeError, ValueError: see `conditionals`.
        """
        if labels is None:
            classes = torch.arange(self.num_classes, device=z.device)
            each = torch.stack([self.log_prob(z, y.expand(len(z))) for y in classes])
            return each.logsumexp(dim=0) - math.log(self.num_classes)
        log_weights, means, log_stds = self.conditionals(z, labels)
        distance = (z.unsqueeze(-1) - means) * torch.exp(-log_stds)
        log_gaussians = -0.5 * (distance.square() + math.log(2 * math.pi)) - log_stds
        return (log_weights + log_gaussians).logsumexp(dim=-1).sum(dim=-1)

    @torch.no_grad()
    def sample(self, num: int, labels: Tensor | None = None, temperature: float = 1.0) -> Tensor:
        """Draws of z, latent by latent, from torch's global random stream.

        Args:
            num: how many.
            labels: long [num], values 0..num_classes-1: draws from p(z|y); without, the classes
                are drawn too.
            temperature: T > 0, below 1 to keep to the denser places: of each mixture a Gaussian is
                chosen in proportion to w_k^(1/T^2) and drawn from with std T * s_k; 1 is p(z|y).
        Returns:
            float [num, z_dim], on the prior's device.
        Raises:
            TypeError, ValueError: num is no whole number of at least 1, labels do not fit.
            FloatingPointError: the prior's outputs are not finite numbers.
        """
        check_size("num", num)
        if labels is None:
            labels = torch.randint(self.num_classes, (num,), device=self.first.weight.device)
        self._check_labels(labels, num)
        steps, latents = self.autoregressive_steps(labels), [None]
        for _ in range(self.z_dim):
            log_weights, means, log_stds = steps.send(latents[-1])
            weights = (log_weights / temperature**2).softmax(dim=-1)
            check_finite(weights)
            chosen = torch.multinomial(weights, num_samples=1)
            mean, log_std = means.gather(1, chosen), log_stds.gather(1, chosen)
            latents.append((mean + temperature * log_std.exp() * torch.randn_like(mean)).squeeze(1))
        return torch.stack(latents[1:], dim=1)

    def _check_labels(self, labels: Tensor, num: int) -> None:
        device, count = self.first.weight.device, self.num_classes
        check_tensors("labels", (num,), labels, dtype=torch.long, device=device, num_values=count)
