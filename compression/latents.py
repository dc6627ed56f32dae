"""How latents are coded: in bins, under the encoder's posterior and the learned prior's mixtures.

Nothing here knows of images: `Posterior` and `Mixtures` take what the networks give.
"""

from typing import NamedTuple

import numpy as np
import torch
from constriction import stream
from torch import Tensor

from inputs.checks import check_finite

Stack = stream.stack.AnsCoder

# Each latent is coded as a whole number of bins of width BIN. A finer grid is not better.
BIN = 2.0**-6
RADIUS = 256  # bins from 0 that a posterior mean may be away: -4 to 4

# constriction gives every bin a probability of at least 2^-24. Among all bins, one draw of z in a
# thousand would fall where the decoder knows nothing, and its image would cost a hundred times the
# usual. So a posterior is cut off where it ends: it has the smallest of these numbers of bins to
# either side that is at least TAILS standard deviations.
WINDOWS = (32, 64, 128, RADIUS)
TAILS = 8
POSTERIOR = {window: stream.model.QuantizedGaussian(-window, window) for window in WINDOWS}
GAUSSIAN = stream.model.QuantizedGaussian(-2 * RADIUS, 2 * RADIUS)  # of the prior's mixtures
TABLE = stream.model.Categorical(perfect=False)


def push_chosen(stack: Stack, chosen: np.ndarray, probabilities: np.ndarray) -> None:
    """Choices int32 [N] under float32 [N, K] each; where there is but one, it needs no bits."""
    if probabilities.shape[1] > 1:
        stack.encode_reverse(chosen, TABLE, probabilities)


def pop_chosen(stack: Stack, probabilities: np.ndarray) -> np.ndarray:
    """`push_chosen` backwards: int32 [N]."""
    if probabilities.shape[1] > 1:
        return stack.decode(TABLE, probabilities)
    return np.zeros(len(probabilities), np.int32)


class Posterior(NamedTuple):
    """q(z|x) of every latent of a batch in bins, float32 [B * z_dim] each, as it is coded.

    The latent is `centre`, a whole number, and an offset from it of -window..window.
    """

    centre: np.ndarray
    window: np.ndarray
    mean: np.ndarray  # of the offset
    std: np.ndarray

    @classmethod
    def in_bins(cls, mean: Tensor, log_std: Tensor) -> "Posterior":
        """That of the encoder's mean and log_std, float32 [B, z_dim] each."""
        check_finite(mean, log_std)
        mean = (mean.flatten() / BIN).clamp(-RADIUS, RADIUS)
        std = (log_std.flatten().exp() / BIN).clamp(1 / 8, RADIUS)  # of no use outside of this
        windows = torch.tensor(WINDOWS)
        fits = torch.bucketize(TAILS * std, windows).clamp(max=len(WINDOWS) - 1)
        window = windows[fits]
        centre = mean.round().clamp(window - RADIUS, RADIUS - window)
        return cls(*(part.numpy() for part in (centre, window, mean - centre, std)))

    def pop(self, stack: Stack) -> np.ndarray:
        """Draws the latents with the bits of the stack: int32 [B * z_dim]."""
        z = self.centre.astype(np.int32)
        for window, model in POSTERIOR.items():
            here = self.window == window
            z[here] += stack.decode(model, self.mean[here], self.std[here])
        return z

    def push(self, stack: Stack, z: np.ndarray) -> None:
        """Puts these bits back: `pop` backwards."""
        offset = z - self.centre.astype(np.int32)
        for window, model in reversed(POSTERIOR.items()):
            here = self.window == window
            # Others are there only where this machine rounds differently from the encoder's.
            offsets = offset[here].clip(-window, window)
            stack.encode_reverse(offsets, model, self.mean[here], self.std[here])


class Mixtures(NamedTuple):
    """The prior's Gaussians for every latent of a batch in bins, float32 [..., K] each."""

    log_weights: Tensor
    means: Tensor
    stds: Tensor

    @classmethod
    def in_bins(cls, log_weights: Tensor, means: Tensor, log_stds: Tensor) -> "Mixtures":
        """Those of `LatentPrior`, in its units."""
        check_finite(log_weights, means, log_stds)
        means = (means / BIN).clamp(-2 * RADIUS, 2 * RADIUS)
        stds = (log_stds.exp() / BIN).clamp(1 / 8, 2 * RADIUS)  # of no use outside of this
        return cls(log_weights, means, stds)

    @property
    def weights(self) -> np.ndarray:
        return self.log_weights.exp().numpy()

    def chosen(self, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of Gaussian k of each mixture, int32 [B]: float32 [B]."""
        index = torch.from_numpy(k).long().unsqueeze(1)
        return tuple(part.gather(1, index).squeeze(1).numpy() for part in (self.means, self.stds))

    def responsibilities(self, z: Tensor) -> Tensor:
        """p(k|z,y), that z comes from this Gaussian: float [..., K] for z in bins, int [...]."""
        distance = (z.unsqueeze(-1) - self.means) / self.stds
        return (self.log_weights - 0.5 * distance.square() - self.stds.log()).softmax(dim=-1)
