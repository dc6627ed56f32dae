"""The README's figure: test bpd against minutes of training, a line for each recipe.

The dotted line is where the first recipe ends.

python benchmarks/origin.py --csv origin.csv --gathered
python benchmarks/recipe.py --csv recipe.csv --seed 42
python benchmarks/speed.py origin                       # the seconds per epoch of both, in one run
python benchmarks/curve.py figures/curve.png \\
    --curve origin.csv 43.5 "the origin's recipe" --curve recipe.csv 51.0 "the default"
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figure", type=Path, help="PNG file to write")
    parser.add_argument(
        "--curve",
        nargs=3,
        action="append",
        required=True,
        metavar=("CSV", "SECONDS", "NAME"),
        help="a curve, its seconds per epoch with its own data pipeline, and its name",
    )
    args = parser.parse_args()

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()
    for csv, seconds, name in args.curve:
        epoch, _, _, test_bpd = np.loadtxt(csv, delimiter=",", skiprows=1).T
        minutes = epoch * float(seconds) / 60
        (line,) = axes.plot(minutes, test_bpd, marker=".", label=name)
        axes.annotate(
            f"{test_bpd[-1]:.4f}",
            (minutes[-1], test_bpd[-1]),
            xytext=(4, 4),
            textcoords="offset points",
            color=line.get_color(),
        )
    axes.axhline(np.loadtxt(args.curve[0][0], delimiter=",", skiprows=1)[-1, 3], ls=":", c="grey")
    axes.set(xlabel="minutes of training, 2 CPU cores", ylabel="test bits per dimension")
    axes.set_ylim(0.5, 0.65)
    axes.margins(x=0.08)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(args.figure, dpi=110)


if __name__ == "__main__":
    main()
