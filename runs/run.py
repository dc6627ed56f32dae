"""What keeps a run from being lost: its folder, its last checkpoint, its lock, its end.

Nothing here knows what is trained. A run that is killed at any moment goes on from `last.ckpt` and
ends with the same files, because
- all randomness of an epoch derives from (seed, epoch, process), never from what came before;
- a file is complete beside its place before it is moved there (`write_whole`);
- `last.ckpt` is the last thing that an epoch writes, and says how long the logs were by then;
- an outdated best checkpoint is removed only after that.
"""

import argparse
import difflib
import json
import math
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities import rank_zero_only

from boundary.checkpoints import read_checkpoint
from boundary.command_line import InputError, given_options, one_line, to_argv
from boundary.files import write_whole
from runs.folders import (
    LAST,
    RESULT,
    SETTINGS,
    at_work,
    cut_logs,
    find_run,
    finished_logs,
    log_lengths,
    new_run_folder,
)
from runs.stopping import Stopped, cause_on_disk, quiet_writers

# Options that may be others when a run is resumed, as they do not change its result; of --devices
# and --num_nodes only the product does, the number of processes.
MAY_DIFFER = {"log_dir", "data_dir", "data", "num_workers", "progress_bar", "resume"}
MAY_DIFFER |= {"accelerator", "strategy", "devices", "num_nodes"}
WHERE = {"log_dir", "resume"}  # options that say where a run is, and are none of its own


class Run:
    """A run at work: its options, its folder and, if it is resumed, what its last checkpoint says.

    A context: from the moment on that it has a folder until the end of the block, no other process
    and no other thread can work there. Only rank zero holds the lock and writes.

    Args:
        parser: of the command line; its types and defaults are those of the options.
        options: the options that are given, by name; others take the run's or the parser's values.
    Attributes:
        settings: all options.
        folder: None until `begin` for a new run.
        state: what `RunCheckpoint` put into the last checkpoint, None for a new run.
    Raises:
        InputError: an option makes no sense or contradicts those of the run to resume; that run
            is not there, damaged, finished, or at work.
    """

    def __init__(self, parser: argparse.ArgumentParser, options: Mapping[str, object]):
        self.folder, self.state, self.held = None, None, ExitStack()
        known = vars(parser.parse_args([]))
        for name in options.keys() - known.keys():
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise InputError(f"there is no option {name!r}: did you mean {nearest!r}?")
        self.given = given_options(parser, to_argv(options))
        self.settings = parser.parse_args(to_argv(self.given))
        if "resume" in self.given:
            folder = find_run(self.given["resume"], self.settings.log_dir)
            try:
                self._hold(folder)
                self._read(parser)
            except BaseException:
                self.held.close()
                raise

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *exception: object) -> None:
        self.held.close()

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / LAST

    @property
    def finished(self) -> bool:
        return (self.folder / RESULT).exists()

    @property
    def step(self) -> int:
        """Steps that the last checkpoint holds; at 0 a resumed run begins from its start."""
        return self.state["step"] if self.state else 0

    @property
    def seconds(self) -> float:
        """From its beginning on; a resumed run goes on from what its last checkpoint says."""
        return (self.state["seconds"] if self.step else 0.0) + time.monotonic() - self.begun

    @property
    def options(self) -> dict[str, object]:
        """What is set, without what only says where the run is."""
        return {k: v for k, v in vars(self.settings).items() if k not in WHERE}

    @property
    def command(self) -> str:
        """How to continue it."""
        epochs = self.settings.epochs
        more = f" --epochs {epochs}" if self.state and epochs > self.state["epochs"] else ""
        return f"python train_pl.py --resume {shlex.quote(str(self.folder))}{more}"

    def _hold(self, folder: Path) -> None:
        self.folder = folder
        if rank_zero_only.rank == 0:
            self.held.enter_context(at_work(folder))

    def _read(self, parser: argparse.ArgumentParser) -> None:
        """Takes the options from the run; what the command line says must not contradict them."""
        before, self.state = read_state(self.last, parser)
        for name, value in self.given.items():
            of_run = getattr(before, name)
            if (
                name not in MAY_DIFFER
                and value != of_run
                and not (name == "epochs" and value > of_run)
            ):
                raise InputError(
                    f"argument --{name}: the run in {self.folder} has {of_run}, not {value}: "
                    f"leave it out{', or give more' if name == 'epochs' else ''}"
                )
        log_dir = self.folder.parent
        if (given := Path(self.given.get("log_dir", log_dir))).absolute() != log_dir:
            raise InputError(
                f"argument --log_dir: the run is in {log_dir}, not {given}: leave it out"
            )
        self.state["epochs"] = before.epochs
        self.settings = argparse.Namespace(**{**vars(before), **self.given})
        self.settings.log_dir = str(log_dir)
        if self.finished and self.settings.epochs == before.epochs:
            raise InputError(
                f"argument --resume: the run in {self.folder} is finished: to train it for more "
                f"than its {before.epochs} epochs, give --epochs"
            )

    def begin(self, processes: int) -> None:
        """Makes a new run's folder; a resumed one's logs end again where its last checkpoint does.

        Raises:
            InputError: the run to resume had another number of processes.
        """
        self.processes, self.begun = processes, time.monotonic()
        if self.state is None:
            log_dir = Path(self.settings.log_dir)
            first = rank_zero_only.rank == 0  # the others are told the folder by Lightning
            self._hold(new_run_folder(log_dir) if first else log_dir / "none")
            return
        if (before := self.state["processes"]) != processes:
            raise InputError(
                f"argument --devices: the run in {self.folder} has {before} processes, not "
                f"{processes}: give as many, as the batches of a step depend on it"
            )
        if rank_zero_only.rank == 0:
            # A finished run keeps its test results until one more epoch has been saved.
            self.outdated = finished_logs(self.folder) if self.finished else {}
            cut_logs(self.folder, self.outdated or (self.state["logs"] if self.step else {}))

    def fit(
        self,
        trainer: pl.Trainer,
        model: pl.LightningModule,
        data: object,
        checkpoint: Checkpoint,
    ) -> None:
        """`trainer.fit`, from the last checkpoint on.

        Raises:
            InputError: that checkpoint cannot be continued.
        """
        if self.step:
            for logger in trainer.loggers:
                logger.log_metrics(self.state["unlogged"], step=self.step - 1)
        try:
            path = self.last if self.step else None
            trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
        except Exception as error:  # there is no end to what a damaged file can raise
            if not checkpoint.restoring or isinstance(error, InputError):
                raise
            raise InputError(
                f"argument --resume: {self.last} cannot be continued ({one_line(error)}): it is "
                "damaged or of another version"
            ) from error

    def outdate_result(self) -> None:
        """Takes the result of a finished run away, as one more epoch is about to be saved."""
        if self.state and self.finished:
            (self.folder / SETTINGS).unlink(missing_ok=True)  # they will be written anew
            (self.folder / RESULT).unlink()
            kept = {name: self.state["logs"].get(name, 0) for name in self.outdated}
            cut_logs(self.folder, log_lengths(self.folder) | kept)

    def finish(self, result: Mapping[str, object]) -> None:
        """Writes the result, after which there is nothing left to do; the logs are complete."""
        if rank_zero_only.rank == 0:
            about = {"options": self.options, "seconds": round(self.seconds, 1)}
            result = {**result, **about, "logs": log_lengths(self.folder)}
            write_whole(self.folder / RESULT, json.dumps(result, indent=2).encode())

    @contextmanager
    def explain_failures(self) -> Iterator[None]:
        """Turns the run's end by a signal, a full disk or a loss that is not finite into one line.

        Raises:
            Stopped: with that line as its message.
            FloatingPointError, OSError: that line.
        """
        before = Stopped.message
        self.say_how_to_continue()
        try:
            with quiet_writers():
                yield
        except Stopped as stopped:
            stopped.message = f"stopped; {self._remedy()}"
            raise
        except InputError:
            raise
        except FloatingPointError as error:
            raise FloatingPointError(f"{error}; the last good checkpoint is {self.last}") from error
        except Exception as error:
            if (cause := cause_on_disk(error)) is None:
                raise
            if isinstance(cause, BrokenPipeError):
                raise OSError(f"nobody reads the output any more; {self._remedy()}") from error
            raise OSError(
                f"cannot write into {self.folder} ({cause.strerror}): make room or restore the "
                f"folder, then {self._remedy()}"
            ) from error
        finally:
            Stopped.message = before

    def say_how_to_continue(self) -> None:
        """To be said where a signal ends the process while it is at work in native code."""
        if self.last.exists():  # before that, it has not begun
            Stopped.message = f"stopped; {self._remedy()}"

    def _remedy(self) -> str:
        if self.last.exists():
            return f"continue with: {self.command}"
        return "no checkpoint is left: start again"


def read_state(last: Path, parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, dict]:
    """The options of a run and what else its last checkpoint, which is not trusted, says of it.

    Raises:
        InputError: the checkpoint cannot be used.
    """
    content = read_checkpoint(last)
    try:
        state = dict(content["run"])
        options = vars(parser.parse_args([])).keys() - WHERE
        if not {word.split("=")[0] for word in state["argv"]} <= {f"--{o}" for o in options}:
            raise ValueError(f"its options are {state['argv']}")
        settings = parser.parse_args(state["argv"])
        counts = [state["step"], state["processes"] - 1, *state["logs"].values()]
        if not all(type(n) is int and n >= 0 for n in counts):
            raise ValueError(f"it says {counts}")
        for name, n in {"seconds": state["seconds"], **state["unlogged"]}.items():
            if type(name) is not str or type(n) is not float or not 0 <= n < math.inf:
                raise ValueError(f"it says {name}: {n}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else one_line(error)
        raise InputError(
            f"argument --resume: {last} cannot be continued ({why}): it is damaged or of another "
            "version"
        ) from error
    return settings, state
