"""Programs as files, read back as somebody else would, and compared with the model itself."""

import io
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from exporting.programs import chosen, example, split_noise
from fmnist import SIDE
from train_pl import VAE

CHECKED = (1, 7)  # images that a program is tried with


def to_file(program: nn.Module, inputs: dict[str, Tensor], suffix: str) -> bytes:
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


def from_file(content: bytes, suffix: str) -> Callable[..., Sequence[Tensor]]:
    """`to_file` backwards, as somebody else would use it."""
    if suffix == ".pt2":
        program = torch.export.load(io.BytesIO(content)).module()
        return lambda *inputs: as_tuple(program(*inputs))
    import onnxruntime  # optional, as is onnxscript, which torch.onnx needs

    session = onnxruntime.InferenceSession(content)
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: Tensor) -> list[Tensor]:
        arrays = (tensor.numpy() for tensor in inputs)
        return [
            torch.from_numpy(o) for o in session.run(None, dict(zip(names, arrays, strict=True)))
        ]

    return run


def as_tuple(outputs: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def expected(model: VAE, name: str, inputs: Sequence[Tensor], found: Sequence[Tensor]) -> tuple:
    """What the model itself gives for a program's inputs, given what the program has found.

    For samples, it is what their z and pixels should be given the z before them.
    """
    if name == "encode":
        return model.encoder(*inputs)
    if name == "decode":
        return (model.decoder(*inputs).softmax(dim=1),)
    labels, noise = inputs
    choices, steps, pixels = split_noise(noise)
    log_weights, means, log_stds = model.prior.conditionals(found[1], labels)
    temperature = model.hparams.temperature
    weights = (log_weights / temperature**2).softmax(dim=2).transpose(1, 2)
    k = chosen(weights, choices.unsqueeze(1)).transpose(1, 2)
    mean, std = means.gather(2, k).squeeze(2), log_stds.gather(2, k).squeeze(2).exp()
    probabilities = model.decoder(found[1]).softmax(dim=1).flatten(2)
    images = chosen(probabilities, pixels).unflatten(2, (SIDE, SIDE))
    return images, mean + temperature * std * steps


@torch.no_grad()
def largest_difference(model: VAE, name: str, program: Callable[..., Sequence[Tensor]]) -> float:
    """Between the program's outputs and the model's own, for 1 and for 7 images.

    As a rounding can take a pixel from one level to the next, one in a thousand may differ.
    """
    differences = []
    for size in CHECKED:
        inputs = tuple(example(model, size)[name].values())
        found = program(*inputs)
        for output, own in zip(found, expected(model, name, inputs, found), strict=True):
            if own.is_floating_point():
                differences.append((output - own).abs().max().item())
            elif (output != own).float().mean() > 1e-3:
                differences.append(float("inf"))
    return max(differences)
