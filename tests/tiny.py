"""Some real images in place of all, one thread, and a tiny finished run for all tests.

As a command it runs the program on the images: python tests/tiny.py --epochs 2 --log_dir /tmp/logs
"""

import argparse
import atexit
import csv
import sys
import tempfile
import unittest
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from pytorch_lightning.callbacks import Callback

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import fmnist
import train_pl
from runs.trainer import quiet_lightning
from train_pl import VAE

torch.set_num_threads(1)  # threads that wait for each other take three times as long here
NUM_TRAIN, NUM_VAL, NUM_TEST = 120, 24, 30
# Once per process: all images, unpacked, and the check of their archives.
whole, prepare = cache(fmnist.load), cache(fmnist.prepare)


@cache
def few(
    root: str | Path = fmnist.DATA_DIR, dataset: str = "MNIST", train: bool = True, bits: int = 4
) -> fmnist.DiscreteImages:
    """The first images of `fmnist.load`."""
    size = NUM_TRAIN + NUM_VAL if train else NUM_TEST
    return whole(root, dataset, train, bits).subset(torch.arange(size))


@contextmanager
def tiny_data() -> Iterator[None]:
    """Inside, the data sets are `few` images."""
    with mock.patch.multiple(
        fmnist, load=few, prepare=prepare, NUM_TRAIN=NUM_TRAIN, NUM_VAL=NUM_VAL
    ):
        yield


@contextmanager
def without_pictures() -> Iterator[None]:
    """Runs draw and judge no pictures, which takes two thirds of the time of a tiny one."""
    nothing = {"LossCurves": Callback, "show_latents": lambda *_: {}}
    nothing["classifier_of"] = lambda data: None
    drawn = mock.patch.object(train_pl.GenerateCallback, "sample_and_save")
    with mock.patch.multiple(train_pl, **nothing), drawn, mock.patch.object(VAE, "IW_SAMPLES", 2):
        yield


def fingerprint(figure: Figure) -> np.ndarray:
    """In place of a drawn figure ten pixels, others where images, curves or words are others."""
    shown = [image.get_array() for axes in figure.axes for image in axes.images]
    shown += [line.get_xydata() for axes in figure.axes for line in axes.lines]
    content = [np.asarray(part).tobytes() for part in shown]
    content += [text.get_text().encode() for text in figure.findobj(Text)]
    return np.frombuffer(sha256(b"|".join(content)).digest()[:30], np.uint8).reshape(1, 10, 3)


@contextmanager
def undrawn() -> Iterator[None]:
    """Figures of runs and reports are made, with all their words, but not drawn."""
    with (
        mock.patch("pictures.in_training.rendered", fingerprint),
        mock.patch("judging.report.rendered", fingerprint),
    ):
        yield


def own_trainer(**how: object) -> pl.Trainer:
    """A trainer as anybody makes one, on the CPU, that writes and says nothing by itself."""
    quiet_lightning()
    nothing = ("logger", "checkpointing", "progress_bar", "model_summary")
    plain = {name if name == "logger" else f"enable_{name}": False for name in nothing}
    return pl.Trainer(**{"accelerator": "cpu", "num_sanity_val_steps": 0, **plain, **how})


class FinishedRun(NamedTuple):
    folder: Path  # VAE_logs/version_0
    test: dict[str, float]
    said: str  # what it printed


@cache
def finished_run() -> FinishedRun:
    """A run of three epochs and two latents, with pictures and all else that a run leaves.

    It is made once per process: a test that changes a file of it copies the folder before.
    """
    temporary = tempfile.TemporaryDirectory()
    atexit.register(temporary.cleanup)
    logs = Path(temporary.name, "VAE_logs")
    # Only what the origin's callers know and --keep_epochs; the rest has the command's defaults.
    args = argparse.Namespace(
        z_dim=2,
        num_filters=4,
        lr=1e-3,
        batch_size=24,
        data_dir=fmnist.DATA_DIR,
        epochs=3,
        seed=1,
        num_workers=0,
        log_dir=str(logs),
        progress_bar=False,
        keep_epochs=True,
    )

    with tiny_data(), undrawn(), redirect_stdout(StringIO()) as said:
        (test,) = train_pl.train_vae(args)
    return FinishedRun(logs / "version_0", test, said.getvalue())


@torch.no_grad()
def random_model(num_filters: int = 2, z_dim: int = 3, num_classes: int = 10) -> train_pl.VAE:
    """A small model whose learned prior differs by class and from N(0, I)."""
    torch.manual_seed(0)
    model = train_pl.VAE(num_filters=num_filters, z_dim=z_dim, num_classes=num_classes).eval()
    for weights in model.prior.parameters():
        weights.copy_(0.1 * torch.randn_like(weights))
    return model


def save_model(model: train_pl.VAE, path: Path, **more: object) -> Path:
    """A checkpoint as Lightning writes it, but for the state of a training."""
    content = {
        "pytorch-lightning_version": pl.__version__,
        "hyper_parameters": dict(model.hparams),
        "state_dict": dict(model.state_dict()),
    }
    torch.save({**content, **more}, path)
    return path


def run_command(main: Callable[[list[str]], None], *arguments: object) -> tuple[int, str, str]:
    """A command's exit code, standard output and standard error."""
    with redirect_stdout(StringIO()) as output, redirect_stderr(StringIO()) as error:
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = stop.code
    return code, output.getvalue(), error.getvalue()


def rows(path: Path) -> list[dict[str, str]]:
    """A table in a CSV file."""
    return list(csv.DictReader(path.read_text().splitlines()))


class InFolder(unittest.TestCase):
    """A test with a folder of its own, which is removed afterwards."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)

    def assert_refused(self, main: Callable, arguments: Sequence[object], *said: str) -> None:
        """A command ends with exit code 2 and, as all that it says, a line with these words."""
        code, output, complaint = run_command(main, *arguments)
        self.assertEqual(output, "")
        self.assert_ends((code, complaint), 2, *said)

    def assert_ends(self, ending: tuple[int, str], code: int, *said: str) -> None:
        """A command's exit code is this, and its only line of complaint has these words."""
        self.assertEqual(ending[0], code, ending[1])
        self.assertEqual(len(ending[1].splitlines()), 1, ending[1])
        for words in said:
            self.assertIn(words, ending[1])


def main(argv: list[str]) -> None:
    with tiny_data():
        train_pl.main(argv)


if __name__ == "__main__":
    main(sys.argv[1:])
