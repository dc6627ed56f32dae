"""Runs a function in a process of its own without the seconds in which a new Python imports torch.

The processes are copies of one that has imported everything and computed nothing, which
multiprocessing keeps ready (its fork server). What a start itself does, such as its imports and its
warnings, needs a new interpreter.
"""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

FOLDER = Path(__file__).resolve().parent
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["train_pl", "evaluate", "compress", "tiny"])


@cache
def start_server() -> None:
    """The first process starts it too; to start some at a time, it must be there."""
    with mock.patch.dict(os.environ, PYTHONPATH=f"{FOLDER.parent}{os.pathsep}{FOLDER}"):
        forkserver.ensure_running()


def _work(function: Callable, arguments: tuple, folder: Path, env: dict, cwd: Path) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    multiprocessing.set_start_method(None, force=True)  # its own processes start as usual
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    function(*arguments)


class Forked:
    """A process that has begun with `function(*arguments)`; use it as a context.

    Args:
        function: of a module, which the process imports by its name.
        env: more of the environment; cwd: where to be.
    """

    def __init__(
        self,
        function: Callable,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        cwd: str | Path = ".",
    ):
        start_server()
        self._folder = tempfile.TemporaryDirectory()
        self._outputs = Path(self._folder.name)
        how = (self._outputs, {**os.environ, **(env or {})}, Path(cwd).resolve())
        self._process = SERVER.Process(target=_work, args=(function, arguments, *how))
        self._process.start()

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._folder.cleanup()

    def stop(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def ending(self, seconds: float = 300) -> tuple[int | None, str, str]:
        """Exit code, output and complaints, at its end."""
        self._process.join(seconds)
        said = [(self._outputs / name).read_text() for name in ("out", "err")]
        return self._process.exitcode, *said


def run(function: Callable, *arguments: object, **how: object) -> tuple[int | None, str, str]:
    """Exit code, output and complaints of `function(*arguments)`; see `Forked`."""
    with Forked(function, *arguments, **how) as process:
        return process.ending()
