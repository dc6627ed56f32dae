"""A trained model as programs that plain torch runs, without this repository: torch.export.

    python export.py model.pt2                       # the shipped model
    python export.py VAE_logs/version_0 model.pt2    # a run's best one
    python export.py model.onnx                      # needs pip install onnxscript onnxruntime

There are three programs, for any number B of images, each in a file of its own:

    model_encode.pt2  images long [B, 1, 28, 28] in 0..15  to  mean, log_std of q(z|x), [B, z_dim]
    model_decode.pt2  z float [B, z_dim]                   to  p(x|z), float [B, 16, 28, 28]
    model_sample.pt2  labels long [B] and noise            to  images as above, and their z

The noise is float [B, 2 * z_dim + 784] from N(0, 1); the same noise gives the same images.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import torch

from exporting.files import from_file, largest_difference, to_file
from exporting.programs import example, programs
from inputs.command_line import (
    InputError,
    OneLineParser,
    WorkError,
    check_writable,
    path_name,
    run_main,
)
from inputs.files import write_whole
from runs.from_checkpoint import add_checkpoint
from vae import PRETRAINED, check_logits, load_model

ONNX = ("onnxscript", "onnxruntime")  # optional packages
TRACED, CHECKED = 3, (1, 7)  # batch sizes: of the export, and of the comparisons after it
TOLERANCE = 1e-5


def export(args: argparse.Namespace) -> None:
    """Writes the three files, once each has given what its program gives."""
    output = Path(args.output)
    if output.suffix not in (".pt2", ".onnx"):
        raise InputError(f"argument OUTPUT: {output}: give a name that ends with .pt2 or .onnx")
    if output.suffix == ".onnx" and not all(map(find_spec, ONNX)):
        raise InputError(f"argument OUTPUT: {output}: ONNX needs pip install {' '.join(ONNX)}")
    check_writable("OUTPUT", output.parent)
    model = load_model(args.checkpoint, args.model).to(memory_format=torch.contiguous_format)
    check_logits(model, "exported programs")
    torch.manual_seed(0)
    files = {}
    for name, program in programs(model).items():
        content = to_file(program, example(model, TRACED)[name], output.suffix)
        checked = [example(model, size)[name] for size in CHECKED]
        difference = largest_difference(program, from_file(content, output.suffix), checked)
        if not difference <= TOLERANCE:
            differs = f"{name} differs from the module that it was made of by {difference:g}"
            raise WorkError(f"{differs}: nothing is written")
        files[output.with_stem(f"{output.stem}_{name}")] = content, difference
    for path, (content, difference) in files.items():
        write_whole(path, content)
        size = f"{len(content) / 1e6:.1f} MB"
        print(f"{path}: {size}, differs from the module that it was made of by {difference:.0e}")


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        description="Write a trained model as programs that plain torch runs.",
        example="python export.py VAE_logs/version_0 model.pt2",
    )
    add_checkpoint(parser, PRETRAINED)
    help = "model.pt2 makes model_encode.pt2, model_decode.pt2 and model_sample.pt2; or model.onnx"
    parser.add_argument("output", type=path_name, metavar="OUTPUT", help=help)
    return parser


def main(argv: list[str] | None = None) -> None:
    run_main(make_parser(), export, argv)


if __name__ == "__main__":
    main()
