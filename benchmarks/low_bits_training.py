"""Trains the model of the low bits of archives: python benchmarks/low_bits_training.py"""

import argparse
import io
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import fmnist
from compression import low_bits
from compression.exact import whole
from compression.low_bits import AROUND, BEFORE, FROM_EDGE, IMPOSSIBLE, OFFSET, OFFSETS, Pixels
from fmnist import SIDE
from inputs.command_line import OneLineParser, check_output, run_main, whole_number
from inputs.files import read_idx, write_whole
from muon import Muon

BATCH, PEAK_LR, WARMUP = 24, 3e-3, 0.05  # images; learning rate; share of the steps


class LowBits(nn.Module):
    """The network that compression/low_bits.py runs on whole numbers.

    Args:
        width: of the hidden layers.
        heads: ways in which pixels can be alike.
        key_dim: numbers by which each is judged.
    """

    def __init__(self, width: int = 192, heads: int = 4, key_dim: int = 16):
        super().__init__()
        self.heads, self.key_dim = heads, key_dim
        known = 3 * len(AROUND) + 16 + 4 * FROM_EDGE
        self.embed = nn.Linear(known, width)
        self.query = nn.Linear(width, heads * key_dim)
        self.key = nn.Linear(width, heads * key_dim)
        self.apart = nn.Parameter(torch.zeros(SIDE * (2 * SIDE - 1), heads))
        self.doubt = nn.Parameter(torch.full((heads,), -3.0))  # log of a uniform vote's weight
        self.static = nn.Linear(width, width)
        self.dynamic = nn.Linear(2 * len(BEFORE) + (OFFSETS + 1) * heads, width, bias=False)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, OFFSETS)
        self.trust = nn.Linear(width, heads)
        nn.init.zeros_(self.trust.weight)
        nn.init.constant_(self.trust.bias, 0.3)

    def votes(self, weights: Tensor, place: Tensor, count: int) -> Tensor:
        """Log of the weighted share of each offset, and last of their weight in all.

        Args:
            weights: float [M, heads], of each pair.
            place: long [M], 24 times its pixel, and its voter's offset.
        Returns:
            float [count, 25, heads]
        """
        table = weights.new_zeros(count * OFFSETS, self.heads).index_add(0, place, weights)
        table, doubt = table.view(count, OFFSETS, self.heads), self.doubt.exp()
        total = table.sum(1, keepdim=True) + doubt
        return torch.cat([(OFFSETS * table + doubt).log() - total.log(), total.log()], dim=1)

    def forward(self, values: np.ndarray) -> Tensor:
        """The cost of the offsets, in nats.

        Args:
            values: uint8 [B, 28, 28], 0..255.
        Returns:
            float [N], for every pixel that is not plainly black.
        """
        pixels = Pixels(low_bits.LEVEL[values])
        offset = OFFSET[values][pixels.where]
        canvas = np.zeros((len(pixels.canvas), 2))
        canvas[pixels.place] = low_bits.SEEN[values[pixels.where]]
        before = canvas[pixels.place[:, np.newaxis] + BEFORE].reshape(len(offset), -1)
        known = pixels.known(slice(None)) / low_bits.ONE
        pairs = pixels.pixel, pixels.voter, pixels.apart, OFFSETS * pixels.pixel
        pixel, voter, apart, place = map(torch.from_numpy, pairs)
        embedded = self.embed(torch.from_numpy(known).float()).relu()
        query, key = (
            layer(embedded).view(-1, self.heads, self.key_dim) for layer in (self.query, self.key)
        )
        alike = (query[pixel] * key[voter]).sum(2) / self.key_dim**0.5 + self.apart[apart]
        offset = torch.from_numpy(offset)
        votes = self.votes(alike.clamp(-15, 8).exp(), place + offset[voter], len(offset))
        seen = torch.cat([torch.from_numpy(before).float(), votes.flatten(1)], dim=1)
        hidden = self.hidden((self.static(embedded) + self.dynamic(seen)).relu()).relu()
        copied = (votes[:, :OFFSETS] @ self.trust(hidden).unsqueeze(2)).squeeze(2)
        impossible = torch.from_numpy(IMPOSSIBLE[pixels.level])
        logits = (self.out(hidden) + copied).masked_fill(impossible, -torch.inf)
        return F.cross_entropy(logits, offset, reduction="none")

    def whole_numbers(self) -> dict[str, np.ndarray]:
        """The weights as archives take them, in their order."""
        weights = {"apart": whole(self.apart), "doubt": whole(self.doubt)}
        for name in low_bits.LowBits.LAYERS:
            layer = getattr(self, name)
            weights[f"{name}.matrix"] = whole(layer.weight).T
            bias = whole(
                layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias
            )
            weights[f"{name}.bias"] = bias
        return weights


def grey_levels(part: str) -> np.ndarray:
    """MNIST's images, `train` or `t10k`, as they are: uint8 [N, 28, 28], 0..255."""
    fmnist.prepare()
    return read_idx(fmnist.DATA_DIR / "MNIST" / "raw" / f"{part}-images-idx3-ubyte.gz")


def train(values: np.ndarray, steps: int) -> LowBits:
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
        loss = model(values[batch.numpy()]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model


@torch.inference_mode()
def bits_per_pixel(model: LowBits, values: np.ndarray) -> float:
    """The mean cost of the offsets of images uint8 [N, 28, 28], over all their pixels."""
    parts = (values[start : start + 50] for start in range(0, len(values), 50))
    nats = sum(model(part).sum(dtype=torch.float64).item() for part in parts)
    return nats / math.log(2) / values.size


def run(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    started = time.process_time()
    check_output("--output", args.output)
    values = grey_levels("train")
    train_index, val_index = fmnist.split_positions(fmnist.NUM_TRAIN, fmnist.NUM_VAL)
    model, file = train(values[train_index.numpy()], args.steps), io.BytesIO()
    np.savez_compressed(file, **model.whole_numbers())
    write_whole(args.output, file.getvalue())
    seconds = time.process_time() - started
    print(f"{args.steps} steps in {seconds:.0f} s of processor time, {args.output}")
    print(f"validation {bits_per_pixel(model, values[val_index.numpy()]):.4f} bits per pixel")
    print(f"test       {bits_per_pixel(model, grey_levels('t10k')):.4f} bits per pixel")


def main(argv: list[str] | None = None) -> None:
    parser = OneLineParser(description="Train the model of the low bits.")
    add = parser.add_argument
    add("--steps", type=whole_number(1), default=2000, help="batches of 24 images")
    seed = whole_number(0, 2**32 - 1)
    add("--seed", type=seed, default=42, help="everything random derives from it")
    help = "file of the weights (default: %(default)s)"
    add("--output", type=Path, default=low_bits.WEIGHTS, help=help)
    run_main(parser, run, argv)


if __name__ == "__main__":
    main()
