"""Which images a command works with: MNIST, another official data set, or one's own."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from pytorch_lightning import LightningDataModule

from fmnist import DATA_DIR, DATASETS, DiscreteImages, ImagesDataModule, MNISTDataModule
from inputs.checkpoints import read_checkpoint
from inputs.command_line import InputError, path_name
from reading.own import OwnData, read_own


class OwnDataModule(ImagesDataModule):
    """The three loaders of one's own images; see `MNISTDataModule`."""

    def __init__(self, own: OwnData):
        super().__init__(own.record["dataset"], *own.split())
        self.said = own.summary()
        self.save_hyperparameters(own.record)  # so that other commands find them again


def add_own_data(add: Callable, data: str) -> None:
    """The options of images of one's own; `data` is the name of the one for the file or folder."""
    help = "images of your own: a folder, array, table or archive, see docs/own_data.md"
    add(data, type=path_name, help=help)
    add(
        "--levels",
        type=int,
        choices=(16, 256),
        help="grey levels of the arrays in --data: 256 if not given",
    )
    help = "fit the pictures of --data into MNIST's 20x20 box, and centre them"
    add("--like_mnist", action="store_true", help=help)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """The options of a command that begins with a trained model, and with its images."""
    add = parser.add_argument
    add("--data_dir", type=path_name, default=str(DATA_DIR), help="folder of the data files")
    add("--dataset", choices=DATASETS, help="data set to use; if not given, that of the training")
    add("--data", type=path_name, help="images of your own, or where those of the training are now")


def data_module(
    options: argparse.Namespace, given: LightningDataModule | None = None
) -> LightningDataModule:
    """The loaders for a run: the given ones, or those that train_pl.py's options ask for.

    The options become those of what is given.

    Raises:
        InputError: options do not go together; see `read_own`.
    """
    s, data = options, given
    if data is not None:
        s.dataset = data.hparams.get("dataset", type(data).__name__)
        s.bits = (data.num_levels - 1).bit_length()
    elif s.dataset not in DATASETS:
        raise InputError(f"data: the run began with {s.dataset!r}: give train_vae the same data")
    elif s.data is None:
        for name in ("like_mnist", "levels"):
            if getattr(s, name):
                raise InputError(f"argument --{name}: it is for --data, leave it out")
        data = MNISTDataModule(s.data_dir, s.dataset, bits=s.bits)
    else:
        if s.dataset != "MNIST":
            raise InputError(f"argument --data: give it or --dataset {s.dataset}, not both")
        data = OwnDataModule(read_own(s.data, s.levels or 256, s.like_mnist, s.bits))
    for name in ("batch_size", "num_workers", "seed"):
        setattr(data, name, getattr(s, name))
    return data


def class_number(checkpoint: str | Path, num_classes: int, name: str) -> int:
    """The label of one of a checkpoint's classes, by its name; without names, by the label."""
    classes = training_record(checkpoint).get("classes", [*map(str, range(num_classes))])
    if name not in classes:
        known = f"one of {', '.join(classes)}" if classes else "it was trained without any"
        raise InputError(f"argument --label: the model has no class {name!r}: {known}")
    return classes.index(name)


class DataSets(NamedTuple):
    """The images that a command works with, and their name; that of those of the training."""

    name: str
    trained_on: str | None
    train: DiscreteImages
    val: DiscreteImages
    test: DiscreteImages


def training_record(checkpoint: str | Path) -> dict[str, object]:
    """What a checkpoint says of the data of its training: `dataset`, its name, `bits`, and more if
    it was one's own, see `read_own`; nothing in files that do not say it.
    """
    record = read_checkpoint(checkpoint).get("datamodule_hyper_parameters")
    if not isinstance(record, dict) or not isinstance(record.get("dataset"), str):
        return {}  # of somebody's own data module
    if "digest" in record:
        return record
    return {"dataset": record["dataset"], "bits": record.get("bits", 4)}


def bits_of(record: Mapping[str, object]) -> int:
    """4 or 1, as the images of a training were, of its record; InputError for any others."""
    if (bits := record.get("bits", 4)) not in (1, 4):
        raise InputError(
            f"argument checkpoint: the model is of images in {bits} bits, and files are read in 4 "
            "or 1: judge it in Python, by image_bounds of judging/bounds.py"
        )
    return bits


def data_for(
    checkpoint: str | Path,
    dataset: str | None = None,
    data: str | None = None,
    data_dir: str | Path = DATA_DIR,
) -> DataSets:
    """The images that `dataset` or `data` names; without both, those that a model was trained on.

    Args:
        dataset: one of `DATASETS`, in `data_dir`.
        data: images of one's own, read as those of the training were.
    Raises:
        InputError: they cannot be read, or those of the training are not what they were then.
    """
    record = training_record(checkpoint)
    trained_on, digest, bits = record.get("dataset"), record.get("digest"), bits_of(record)
    if dataset and data:
        raise InputError(f"argument --data: give it or --dataset {dataset}, not both")
    if data is None and (dataset or digest is None):
        name = dataset or trained_on or "MNIST"
        if name not in DATASETS:
            raise InputError(
                f"argument --data: the model was trained on {name}, images that train_vae was "
                "given: give --data or --dataset to judge it on others"
            )
        official = MNISTDataModule(data_dir, name, bits=bits)
        official.prepare_data()
        parts = official.read()
    else:
        try:
            how = record.get("levels", 256), record.get("like_mnist", False), bits
            own = read_own(data or record["data"], *how)
        except InputError as error:
            remedy = (
                "" if data else "; the model was trained on it: give with --data where it is now"
            )
            raise InputError(f"{error}{remedy}") from error
        name, parts = own.record["dataset"], own.split()
        if own.record["digest"] == digest:
            name = trained_on
        elif data is None:
            raise InputError(
                f"argument --data: the images in {record['data']} have changed since the model was "
                "trained on them: give the old ones, or these to judge it on others"
            )
        elif digest is not None:
            name = f"{name}, other images"
    kind = "binary " if bits == 1 else ""
    return DataSets(kind + name, trained_on and kind + trained_on, *parts)
