"""A few hundred real images in place of all, so that the whole program runs in seconds.

As a command it runs the program on them: python tests/tiny.py --epochs 2 --log_dir /tmp/logs
"""

import sys
import tempfile
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest import mock

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import fmnist
import train_pl

NUM_TRAIN, NUM_VAL, NUM_TEST = 300, 60, 40


@contextmanager
def tiny_data() -> Iterator[None]:
    whole = fmnist.load

    def load(root: str | Path, dataset: str = "MNIST", train: bool = True) -> fmnist.DiscreteImages:
        size = NUM_TRAIN + NUM_VAL if train else NUM_TEST
        return whole(root, dataset, train).subset(torch.arange(size))

    with mock.patch.multiple(fmnist, load=load, NUM_TRAIN=NUM_TRAIN, NUM_VAL=NUM_VAL):
        yield


@contextmanager
def without_pictures() -> Iterator[None]:
    """Runs draw and judge no pictures, which takes two thirds of the time of a tiny one."""
    nothing = {"LossCurves": Callback, "show_latents": lambda *_: {}, "CLASSIFIER": Path("none")}
    drawn = mock.patch.object(train_pl.GenerateCallback, "sample_and_save")
    with mock.patch.multiple(train_pl, **nothing), drawn:
        yield


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


class InFolder(unittest.TestCase):
    """A test with a folder of its own, which is removed afterwards."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)

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
