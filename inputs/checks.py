"""What public functions expect: types, shapes, values. A training step does not wait for them."""

import math
import operator
from typing import SupportsIndex

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Half precisions to float32, in which sums over 784 pixels keep their digits."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def check_tensors(
    names: str,
    shape: tuple[int | str, ...],
    *tensors: Tensor,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    num_values: int | None = None,
    hint: str = "",
) -> None:
    """Raises TypeError or ValueError, in one line, unless all tensors are of one kind, as expected.

    Args:
        shape: sizes; a word stands for any size, "..." at the beginning for any number of them.
        dtype: None for any floating point.
        device: None for that of the first tensor.
        num_values: of whole numbers 0..num_values-1. They are looked at where `values_are_checked`.
        hint: what to call.
    """
    for tensor in tensors:
        error, found = ValueError, ""
        if not isinstance(tensor, Tensor):
            error, found = TypeError, type(tensor).__name__
        elif not (tensor.is_floating_point() if dtype is None else tensor.dtype == dtype):
            error, found = TypeError, f"{tensor.dtype} {list(tensor.shape)}"
        elif not _fits(tensor.shape, shape) or tensor.device != (device or tensor.device):
            found = f"{list(tensor.shape)} on {tensor.device}"
        elif num_values and tensor.numel() and values_are_checked(tensor):
            low, high = (value.item() for value in tensor.aminmax())
            found = "" if 0 <= low <= high < num_values else f"{low} to {high}"
        if found:
            kind = {None: "float", torch.long: "long"}.get(dtype, dtype)
            values = f" with values 0..{num_values - 1}" if num_values else ""
            place = f" on {device}" if device else ""
            expected = f"{kind} [{', '.join(map(str, shape))}]{values}{place}"
            raise error(f"{names}: expected {expected}, got {found}{hint and ': '}{hint}")
        shape, device = tensor.shape, tensor.device


def _fits(sizes: torch.Size, shape: tuple[int | str, ...]) -> bool:
    if shape and shape[0] == "...":
        return len(sizes) >= len(shape) - 1
    return len(sizes) == len(shape) and all(
        isinstance(n, str) or n == size for n, size in zip(shape, sizes, strict=True)
    )


def check_finite(*outputs: Tensor) -> None:
    """Raises FloatingPointError where something was computed that is no finite number."""
    known = [output for output in outputs if output.device.type != "meta"]
    if not all(bool(output.isfinite().all()) for output in known):
        raise FloatingPointError(
            "the outputs are not finite numbers: the weights or the inputs are far too large"
        )


def values_are_checked(tensor: Tensor) -> bool:
    """Whether a check may read the tensor's values.

    On an accelerator that makes the host wait, so it is not done while gradients are recorded.
    In a compiled function it would split the graph.
    """
    if tensor.device.type == "meta" or torch.compiler.is_compiling():
        return False
    return tensor.device.type == "cpu" or not torch.is_grad_enabled()


def check_size(name: str, value: SupportsIndex, at_least: int = 1) -> int:
    """The value as an int, from any whole number: NumPy's, for example, but no bool.

    Raises:
        ValueError: with the name, unless it is a whole number that large.
    """
    try:
        size = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        size = 0
    if size < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
    return size


def check_positive(name: str, value: float) -> float:
    """The value as a float, from any number above 0.

    Raises:
        ValueError: with the name, unless it is a finite number above 0.
    """
    if not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be a number above 0, got {value}")
    return float(value)
