"""The figure of bpd against training seconds: the origin's recipe and a run of train_pl.py.

python benchmarks/curve.py ORIGIN_CSV RUN_DIRECTORY FIGURE
"""

import argparse
import csv
from pathlib import Path

from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def run_curve(folder: Path) -> tuple[list[float], list[float]]:
    """Seconds since the start and val_bpd, epoch by epoch, from a run's TensorBoard files."""
    files = [EventAccumulator(str(file)) for file in sorted(folder.glob("events*"))]
    for file in files:
        file.Reload()
    events = next(f.Scalars("val_bpd") for f in files if "val_bpd" in f.Tags()["scalars"])
    start = min(f.FirstEventTimestamp() for f in files)
    return [e.wall_time - start for e in events], [e.value for e in events]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("origin", type=Path, help="CSV file of benchmarks/origin.py")
    parser.add_argument("run", type=Path, help="log directory of a run of train_pl.py")
    parser.add_argument("figure", type=Path, help="PNG file to write")
    parser.add_argument("--seconds", type=float, help="the origin's per epoch, if not the CSV's")
    args = parser.parse_args()

    with open(args.origin) as file:
        rows = list(csv.DictReader(file))
    per_epoch = args.seconds or float(rows[-1]["train_seconds"]) / int(rows[-1]["epoch"])
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        [int(row["epoch"]) * per_epoch / 60 for row in rows],
        [float(row["val_bpd"]) for row in rows],
        label="the origin's recipe and pipeline",
        color="tab:gray",
    )
    seconds, bpd = run_curve(args.run)
    axes.plot([s / 60 for s in seconds], bpd, ".-", label="python train_pl.py", color="tab:blue")
    axes.set(xlabel="minutes on 2 CPU cores", ylabel="validation bpd", ylim=(None, 0.62))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(args.figure, dpi=150)


if __name__ == "__main__":
    main()
