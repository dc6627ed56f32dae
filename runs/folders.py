"""The folders of runs: which one is meant, who works there, how long its logs are."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_only

from boundary.command_line import InputError, one_line

LAST = "last.ckpt"
RESULT = "result.json"  # results and settings, written when there is nothing left to do
SETTINGS = "hparams.yaml"  # TensorBoard's logger writes it where it is missing


def find_run(where: str | bool, log_dir: str | Path) -> Path:
    """The folder of the run that --resume means: a folder, its last checkpoint, or the newest.

    Raises:
        InputError: there is no such run.
    """
    if where is True:
        # The processes that Lightning starts must not search: to them the run is in use.
        if rank_zero_only.rank == 0:
            os.environ["TRAIN_PL_RUN"] = str(newest_unfinished(log_dir))
        elif "TRAIN_PL_RUN" not in os.environ:
            raise InputError(
                "argument --resume: name the run, as processes that torchrun or SLURM starts may "
                "each find another"
            )
        where = os.environ["TRAIN_PL_RUN"]
    path = Path(where).absolute()
    last = path / "checkpoints" / LAST if path.is_dir() else path
    if not last.is_file():
        raise InputError(
            f"argument --resume: there is no {last}, nothing to continue: start a new run"
        )
    if last.name != LAST or last.parent.name != "checkpoints":
        raise InputError(
            f"argument --resume: {last} holds a model only, or is not in a run's folder: give the "
            f"folder of a run or the {LAST} in it"
        )
    return last.parent.parent


def newest_unfinished(log_dir: str | Path) -> Path:
    """The run whose last checkpoint is the newest of those without a result that nobody works on.

    Raises:
        InputError: there is none.
    """
    found = []
    for last in Path(log_dir).glob(f"*/checkpoints/{LAST}"):
        folder = last.parent.parent
        if not (folder / RESULT).exists():
            found.append((last.stat().st_mtime_ns, folder))
    for _, folder in sorted(found, reverse=True):
        with suppress(InputError), at_work(folder):
            return folder
    raise InputError(
        f"argument --resume: no unfinished run with a checkpoint in {log_dir}: name another "
        "--log_dir, or start a run without --resume"
    )


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, which ends with the process at the latest, however that ends.

    Raises:
        InputError: another process or thread holds it, or it cannot be made.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(
            f"argument --resume: another process or thread is working on {folder}: wait for its "
            "end, or name another run"
        ) from error
    except OSError as error:
        raise InputError(
            f"{folder / '.lock'} cannot be locked ({error.strerror}): remove it or make it writable"
        ) from error
    try:
        yield
    finally:
        lock.release()


def new_run_folder(log_dir: str | Path) -> Path:
    """Makes the next `version_N`; no two processes get the same one."""
    Path(log_dir).mkdir(parents=True, exist_ok=True)
    taken = [folder.name.removeprefix("version_") for folder in Path(log_dir).glob("version_*")]
    number = max((int(name) for name in taken if name.isdecimal()), default=-1) + 1
    while True:
        folder = Path(log_dir, f"version_{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def log_lengths(folder: Path) -> dict[str, int]:
    """How long TensorBoard's files in a folder are, by their names; links are none of them."""
    files = [file for file in folder.glob("*.tfevents.*") if not file.is_symlink()]
    return {file.name: file.stat().st_size for file in sorted(files)}


def cut_logs(folder: Path, lengths: Mapping[str, int]) -> None:
    """Takes from TensorBoard's files what came after they had these lengths."""
    for name, size in log_lengths(folder).items():
        if (length := lengths.get(name, 0)) == 0:
            (folder / name).unlink()
        elif length < size:
            os.truncate(folder / name, length)


def finished_logs(folder: Path) -> dict[str, int]:
    """How long the logs were when the run was finished.

    Raises:
        InputError: its result is damaged.
    """
    try:
        lengths = json.loads((folder / RESULT).read_text())["logs"]
        if not all(type(length) is int and length > 0 for length in lengths.values()):
            raise ValueError(f"its logs are {lengths}")
    except Exception as error:  # there is no end to what a damaged file can raise
        raise InputError(
            f"argument --resume: {folder / RESULT} cannot be used ({one_line(error)}): remove it, "
            "and resume the run without --epochs first"
        ) from error
    return lengths
