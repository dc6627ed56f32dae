"""The two convolutional networks of the VAE.

encoder   image 28x28 -> f channels at 14x14, two bottlenecks -> 2f at 7x7, residual block -> f/2
          -> mean, log_std
decoder   z -> 2f at 7x7, two residual blocks -> f at 14x14, two bottlenecks -> a channel
          per grey level at 28x28
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inputs.checks import at_least_float32, check_size, check_tensors

MAKE_IMAGES = "fmnist.discretize(images in [0, 1]).view(-1, 1, 28, 28) makes them"
GRID = 7  # the smallest feature maps are 7x7, a quarter of the image's side


class Conv1x1(nn.Conv2d):
    """A 1x1 convolution as what it is, the same linear layer at every place: faster on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.movedim(-3, -1), self.weight.flatten(1), self.bias).movedim(-1, -3)


class ResidualBlock(nn.Module):
    """x + f(x), f being SiLU and convolution in turn; it starts as the identity, f(x) = 0.

    Args:
        channels: of x.
        kernels: side of each convolution's kernel; (1, 3, 1) makes a bottleneck (He et al. 2016).
        width: channels between the convolutions; as many as those of x by default.
    """

    def __init__(self, channels: int, kernels: tuple[int, ...] = (3, 3), width: int | None = None):
        super().__init__()
        widths = [channels, *[width or channels] * (len(kernels) - 1), channels]
        layers = []
        for kernel, (inputs, outputs) in zip(kernels, pairwise(widths), strict=True):
            conv = Conv1x1 if kernel == 1 else nn.Conv2d
            layers += [nn.SiLU(), conv(inputs, outputs, kernel, padding=kernel // 2)]
        self.net = nn.Sequential(*layers)
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


def bottleneck(channels: int) -> ResidualBlock:
    """A residual block of half the width, for the larger feature maps: a third of the time."""
    return ResidualBlock(channels, kernels=(1, 3, 1), width=max(1, channels // 2))


class CNNEncoder(nn.Module):
    """q(z|x): images to the mean and log standard deviation of a diagonal Gaussian.

    Args:
        num_input_channels: 1 for grey images.
        num_filters: channels at 14x14; twice as many at 7x7.
        z_dim: latent dimensions.
        num_levels: L, the grey levels of the images.
    Raises:
        ValueError: a size below 1, a single grey level.
    """

    def __init__(
        self,
        num_input_channels: int = 1,
        num_filters: int = 32,
        z_dim: int = 32,
        num_levels: int = 16,
    ):
        super().__init__()
        self.num_levels = check_size("num_levels", num_levels, at_least=2)
        num_input_channels = check_size("num_input_channels", num_input_channels)
        f = check_size("num_filters", num_filters)
        z_dim = check_size("z_dim", z_dim)
        narrow = max(1, f // 2)  # a wider linear layer overfits
        self.net = nn.Sequential(
            nn.Conv2d(num_input_channels, f, 3, stride=2, padding=1),  # 28 -> 14
            bottleneck(f),
            bottleneck(f),
            nn.SiLU(),
            nn.Conv2d(f, 2 * f, 3, stride=2, padding=1),  # 14 -> 7
            ResidualBlock(2 * f),
            nn.SiLU(),
            Conv1x1(2 * f, narrow, 1),
            nn.Flatten(),
            nn.Linear(narrow * GRID**2, 2 * z_dim),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images long [B, 1, 28, 28] in 0..L-1 to mean and log_std, float [B, z_dim] each."""
        where, shape, levels = self.net[0].weight.device, ("B", 1, 28, 28), self.num_levels
        check_tensors(
            "imgs", shape, x, dtype=torch.long, device=where, num_values=levels, hint=MAKE_IMAGES
        )
        x = x.to(self.net[0].weight.dtype) / (levels - 1) * 2 - 1
        x = x.contiguous(memory_format=torch.channels_last)
        mean, log_std = at_least_float32(self.net(x)).chunk(2, dim=1)
        return mean, log_std


class CNNDecoder(nn.Module):
    """p(x|z): latents to the unnormalised log-probabilities of every pixel's grey levels.

    Upsampling is a transposed convolution whose 2x2 patches meet without overlap.

    Args:
        num_input_channels: L, the number of grey levels (the name is the origin's).
        num_filters: channels at 14x14; twice as many at 7x7.
        z_dim: latent dimensions.
    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, num_input_channels: int = 16, num_filters: int = 32, z_dim: int = 32):
        super().__init__()
        num_input_channels = check_size("num_input_channels", num_input_channels)
        f = check_size("num_filters", num_filters)
        z_dim = check_size("z_dim", z_dim)
        self.z_dim = z_dim
        self.net = nn.Sequential(
            nn.Linear(z_dim, 2 * f * GRID**2),
            nn.Unflatten(1, (2 * f, GRID, GRID)),
            ResidualBlock(2 * f),
            ResidualBlock(2 * f),
            nn.SiLU(),
            nn.ConvTranspose2d(2 * f, f, 2, stride=2),  # 7 -> 14
            bottleneck(f),
            bottleneck(f),
            nn.SiLU(),
            nn.ConvTranspose2d(f, num_input_channels, 2, stride=2),  # 14 -> 28
        )

    def forward(self, z: Tensor) -> Tensor:
        """Latents float [B, z_dim] to logits float [B, L, 28, 28], no softmax."""
        check_tensors("z", ("B", self.z_dim), z, device=self.device)
        grid = self.net[:2](z.to(self.net[0].weight.dtype))
        # Made the faster layout here once, the convolutions keep it.
        return self.net[2:](grid.contiguous(memory_format=torch.channels_last))

    @property
    def device(self) -> torch.device:
        """The device that the parameters are on, and that z must be on."""
        return next(self.parameters()).device
