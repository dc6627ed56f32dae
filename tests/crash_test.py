"""Kills a training again and again, resumes it, and compares it with one that was left alone.

    python tests/crash_test.py              # 20 kills, see also --help

Every kill is a SIGKILL: most at a random time, every fourth at a random point of the writing of a
checkpoint or of its removal. Weights, optimiser, metrics, TensorBoard's curves and pictures, and
the names and contents of all files that a run leaves must be the same, bit by bit.
"""

import argparse
import contextlib
import csv
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import forked
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import tiny_data, undrawn
from torch import Tensor

import train_pl
from runs import folders
from runs.folders import TABLE

OPTIONS = ["--num_filters", "4", "--z_dim", "3", "--batch_size", "12", "--lr", "0.01", "--epochs"]


def at_every_moment(moment: Callable[[], None]) -> contextlib.ExitStack:
    """Inside, this is called before and after whatever happens to a checkpoint's files."""

    def around(function):
        def wrapped(*args, **how):
            moment()
            result = function(*args, **how)
            moment()
            return result

        return wrapped

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(os, "replace", around(os.replace)))
    stack.enter_context(mock.patch.object(os, "fsync", around(os.fsync)))
    stack.enter_context(mock.patch.object(Path, "unlink", around(Path.unlink)))
    return stack


def stop(*_: object, number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def on_step(number: int, act: Callable[[], object] = stop) -> mock._patch:
    """Inside, `act` is called in the training step of this number, counted from 1."""
    steps = iter(range(1, 10**6))
    step = train_pl.VAE.training_step

    def training_step(self, batch, batch_idx):
        if next(steps) == number:
            act()
        return step(self, batch, batch_idx)

    return mock.patch.object(train_pl.VAE, "training_step", training_step)


def work(arguments: list[str], kill_at: int | None) -> None:
    """For a process of its own: the program on the tiny data."""
    with tiny_data(), undrawn(), contextlib.ExitStack() as stack:
        if kill_at is not None:
            moments = iter(range(kill_at + 1))

            def kill_self() -> None:
                if next(moments) == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

            stack.enter_context(at_every_moment(kill_self))
        train_pl.main(["--accelerator", "cpu", "--devices", "1", *arguments])


def same(a: object, b: object) -> bool:
    """Whether two contents of a checkpoint are the same, bit by bit."""
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def curves(run: Path) -> dict[str, list]:
    """All points and pictures that TensorBoard shows of a run."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of what it purges
    events = EventAccumulator(str(run), {"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    return {
        **{tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags["scalars"]},
        **{
            f"picture {tag}": [(e.step, e.encoded_image_string) for e in events.Images(tag)]
            for tag in tags["images"]
        },
    }


def comparable(file: Path) -> object:
    """The content of a run's file, without the seconds, which nobody measures the same again."""
    if file.suffix == ".ckpt":
        content = torch.load(file, weights_only=True)
        run = content.get("run", {"seconds": 0, "rows": []})  # the best one has weights only
        measured = [run, *run["rows"]]
    elif file.name == folders.RESULT:
        measured = [content := json.loads(file.read_bytes())]
    elif file.name == TABLE:
        measured = content = list(csv.DictReader(file.read_text().splitlines()))
    else:
        return file.read_bytes()
    for each in measured:
        del each["seconds"]
    return content


def differences(a: Path, b: Path) -> list[str]:
    """What differs between two runs' folders."""
    uncompared = ("tfevents", ".unfinished-")  # the second is what a kill within a write leaves
    files = [{str(f.relative_to(run)) for f in run.rglob("*") if f.is_file()} for run in (a, b)]
    names = [{n for n in some if not any(part in n for part in uncompared)} for some in files]
    found = [f"only in one: {name}" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        if not same(comparable(a / name), comparable(b / name)):
            found.append(name)
    one, other = curves(a), curves(b)
    found += [f"curve {tag}" for tag in one.keys() | other.keys() if one.get(tag) != other.get(tag)]
    return found


def crash_test(kills: int, epochs: int, seed: int, workers: int) -> list[str]:
    """Returns what is wrong, line by line."""
    chance = random.Random(seed)
    options = [*OPTIONS, str(epochs), "--num_workers", str(workers)]
    with tempfile.TemporaryDirectory() as folder:
        folder, begun = Path(folder), time.monotonic()
        code, _, said = forked.run(work, [*options, "--log_dir", str(folder / "alone")], None)
        if code != 0:
            return [f"the undisturbed run failed: {said}"]
        duration = time.monotonic() - begun
        print(f"undisturbed: {duration:.1f} s", flush=True)

        killed = finished = 0
        while killed < kills or not finished:
            logs = folder / f"killed{finished}"
            while not list(logs.glob(f"*/{folders.RESULT}")):
                arguments, at, seconds = [*options], None, 300
                if list(logs.glob(f"*/checkpoints/{folders.LAST}")):
                    arguments = ["--resume"]
                if killed < kills and killed % 4 == 1:
                    at = chance.randrange(24)
                elif killed < kills:
                    seconds = chance.uniform(0, 0.7 * duration)
                arguments += ["--log_dir", str(logs)]
                code, _, said = forked.run(work, arguments, at, seconds=seconds)
                if code == -signal.SIGKILL:
                    killed += 1
                    moment = f"after {seconds:.2f} s" if at is None else f"at file operation {at}"
                    print(f"kill {killed:>2} {moment}", flush=True)
                elif code != 0:
                    return [f"a run was lost, exit code {code}: {said}"]
            (run,) = (result.parent for result in logs.glob(f"*/{folders.RESULT}"))
            if found := differences(folder / "alone" / "version_0", run):
                return found
            finished += 1
            print(f"finished run {finished}: no difference", flush=True)
        return []


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"kills": 20, "epochs": 12, "seed": 0, "workers": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args(argv)
    wrong = crash_test(**vars(args))
    print(*wrong, f"{args.kills} kills, {len(wrong)} differences", sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
