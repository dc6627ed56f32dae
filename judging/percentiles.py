"""How usual a number is: its place among the same numbers of test images."""

import torch
from torch import Tensor

# An image is unusual if log p(z) at its posterior mean lies below this percentile of the test
# images, or its cost above the 99.5th. So at most one test image in 100 is called unusual.
UNUSUAL = 0.5


def hundredths(values: Tensor) -> Tensor:
    """The percentiles 0.5, 1.5, ..., 99.5 of values, float [N]: a short form of them all."""
    return values.quantile((torch.arange(100, device=values.device) + 0.5) / 100)


def percentile(values: Tensor, among: Tensor) -> Tensor:
    """How many percent of `among`, float [M], lie below each value, float [N]: 0..100.

    `among` may be all numbers or their `hundredths`, where 0 and 100 percent are unusual.
    """
    return 100 * torch.searchsorted(among.sort().values, values) / len(among)
