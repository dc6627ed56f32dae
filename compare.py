"""Finished runs beside each other: python compare.py VAE_logs/version_0 VAE_logs/version_1 ...

A row stands for the runs that differ in their seed only: means over them, and the standard
deviations of the runs. The columns at the left are the options that differ.
"""

import argparse
import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev

from inputs.command_line import InputError, OneLineParser, check_output, path_name, run_main
from inputs.files import write_csv

RESULT = "result.json"
# Options without a column: they change no result, or name the images, which are always the same.
NO_COLUMN = {"seed", "data_dir", "num_workers", "progress_bar", "keep_epochs"}
NO_COLUMN |= {"dataset", "data", "levels", "like_mnist", "bits"}
# Numbers of a run: the name in the table, if it is there, and the digits after the point. Bounds
# are in bits per dimension, their terms in nats per image.
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
    """The result of a finished run: `options`, `data`, which identifies its images, and `MEASURES`.

    Raises:
        InputError: the folder has no result.json that train_pl.py wrote.
    """
    try:
        result = json.loads((folder / RESULT).read_text())
        options, data = result["options"] | result["model"], result["trained_on"]
        options["seeded"] = result.get("seeded", True)  # the weights at the start are the seed's
        if len(lengths := result.get("lengths", [])) > 1:  # another training than one so long
            options["epochs"] = ", then ".join(map(str, lengths))
        for name in ("parameters", "flops_per_image"):  # of each part of the model
            result[name] = sum(result[name].values())
        measures = {name: float(result[name]) for name in MEASURES if name in result}
        images = data["dataset"], data.get("digest") or data["dataset"], data.get("bits", 4)
    except FileNotFoundError:
        raise InputError(
            f"{folder} has no {RESULT}: give the folders of finished runs, such as "
            "VAE_logs/version_0"
        ) from None
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder / RESULT} is not what train_pl.py wrote: give another run"
        ) from error
    return {"folder": folder, "options": options, "data": images, **measures}


def compare(folders: Sequence[Path]) -> list[dict[str, object]]:
    """A row for all runs that differ only in their seed.

    Returns:
        Rows with the same columns: the options that differ; runs, how many; the mean of every
        measure that all runs have, and `<measure>_std`, which is None for a single run.
    Raises:
        InputError: see `read_result`; or runs are the same, or of different images or networks.
    """
    results = [read_result(folder) for folder in folders]
    first, options = results[0], [result["options"] for result in results]
    names = dict.fromkeys(name for each in options for name in each if name not in NO_COLUMN)
    differ = [name for name in names if len({str(each.get(name)) for each in options}) > 1]
    groups = {}
    for result in results:
        if result["data"][1:] != first["data"][1:]:  # a digest, under whatever name
            raise InputError(
                f"{result['folder']} ({result['data'][0]}) and {first['folder']} "
                f"({first['data'][0]}) were trained on different images: compare runs of the same"
            )
        values = [str(result["options"].get(name)) for name in differ]
        groups.setdefault(tuple(values), []).append(result)
    measures = [name for name in MEASURES if all(name in result for result in results)]
    rows = []
    for runs in groups.values():
        for run, other in combinations(runs, 2):
            both = f"{run['folder']} and {other['folder']} have the same options and"
            seeds = run["options"].get("seed"), other["options"].get("seed")
            twice = run["folder"].resolve() == other["folder"].resolve()
            if twice or (run["options"]["seeded"] and seeds[0] == seeds[1]):
                raise InputError(f"{both} seed: leave one out")
            if run["parameters"] != other["parameters"]:
                raise InputError(f"{both} other networks: compare runs of one model")
        row = {**{name: runs[0]["options"].get(name) for name in differ}, "runs": len(runs)}
        for name in measures:
            found = [run[name] for run in runs]
            row |= {name: mean(found), f"{name}_std": stdev(found) if len(runs) > 1 else None}
        rows.append(row)
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """The rows as text in columns, without the measures that have no name."""
    columns = []
    for name in rows[0]:
        title, digits = MEASURES.get(name, (name, None))
        column = [title]
        for row in rows:
            shown = str(row[name]) if digits is None else f"{row[name]:,.{digits}f}"
            deviation = row.get(f"{name}_std")
            column.append(f"{shown} ± {deviation:.{digits}f}" if deviation else shown)
        if title and not name.endswith("_std"):
            columns.append([word.rjust(max(map(len, column))) for word in column])
    return "\n".join("  ".join(line) for line in zip(*columns, strict=True))


def show(args: argparse.Namespace) -> None:
    """Prints the table, and writes it with all measures."""
    if args.csv:
        check_output("--csv", Path(args.csv), b"test_bpd")
    rows = compare([Path(run) for run in args.runs])
    if args.csv:
        write_csv(args.csv, rows)
    print(table(rows))


def make_parser() -> argparse.ArgumentParser:
    says = "Compare finished runs: means and standard deviations over seeds."
    parser = OneLineParser(description=says, example="python compare.py VAE_logs/version_*")
    parser.add_argument("runs", nargs="+", type=path_name, help="log directories of finished runs")
    parser.add_argument("--csv", type=path_name, help="a file for all measures, with more digits")
    return parser


def main(argv: list[str] | None = None) -> None:
    run_main(make_parser(), show, argv)


if __name__ == "__main__":
    main()
