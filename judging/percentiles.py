"""How usual a figure is: its place among the same figures of test images."""

import torch
from torch import Tensor

# Percent. An image is unusual if the learned prior's log p(z) at its posterior mean lies below this
# percentile of the test images', or its cost above the one as far from the other end. Each of the
# two alone is passed by one test image in 200, so that at most one in 100 is called unusual.
UNUSUAL = 0.5


def hundredths(values: Tensor) -> Tensor:
    """The percentiles 0.5, 1.5, ..., 99.5 of values, float [N]: a hundred numbers, rising.

    They stand for all values where these are too many to keep; see `percentile`.
    """
    return values.quantile((torch.arange(100, device=values.device) + 0.5) / 100)


def percentile(values: Tensor, among: Tensor) -> Tensor:
    """How many percent of `among` lie below each value.

    Args:
        values: float [N].
        among: float [M], M >= 1, in any order: figures of test images, or their `hundredths`.
    Returns:
        float [N], 0..100. Among hundredths, 0 is below `UNUSUAL`, and 100 above 100 - UNUSUAL.
    """
    return 100 * torch.searchsorted(among.sort().values, values) / len(among)
