"""Programs as files, which are read back as another project would, and compared."""

import io
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Inputs = dict[str, Tensor]  # by the names that ONNX knows them by


def to_file(program: nn.Module, inputs: Inputs, suffix: str) -> bytes:
    """A program for any number of images, as a file of torch.export or ONNX."""
    batch = torch.export.Dim("batch")
    exported = torch.export.export(
        program, tuple(inputs.values()), dynamic_shapes=tuple({0: batch} for _ in inputs)
    )
    if suffix == ".onnx":
        made = torch.onnx.export(exported, input_names=[*inputs], verbose=False)
        return made.model_proto.SerializeToString()
    file = io.BytesIO()
    torch.export.save(exported, file)
    return file.getvalue()


def from_file(content: bytes, suffix: str) -> Callable[[Inputs], Tensor | Sequence[Tensor]]:
    """The program in a file of `to_file`, as a function of the inputs."""
    if suffix == ".pt2":
        program = torch.export.load(io.BytesIO(content)).module()
        return lambda inputs: program(*inputs.values())
    import onnxruntime  # optional, as is onnxscript, which torch.onnx needs

    session = onnxruntime.InferenceSession(content)

    def run(inputs: Inputs) -> list[Tensor]:
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        return [torch.from_numpy(output) for output in session.run(None, arrays)]

    return run


@torch.no_grad()
def largest_difference(program: nn.Module, other: Callable, batches: Sequence[Inputs]) -> float:
    """The largest difference between the outputs of a program and of its file.

    A rounding can take a pixel to the next level, so one pixel in a thousand may differ.
    """
    differences = []
    for inputs in batches:
        expected, found = program(*inputs.values()), other(inputs)
        for own, output in zip(as_tuple(expected), as_tuple(found), strict=True):
            if own.is_floating_point():
                differences.append((output - own).abs().max().item())
            elif (output != own).float().mean() > 1e-3:
                differences.append(float("inf"))
    return max(differences)


def as_tuple(outputs: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs
