"""Finished runs beside each other: python compare.py VAE_logs/version_0 VAE_logs/version_1 ...

A row stands for the runs that differ in their seed only: means over them, and the standard
deviations of the runs. The columns at the left are the options that differ.
"""

import argparse
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from boundary.command_line import (
    InputError,
    OneLineParser,
    check_writable,
    path_name,
    run_main,
)
from boundary.files import write_whole

RESULT = "result.json"
# Options that make no column. Those of the data do not, as runs of other images are refused.
NO_COLUMN = {"seed", "data_dir", "num_workers", "progress_bar", "keep_epochs"}
NO_COLUMN |= {"dataset", "data", "levels", "like_mnist"}
# What is told of a run: its name in the table, digits after the point. Bounds are in bits per
# dimension, their parts in nats per image.
MEASURES = {
    "test_bpd": ("bpd", 4),
    "test_prior_bpd": ("learned prior", 4),
    "test_importance_weighted_bpd": ("", 4),
    "test_importance_weighted_prior_bpd": ("", 4),
    "test_reconstruction_loss": ("reconstruction", 1),
    "test_regularization_loss": ("KL", 1),
    "test_active_units": ("active", 1),
    "parameters": ("parameters", 0),
    "flops_per_image": ("FLOPs per image", 0),
    "seconds": ("seconds", 0),
}


def read_result(folder: Path) -> dict[str, object]:
    """The result of a finished run: its `options`, `data`, which tells its images from any others,
    and those of `MEASURES` that it has.

    Raises:
        InputError: the folder has no result.json that train_pl.py wrote.
    """
    try:
        result = json.loads((folder / RESULT).read_text())
        options = {**result["options"], **result.get("model", {})}
        record = result.get("trained_on", options)
        data = record["dataset"], record.get("digest")
        for name in ("parameters", "flops_per_image"):  # of each part of the model
            if name in result:
                result[name] = sum(result[name].values())
        measures = {name: float(result[name]) for name in MEASURES if name in result}
    except FileNotFoundError:
        raise InputError(
            f"{folder} has no {RESULT}: give the folders of finished runs, such as "
            "VAE_logs/version_0"
        ) from None
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / RESULT} is not what train_pl.py wrote: give another run"
        ) from error
    return {"folder": folder, "options": options, "data": data, **measures}


def compare(folders: Sequence[Path]) -> list[dict[str, object]]:
    """A row for all runs that differ in their seed only; of a model, all hyperparameters count.

    Returns:
        Rows of one set of columns: the options that differ, with their values; runs, how many;
        every measure that all runs have, the mean, and `<measure>_std`, None of a single run.
    Raises:
        InputError: see `read_result`; a run is given twice, or runs are of different images.
    """
    results = [read_result(folder) for folder in folders]
    places = [folder.resolve() for folder in folders]
    options = [result["options"] for result in results]
    for number, (folder, result) in enumerate(zip(folders, results, strict=True)):
        if places.index(places[number]) < number:
            raise InputError(f"{folder} is given twice: leave one out")
        if result["data"] != results[0]["data"]:
            raise InputError(
                f"{folder} ({result['data'][0]}) and {folders[0]} ({results[0]['data'][0]}) were "
                "trained on different images: compare runs of the same"
            )
    names = dict.fromkeys(name for each in options for name in each if name not in NO_COLUMN)
    differ = [name for name in names if len({str(each.get(name)) for each in options}) > 1]
    groups = {}
    for result in results:
        values = tuple(result["options"].get(name) for name in differ)
        _, runs = groups.setdefault(tuple(map(str, values)), (values, []))
        for other in runs:
            check_differ(other, result)
        runs.append(result)
    measures = [name for name in MEASURES if all(name in result for result in results)]
    rows = []
    for values, runs in groups.values():
        row = {**dict(zip(differ, values, strict=True)), "runs": len(runs)}
        for name in measures:
            found = [run[name] for run in runs]
            row |= {name: mean(found), f"{name}_std": stdev(found) if len(runs) > 1 else None}
        rows.append(row)
    return rows


def check_differ(run: dict[str, object], other: dict[str, object]) -> None:
    """Raises InputError unless two runs of a row have different seeds and equal networks."""
    if run["options"].get("seed") == other["options"].get("seed"):
        raise InputError(
            f"{run['folder']} and {other['folder']} have the same options and seed: leave one out"
        )
    if run.get("parameters") != other.get("parameters"):
        raise InputError(
            f"{run['folder']} and {other['folder']} have the same options and other networks: "
            "compare runs of one model"
        )


def table(rows: list[dict[str, object]]) -> str:
    """The rows for a reader, in columns, without the measures that have no name there."""

    def entry(row: dict[str, object], name: str) -> str:
        if name not in MEASURES:
            return str(row[name])
        digits, deviation = MEASURES[name][1], row[f"{name}_std"]
        shown = f"{row[name]:,.{digits}f}"
        return shown if not deviation else f"{shown} ± {deviation:.{digits}f}"

    titles = {name: MEASURES.get(name, (name,))[0] for name in rows[0] if name[-4:] != "_std"}
    lines = [[title for title in titles.values() if title]]
    lines += [[entry(row, name) for name in titles if titles[name]] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{word:>{width}}" for word, width in zip(line, widths, strict=True))
        for line in lines
    )


def as_csv(rows: list[dict[str, object]]) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        description="Compare finished runs: means and standard deviations over seeds.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=path_name, help="log directories of finished runs")
    parser.add_argument("--csv", type=path_name, help="a file for all measures, with more digits")
    return parser


def main(argv: list[str] | None = None) -> None:
    """The command line: see `run_main`."""
    parser = make_parser()

    def work() -> None:
        args = parser.parse_args(argv)
        if args.csv:
            check_writable("--csv", Path(args.csv).parent)
        rows = compare([Path(run) for run in args.runs])
        if args.csv:
            write_whole(args.csv, as_csv(rows).encode())
        print(table(rows))

    run_main(parser, work)


if __name__ == "__main__":
    main()
