"""The figure of docs/results.md: test bpd against minutes, a line for each recipe.

Solid is the bound with the unit Gaussian, dashed the one with the learned prior, for a CSV file
that has it; the dotted line is where the first recipe ends.

python benchmarks/origin.py --csv origin.csv
python benchmarks/recipe.py --csv recipe.csv
python benchmarks/curve.py figures/curve.png \\
    --curve origin.csv "the origin's recipe" --curve recipe.csv "ours"

The CSV files have at least the columns train_seconds and test_bpd; test_prior_bpd is the bound with
the learned prior. docs/results.md says where those in benchmarks/curves/ come from.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

BOUNDS = {"test_bpd": ("-", ""), "test_prior_bpd": ("--", " with its learned prior")}
COLOURS = ("#3f90da", "#bd1f01", "#832db6", "#ffa90e", "#717581", "#92dadd")  # of petroff10
SHOWN = 0.15  # bpd above the lowest point that the figure shows: the first epochs go off it


def curve_figure(curves: list[tuple[np.ndarray, str]]) -> Figure:
    """What the curves end at is said above them, where no curve can run through it.

    Args:
        curves: rows with named columns, and a name for each.
    """
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    for n, (rows, name) in enumerate(curves):
        minutes = rows["train_seconds"] / 60
        for bound, (style, of) in BOUNDS.items():
            if bound in rows.dtype.names:
                label = f"{name}{of}: {rows[bound][-1]:.4f} after {minutes[-1]:.3g} minutes"
                axes.plot(
                    minutes,
                    rows[bound],
                    style,
                    color=COLOURS[n % len(COLOURS)],
                    marker=".",
                    label=label,
                )
    axes.axhline(curves[0][0]["test_bpd"][-1], ls=":", c="grey", label=f"where {curves[0][1]} ends")
    lowest = min(min(line.get_ydata()) for line in axes.lines)
    axes.set_ylim(lowest - 0.01, lowest + SHOWN)
    axes.set_xlim(left=0)
    axes.set(xlabel="minutes of training, 2 CPU cores", ylabel="test bits per dimension")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", fontsize=9)
    figure.set_size_inches(6.4, 3.6 + 0.2 * len(axes.lines))
    return figure


def read_rows(csv: str | Path) -> np.ndarray:
    """The rows of a CSV file, [N], with its columns by name."""
    return np.atleast_1d(np.genfromtxt(csv, delimiter=",", names=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figure", type=Path, help="PNG file to write")
    parser.add_argument(
        "--curve",
        nargs=2,
        action="append",
        required=True,
        metavar=("CSV", "NAME"),
        help="a curve and its name",
    )
    args = parser.parse_args()
    curves = [(read_rows(csv), name) for csv, name in args.curve]
    curve_figure(curves).savefig(args.figure, dpi=110)


if __name__ == "__main__":
    main()
