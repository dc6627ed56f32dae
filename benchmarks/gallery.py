"""The picture at the top of the README, from the PNG files of two runs.

python benchmarks/gallery.py RUN RUN_WITH_Z_DIM_2 figures/gallery.png
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.image import imread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="log directory of a default run")
    parser.add_argument("plane", type=Path, help="log directory of a run with --z_dim 2")
    parser.add_argument("figure", type=Path, help="PNG file to write")
    args = parser.parse_args()

    def newest(what: str) -> Path:
        return max(args.run.glob(f"epoch_*_{what}.png"), key=lambda path: path.stat().st_mtime)

    panels = {
        "samples": newest("samples"),
        "validation images over their reconstructions": newest("reconstructions"),
        "the manifold for two latent dimensions": args.plane / "vae_manifold.png",
    }
    figure = Figure(figsize=(12, 4.3), layout="constrained")
    for axes, (title, path) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        axes.imshow(imread(path), interpolation="antialiased")
        axes.set_title(title)
        axes.set_axis_off()
    figure.savefig(args.figure, dpi=110)


if __name__ == "__main__":
    main()
