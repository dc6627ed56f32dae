"""The picture at the top of the README, from one model: python benchmarks/gallery.py FIGURE"""

import argparse
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torchvision.utils import make_grid

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from fmnist import DATA_DIR, load, prepare
from pictures.figures import pairs_grid
from pictures.of_model import interpolation_rows
from train_pl import PRETRAINED, load_model


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figure", help="PNG file to write")
    parser.add_argument("checkpoint", nargs="?", default=PRETRAINED, help="or a run's folder")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    model = load_model(args.checkpoint)
    prepare(DATA_DIR)
    data = load(DATA_DIR, train=False).subset(torch.arange(1000))
    imgs = data.images.long()
    mean, _ = model.encoder(imgs)
    rows = interpolation_rows(model.decoder, data.images, data.labels, mean)
    panels = {
        "samples": make_grid(model.sample(64) / 15, nrow=8),
        "test images over their reconstructions": pairs_grid(
            imgs[:32] / 15, model.reconstruct(imgs[:32])
        ),
        "from one test image to another": make_grid(torch.cat(rows[:8]), nrow=len(rows[0])),
    }
    widths = [grid.shape[2] / grid.shape[1] for grid in panels.values()]
    figure = Figure(figsize=(14, 4.3), layout="constrained")
    subplots = figure.subplots(1, len(panels), width_ratios=widths)
    for axes, (title, grid) in zip(subplots, panels.items(), strict=True):
        axes.imshow(grid.permute(1, 2, 0).numpy(), interpolation="antialiased")
        axes.set_title(title)
        axes.set_axis_off()
    figure.savefig(args.figure, dpi=110)


if __name__ == "__main__":
    main()
