"""The folders of runs: which one is meant, and that nobody else works there."""

import itertools
import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_only

from inputs.command_line import InputError

CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"
TABLE = "metrics.csv"
RESULT = "result.json"  # results and options, written when there is nothing left to do
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
        where = os.environ.get("TRAIN_PL_RUN", "the name of the run, which torchrun needs")
    path = Path(where).absolute()
    last = path / CHECKPOINTS / LAST if path.is_dir() else path
    if not last.is_file() or last.parts[-2:] != (CHECKPOINTS, LAST):
        raise InputError(
            f"argument --resume: {path} is no run that can go on: give a folder with "
            f"{CHECKPOINTS}/{LAST} in it, or start a new run"
        )
    return last.parent.parent


def newest_unfinished(log_dir: str | Path) -> Path:
    """The run whose last checkpoint is the newest of those without a result that nobody works on.

    Raises:
        InputError: there is none.
    """
    last_ones = Path(log_dir).glob(f"*/{CHECKPOINTS}/{LAST}")
    unfinished = [last for last in last_ones if not (last.parent.parent / RESULT).exists()]
    for last in sorted(unfinished, key=lambda last: last.stat().st_mtime_ns, reverse=True):
        folder = last.parent.parent
        with suppress(InputError, OSError), locked(folder):  # that of somebody else, for example
            return folder
    raise InputError(
        f"argument --resume: no unfinished run with a checkpoint in {log_dir}: name another "
        "--log_dir, or start a run without --resume"
    )


def locked(folder: Path) -> AbstractContextManager:
    """Holds the folder's lock, which ends with the process at the latest, however that ends.

    Raises:
        InputError: another process or thread holds it.
    """
    try:
        return FileLock(folder / ".lock").acquire(blocking=False)
    except Timeout as error:
        raise InputError(
            f"argument --resume: another process or thread is working on {folder}: wait for its "
            "end, or name another run"
        ) from error


def new_folder(log_dir: str | Path) -> Path:
    """Makes the next `version_N`; no two processes get the same one."""
    Path(log_dir).mkdir(parents=True, exist_ok=True)
    taken = [folder.name.removeprefix("version_") for folder in Path(log_dir).glob("version_*")]
    last = max((int(name) for name in taken if name.isdecimal()), default=-1)
    for number in itertools.count(last + 1):
        folder = Path(log_dir, f"version_{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
