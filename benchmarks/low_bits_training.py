"""Trains the model of the low bits of archives: python benchmarks/low_bits_training.py"""

import argparse
import io
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import fmnist
from compression.low_bits import WEIGHTS, LowBits, load
from inputs.command_line import OneLineParser, check_output, run_main, whole_number
from inputs.files import read_idx, write_whole
from muon import Muon

BATCH, PEAK_LR, WARMUP = 24, 3e-3, 0.05  # images; learning rate; share of the steps


def grey_levels(part: str) -> Tensor:
    """MNIST's images, `train` or `t10k`, as they are: uint8 [N, 28, 28], 0..255."""
    fmnist.prepare()
    path = fmnist.DATA_DIR / "MNIST" / "raw" / f"{part}-images-idx3-ubyte.gz"
    return torch.from_numpy(read_idx(path).copy())


def train(values: Tensor, steps: int) -> LowBits:
    """A model fitted to images uint8 [N, 28, 28]; global random numbers choose their order."""
    model = LowBits()
    optimizer = Muon(model.parameters(), lr=PEAK_LR)
    rise = max(1, round(WARMUP * steps))
    line = LinearLR(optimizer, start_factor=1 / (rise + 1), total_iters=rise)
    cosine = CosineAnnealingLR(optimizer, T_max=max(1, steps - rise))
    schedule = SequentialLR(optimizer, [line, cosine], milestones=[rise])
    epochs = math.ceil(steps * BATCH / len(values))
    order = torch.cat([torch.randperm(len(values)) for _ in range(epochs)])[: steps * BATCH]
    for batch in tqdm(order.split(BATCH), disable=None):
        loss = model(values[batch].long()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


@torch.inference_mode()
def bits_per_pixel(model: LowBits, values: Tensor) -> float:
    """The mean cost of the offsets of images uint8 [N, 28, 28], over all their pixels."""
    nats = sum(model(part.long()).sum(dtype=torch.float64).item() for part in values.split(50))
    return nats / math.log(2) / values.numel()


def run(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    started = time.process_time()
    check_output("--output", args.output)
    values = grey_levels("train")
    train_index, val_index = fmnist.split_positions(fmnist.NUM_TRAIN, fmnist.NUM_VAL)
    file = io.BytesIO()
    torch.save(train(values[train_index], args.steps).half().state_dict(), file)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(args.output, file.getvalue())
    model, seconds = load(args.output), time.process_time() - started
    print(f"{args.steps} steps in {seconds:.0f} s of processor time, {args.output}")
    print(f"validation {bits_per_pixel(model, values[val_index]):.4f} bits per pixel")
    print(f"test       {bits_per_pixel(model, grey_levels('t10k')):.4f} bits per pixel")


def main(argv: list[str] | None = None) -> None:
    """The command line: see `run_main`."""
    parser = OneLineParser(description="Train the model of the low bits.")
    add = parser.add_argument
    add("--steps", type=whole_number(1), default=2000, help="batches of 24 images")
    seed = whole_number(0, 2**32 - 1)
    add("--seed", type=seed, default=42, help="everything random derives from it")
    add("--output", type=Path, default=WEIGHTS, help="file of the weights (default: %(default)s)")
    run_main(parser, lambda: run(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
