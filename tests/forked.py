"""Runs a function in a process of its own without the seconds in which a new Python imports torch.

The processes are copies of one that has imported everything and computed nothing, which
multiprocessing keeps ready (its fork server). What a start itself does, such as its imports and its
warnings, needs a new interpreter.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

import torch

FOLDER = Path(__file__).resolve().parent
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["train_pl", "evaluate", "compress", "tiny"])


def _work(function: Callable, arguments: tuple, folder: Path, env: dict, cwd: Path) -> None:
    # A copied process gets torch's pool of threads anew where one first asks for it. Two threads
    # that do so at once, as those of a compiled model, end it: "Invalid thread pool!".
    torch.set_num_threads(1)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    multiprocessing.set_start_method(None, force=True)  # its own processes start as usual
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    function(*arguments)


def run(
    function: Callable,
    *arguments: object,
    env: Mapping[str, str] | None = None,
    cwd: str | Path = ".",
    seconds: float = 300,
) -> tuple[int, str, str]:
    """Exit code, output and complaints of `function(*arguments)`.

    Args:
        function: of a module, which the process imports by its name.
        env: more of the environment; cwd: where to be.
        seconds: after which it is killed, which is exit code -9.
    """
    with mock.patch.dict(os.environ, PYTHONPATH=f"{FOLDER.parent}{os.pathsep}{FOLDER}"):
        forkserver.ensure_running()
    with tempfile.TemporaryDirectory() as folder:
        how = (Path(folder), {**os.environ, **(env or {})}, Path(cwd).resolve())
        process = SERVER.Process(target=_work, args=(function, arguments, *how))
        process.start()
        process.join(seconds)
        process.kill()
        process.join()
        said = [Path(folder, name).read_text() for name in ("out", "err")]
    return process.exitcode, *said
