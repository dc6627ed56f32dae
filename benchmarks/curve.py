"""The README's figure: test bpd against seconds of training, the origin's recipe and ours.

python benchmarks/origin.py --csv origin.csv --gathered
python benchmarks/recipe.py --csv recipe.csv --seed 42
python benchmarks/speed.py origin                       # the seconds per epoch of both, in one run
python benchmarks/curve.py origin.csv 43.5 recipe.csv 51.0 figures/curve.png
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("origin", "ours"):
        parser.add_argument(name, type=Path, help=f"CSV file of {name}")
        parser.add_argument(f"{name}_seconds", type=float, help="per epoch, its own data pipeline")
    parser.add_argument("figure", type=Path, help="PNG file to write")
    args = parser.parse_args()

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for path, seconds, name in (
        (args.origin, args.origin_seconds, "the origin's recipe"),
        (args.ours, args.ours_seconds, "this repository's default"),
    ):
        epoch, _, _, test_bpd = np.loadtxt(path, delimiter=",", skiprows=1).T
        axes.plot(epoch * seconds / 60, test_bpd, marker=".", label=name)
        axes.annotate(f"{test_bpd[-1]:.4f}", (epoch[-1] * seconds / 60, test_bpd[-1] + 0.006))
    axes.set(xlabel="minutes of training, 2 CPU cores", ylabel="test bits per dimension")
    axes.set_ylim(0.5, 0.65)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(args.figure, dpi=110)


if __name__ == "__main__":
    main()
