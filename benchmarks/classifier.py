"""Train the classifier that judges samples: python benchmarks/classifier.py

It learns from MNIST's 60,000 training images in 16 levels, slightly turned, scaled and moved, with
all settings fixed beforehand: neither the test images nor any sample chose one. The same seed,
number of threads and machine give the same file again.
"""

import argparse
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import fmnist
from judging.classifier import Classifier
from train_pl import PRETRAINED

LR, WEIGHT_DECAY, BATCH_SIZE = 4e-3, 0.05, 128
TURN, SCALE, MOVE = 10 / 180 * math.pi, 0.1, 2 / 14  # radians; share; half the image's side is 1


def distorted(imgs: Tensor) -> Tensor:
    """Every image turned, scaled and moved at random; grey levels stay levels (nearest pixel)."""
    angle, scale, *move = torch.rand(4, len(imgs)) * 2 - 1
    angle, scale = TURN * angle, 1 + SCALE * scale
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = [torch.stack([cos, -sin, MOVE * move[0]]), torch.stack([sin, cos, MOVE * move[1]])]
    grid = F.affine_grid(torch.stack(rows).permute(2, 0, 1), list(imgs.shape), align_corners=False)
    return F.grid_sample(imgs.float(), grid, mode="nearest", align_corners=False)


@torch.no_grad()
def accuracy(model: Classifier, data: fmnist.DiscreteImages) -> float:
    right = [model(imgs).argmax(1) for imgs in data.images.split(500)]
    return (torch.cat(right) == data.labels).double().mean().item()


def warmup_and_cosine(step: int, total: int) -> float:
    """The learning rate's share of its peak: a line up over a tenth of the steps, half a cosine."""
    rise = round(0.1 * total)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 + 0.5 * math.cos(math.pi * (step - rise) / (total - rise))


def train(model: Classifier, data: fmnist.DiscreteImages, epochs: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
    steps_per_epoch = len(data) // BATCH_SIZE
    total = epochs * steps_per_epoch
    model.train()
    for epoch in range(epochs):
        start = time.monotonic()
        order = torch.randperm(len(data))[: steps_per_epoch * BATCH_SIZE].split(BATCH_SIZE)
        for step, index in enumerate(order, start=epoch * steps_per_epoch):
            optimizer.param_groups[0]["lr"] = LR * warmup_and_cosine(step, total)
            imgs, labels = data.images[index], data.labels[index]
            loss = F.cross_entropy(model(distorted(imgs)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}/{epochs}  {time.monotonic() - start:.1f} s", flush=True)
    model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=PRETRAINED.with_name("classifier.pt"))
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    model = Classifier().to(memory_format=torch.channels_last)
    train(model, fmnist.load(), args.epochs)
    torch.save(model.state_dict(), args.output)
    test = accuracy(model, fmnist.load(train=False))
    print(
        f"{args.output}: {args.output.stat().st_size / 1e6:.2f} MB, {test:.2%} of the test set "
        f"right, {time.process_time():.0f} CPU seconds"
    )


if __name__ == "__main__":
    main()
