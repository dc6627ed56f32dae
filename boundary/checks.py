"""What public functions expect: types, shapes, values. A training step does not wait for them."""

import math
import operator
from typing import SupportsIndex

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Half precisions to float32, in which sums over 784 pixels keep their digits."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def check_floats(what: str, shape: str, num_dims: int, *tensors: Tensor) -> None:
    """Raises TypeError or ValueError unless all are float tensors of one shape and device.

    Args:
        what: the tensors' names, for the message.
        shape: the expected shape, for the message.
        num_dims: the least number of dimensions.
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


def check_tensor(
    name: str,
    tensor: Tensor,
    dtype: torch.dtype | None,
    shape: tuple[int | str, ...],
    device: torch.device,
    num_values: int | None = None,
    hint: str = "",
) -> None:
    """Raises TypeError (dtype) or ValueError (shape, device, values) with one line that says all.

    Args:
        dtype: None for any floating point.
        shape: sizes; a letter stands for any size.
        num_values: of whole numbers 0..num_values-1. They are looked at where `values_are_checked`.
        hint: what to call.
    """
    fits = isinstance(tensor, Tensor) and tensor.ndim == len(shape)
    fits = fits and all(
        isinstance(size, str) or size == n for size, n in zip(shape, tensor.shape, strict=True)
    )
    error = ValueError
    if not isinstance(tensor, Tensor):
        error, found = TypeError, type(tensor).__name__
    elif not (tensor.is_floating_point() if dtype is None else tensor.dtype == dtype):
        error, found = TypeError, f"{tensor.dtype} {list(tensor.shape)}"
    elif not fits or tensor.device != device:
        found = f"{list(tensor.shape)} on {tensor.device}"
    elif num_values is None or not tensor.numel() or not values_are_checked(tensor):
        return
    else:
        low, high = (value.item() for value in tensor.aminmax())
        if low >= 0 and high < num_values:
            return
        found = f"{low} to {high}"
    kind = {None: "float", torch.long: "long"}.get(dtype, dtype)
    values = "" if num_values is None else f" with values 0..{num_values - 1}"
    expected = f"{kind} [{', '.join(map(str, shape))}]{values} on {device}"
    raise error(f"{name}: expected {expected}, got {found}{hint and ': '}{hint}")


def check_finite(*outputs: Tensor) -> None:
    """Raises FloatingPointError where a model has computed something that is no finite number."""
    known = [output for output in outputs if output.device.type != "meta"]
    if not all(bool(output.isfinite().all()) for output in known):
        raise FloatingPointError(
            "the model's outputs are not finite numbers: train it anew, with a lower --lr"
        )


def values_are_checked(tensor: Tensor) -> bool:
    """Whether a check may read the tensor's values.

    On an accelerator that makes the host wait, so it is not done while gradients are recorded.
    In a compiled function it would split the graph.
    """
    if tensor.device.type == "meta" or torch.compiler.is_compiling():
        return False
    return tensor.device.type == "cpu" or not torch.is_grad_enabled()


def check_size(name: str, value: SupportsIndex) -> int:
    """The value as an int, from any whole number: NumPy's, for example, but no bool.

    Raises:
        ValueError: with the name, unless it is a whole number of at least 1.
    """
    try:
        size = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        size = 0
    if size < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return size


def check_positive(name: str, value: float) -> float:
    """The value as a float, from any number above 0.

    Raises:
        ValueError: with the name, unless it is a finite number above 0.
    """
    if not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be a number above 0, got {value}")
    return float(value)
