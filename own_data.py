"""Images of one's own in the form of MNIST's: python train_pl.py --data PATH

What is read of them: python own_data.py PATH --output read.png (or read.npy, for compress.py)

PATH is a folder of pictures (with subfolders, these are the classes), an .npz file with `images`
and, where there are any, `labels`, an .npy file of images, or an IDX file of images beside that of
its labels. Colour and other sizes than 28x28 are out of scope: pictures become grey and 28x28.
"""

import argparse
import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.utils import make_grid

import fmnist
from boundary.checkpoints import read_checkpoint
from boundary.command_line import (
    InputError,
    OneLineParser,
    check_writable,
    one_line,
    path_name,
    run_main,
)
from boundary.files import read_idx, write_whole
from fmnist import (
    DATA_DIR,
    DATASETS,
    DIGITS,
    SIDE,
    SPLIT_SEED,
    DiscreteImages,
    MNISTDataModule,
    four_bit,
)

BOX = 20  # pixels of the box that MNIST's digits are fitted into
HELD_OUT = 10  # of so many images one is for validation and one for the test
FEWEST, MOST_CLASSES = 200, 100
SHOWN = 20  # images in a row and in a column of the picture that this file writes, at most
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # of pictures; some others run code
NO_PICTURES = ("Thumbs.db", "desktop.ini")  # what systems leave in folders, as hidden files are
RECORD = {
    **{"dataset": str, "data": str, "levels": int, "like_mnist": bool, "classes": list},
    "digest": str,
}
LIGHT = 127  # grey levels above are light


@dataclass(frozen=True)
class OwnData:
    """All images of one's own, in the order of the file or of the names.

    Args:
        path: where they come from, absolute.
        levels, like_mnist: as they were read, see `read_own`.
        data: the images with their labels and the names of these.
    """

    path: Path
    levels: int
    like_mnist: bool
    data: DiscreteImages

    @cached_property
    def digest(self) -> str:
        """Tells these images and classes from any others."""
        content = hashlib.sha256("\n".join(self.data.classes).encode())
        content.update(self.data.images.numpy().tobytes() + self.data.labels.numpy().tobytes())
        return content.hexdigest()[:16]

    @property
    def name(self) -> str:
        """The file's or folder's, which is never that of an official data set."""
        return f"own {self.path.name}" if self.path.name in DATASETS else self.path.name

    @property
    def record(self) -> dict[str, object]:
        """What a checkpoint says of the data of its training, so that other commands find it."""
        return {
            "dataset": self.name,
            "data": str(self.path),
            "levels": self.levels,
            "like_mnist": self.like_mnist,
            "classes": list(self.data.classes),
            "digest": self.digest,
        }

    def split(self) -> tuple[DiscreteImages, DiscreteImages, DiscreteImages]:
        """Training, validation and test images, in an order that depends on their number only."""
        count = len(self.data)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(SPLIT_SEED))
        held_out = count // HELD_OUT
        parts = order.split([count - 2 * held_out, held_out, held_out])
        train, val, test = (self.data.subset(part) for part in parts)
        return train, val, test


def read_own(path: str | Path, levels: int = 256, like_mnist: bool = False) -> OwnData:
    """Images of one's own from a file or folder, see above, in 16 levels.

    Args:
        levels: 256 or 16, the grey levels of the images in an array: 0..255 or 0..15.
        like_mnist: bring every image to MNIST's form, see `mnist_form`.
    Raises:
        InputError: they cannot be read, do not fit or are too few.
    """
    path = Path(path).absolute()
    try:
        if path.is_dir():
            if levels != 256:
                raise ValueError("pictures have 256 grey levels: leave --levels out")
            images, labels, classes = read_folder(path, like_mnist)
        else:
            images, labels = read_arrays(path)
            images = as_form(images, levels, like_mnist)
            labels, classes = as_classes(labels, len(images))
        if len(images) < FEWEST:
            count = {0: "no images", 1: "one image"}.get(len(images), f"{len(images)} images")
            raise ValueError(f"{count}: a model needs at least {FEWEST}, and better some thousand")
    except Exception as error:  # there is no end to what a damaged file can raise
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"argument --data: {path}: {one_line(why)}") from error
    pixels = four_bit(images) if levels == 256 or like_mnist else images
    tensors = torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(labels)
    return OwnData(path, levels, like_mnist, DiscreteImages(*tensors, classes))


def read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Images and labels, where there are any, in a file as they are."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            if "images" not in arrays:
                raise ValueError(f"has no array `images`, only {', '.join(arrays) or 'none'}")
            return arrays["images"], arrays.get("labels")
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False), None
    try:
        images = read_idx(path)
    except ValueError as error:
        raise ValueError(
            f"{error}: give such a file, .npz, .npy or a folder of pictures"
        ) from error
    if path.name.startswith("emnist"):  # its files have rows and columns exchanged
        images = images.transpose(0, 2, 1)
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    return images, read_idx(beside) if beside != path and beside.exists() else None


def as_form(images: np.ndarray, levels: int, like_mnist: bool) -> np.ndarray:
    """Images of an array, uint8 [N, H, W] or [N, 1, H, W], as uint8 [N, 28, 28]."""
    if images.dtype != np.uint8:
        raise ValueError(
            f"images are {images.dtype}, expected uint8: of floats in 0..1, save "
            "(255 * images).round().astype('uint8')"
        )
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    if images.ndim != 3 or 0 in images.shape[1:]:
        raise ValueError(f"images are {list(images.shape)}, expected [N, 28, 28]")
    highest = int(images.max(initial=0))
    if levels == 16 and highest > 15:
        raise ValueError(f"grey levels go up to {highest}, expected 0..15: leave --levels out")
    if levels == 256 and highest < 32 and len(images):
        raise ValueError(
            f"grey levels go up to {highest} of 255 only: give --levels 16 if they are 0..15, or "
            "stretch them"
        )
    if like_mnist:
        formed = np.empty((len(images), SIDE, SIDE), np.uint8)
        for number, image in enumerate(images):
            try:
                formed[number] = mnist_form(image * np.uint8(255 // (levels - 1)))
            except ValueError as error:
                raise ValueError(f"image {number}, counted from 0: {error}") from error
        return formed
    if images.shape[1:] != (SIDE, SIDE):
        raise ValueError(
            f"images are {list(images.shape)}, expected [N, 28, 28]: --like_mnist takes any size"
        )
    return np.ascontiguousarray(images)


def as_classes(labels: np.ndarray | None, count: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of any values as numbers from 0 on, int64 [N], and what each number stands for."""
    if labels is None:
        return np.zeros(count, np.int64), ()
    if labels.shape != (count,) or labels.dtype.kind not in "iuUS":
        raise ValueError(
            f"labels are {labels.dtype} {list(labels.shape)}, expected a whole number or a name "
            f"for each of {count} images"
        )
    names, numbers = np.unique(labels, return_inverse=True)
    if len(names) > MOST_CLASSES:
        raise ValueError(f"labels have {len(names)} values, expected at most {MOST_CLASSES}")
    return numbers.astype(np.int64), tuple(map(str, names.tolist()))


def read_folder(folder: Path, like_mnist: bool) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """The pictures in a folder, or in its subfolders, whose names are those of the classes.

    Returns:
        images uint8 [N, 28, 28], light on dark; labels int64 [N]; the names of the classes.
    """
    entries = visible(folder)
    subfolders = [entry for entry in entries if entry.is_dir()]
    if subfolders and len(subfolders) < len(entries):
        other = next(entry for entry in entries if not entry.is_dir())
        raise ValueError(f"{other.name} lies beside folders: put every picture into one of them")
    if len(subfolders) > MOST_CLASSES:
        raise ValueError(f"{len(subfolders)} folders, expected at most {MOST_CLASSES} classes")
    images, labels = [], []
    for number, subfolder in enumerate(subfolders or [folder]):
        files = visible(subfolder)
        if not files:
            raise ValueError(f"there are no images in {subfolder.name}")
        for file in files:
            try:
                grey = read_picture(file)
                images.append(mnist_form(grey) if like_mnist else fitted(grey))
            except Exception as error:
                name, why = file.relative_to(folder), one_line(error)
                raise ValueError(f"{name} is no picture that can be used ({why})") from error
        labels += [number] * len(files)
    classes = tuple(subfolder.name for subfolder in subfolders)
    return np.stack(images), np.array(labels), classes


def visible(folder: Path) -> list[Path]:
    """What somebody has put into a folder, in the order of the names."""
    entries = sorted(folder.iterdir())
    return [e for e in entries if not e.name.startswith(".") and e.name not in NO_PICTURES]


def read_picture(path: Path) -> np.ndarray:
    """A picture in any colours, as uint8 [H, W] in 0..255, light on dark.

    What is transparent is background. Where three quarters of the edge are light, it is dark ink on
    light paper, and is turned around.
    """
    with Image.open(path, formats=FORMATS) as file:
        picture = ImageOps.exif_transpose(file)
        if picture.mode.startswith(("I", "F")):
            raise ValueError("it has more than 8 bits for a colour: save it with 8")
        if not picture.has_transparency_data:
            return light_on_dark(np.asarray(picture.convert("L")))
        grey, opaque = np.moveaxis(np.asarray(picture.convert("RGBA").convert("LA"), float), 2, 0)
    opaque /= 255
    dark = (grey * opaque).sum() <= LIGHT * opaque.sum()
    grey = grey * opaque + (255 if dark else 0) * (1 - opaque)
    return light_on_dark(grey.round().astype(np.uint8))


def edge(grey: np.ndarray) -> np.ndarray:
    return np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def light_on_dark(grey: np.ndarray) -> np.ndarray:
    """uint8 [H, W], turned around where the edge is light."""
    return 255 - grey if (edge(grey) > LIGHT).mean() >= 0.75 else grey


def fitted(grey: np.ndarray) -> np.ndarray:
    """A picture uint8 [H, W] as large as it can be in uint8 [28, 28], with black beside it."""
    if grey.shape == (SIDE, SIDE):
        return grey
    picture = Image.fromarray(grey)
    return np.asarray(ImageOps.pad(picture, (SIDE, SIDE), Image.Resampling.BILINEAR, color=0))


def mnist_form(grey: np.ndarray) -> np.ndarray:
    """A picture of one thing as MNIST's are: in a box of 20x20, its centre of mass in the middle.

    MNIST's images were made so (LeCun et al. 1998), and so is what is drawn in explore.py's page.

    Args:
        grey: uint8 [H, W] of any size, light on dark or dark on light.
    Returns:
        uint8 [28, 28], light on dark, the lightest pixel 255.
    Raises:
        ValueError: there is nothing on the paper.
    """
    grey = light_on_dark(grey)
    ink = np.clip(grey - np.median(edge(grey)), 0, None)
    if ink.max() < 32:
        raise ValueError("nothing is on it")
    rows, columns = np.nonzero(ink > ink.max() / 5)  # fainter is the paper's grain
    ink = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    sides = [max(1, round(BOX * side / max(ink.shape))) for side in ink.shape]
    picture = Image.fromarray(ink.astype(np.float32)).resize(sides[::-1], Image.Resampling.BICUBIC)
    ink = np.clip(np.asarray(picture), 0, None)
    image = np.zeros((SIDE, SIDE), np.uint8)
    starts = [
        int(np.clip(round(SIDE / 2 - mass), 0, SIDE - side))
        for mass, side in zip(centre_of_mass(ink), sides, strict=True)
    ]
    place = tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    image[place] = (255 * ink / ink.max()).round()
    return image


def centre_of_mass(ink: np.ndarray) -> tuple[float, float]:
    """In pixels from the upper left one, down and to the right."""
    places = [np.arange(side) for side in ink.shape]
    down, right = (ink.sum(axis=1) @ places[0], ink.sum(axis=0) @ places[1])
    return down / ink.sum(), right / ink.sum()


class OwnDataModule(MNISTDataModule):
    """The three loaders of one's own images; see `MNISTDataModule`."""

    def __init__(self, own: OwnData, batch_size: int = 32, num_workers: int = 0, seed: int = 42):
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        self.own, self.classes = own, own.data.classes
        self.save_hyperparameters(own.record)

    def prepare_data(self) -> None:
        pass

    def read(self) -> tuple[DiscreteImages, DiscreteImages, DiscreteImages]:
        return self.own.split()

    def state_dict(self) -> dict[str, str]:
        return {"digest": self.own.digest}

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        if state_dict["digest"] != self.own.digest:
            raise InputError(
                f"argument --data: the images in {self.own.path} are not those that the run began "
                "with: give these, or start a new run"
            )


def add_own_data(add: Callable, data: str) -> None:
    """How images of one's own are read: the options of train_pl.py and of this file.

    Args:
        add: a parser's `add_argument`.
        data: the name of the argument for the file or folder.
    """
    help = "images of your own: a folder of pictures, .npz, .npy or IDX file"
    add(data, type=path_name, help=help)
    add("--levels", type=int, choices=(16, 256), help="grey levels in its array, 256 if not given")
    help = "fit them into MNIST's 20x20 box, and centre them"
    add("--like_mnist", action="store_true", help=help)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """The options of a command that begins with a trained model, and with its images."""
    add = parser.add_argument
    add("--data_dir", type=path_name, default=str(DATA_DIR), help="folder of the data files")
    add("--dataset", choices=DATASETS, help="its images; without, those of the model's training")
    add("--data", type=path_name, help="images of your own, also if those of the training moved")


def data_module(options: argparse.Namespace) -> MNISTDataModule:
    """The loaders that train_pl.py's options ask for.

    Raises:
        InputError: these options do not go together, or see `read_own`.
    """
    s, how = options, (options.batch_size, options.num_workers, options.seed)
    if s.data is None:
        for name in ("like_mnist", "levels"):
            if getattr(s, name):
                raise InputError(f"argument --{name}: it is for --data, leave it out")
        return MNISTDataModule(s.data_dir, s.dataset, *how)
    if s.dataset != "MNIST":
        raise InputError(
            f"argument --data: it takes the place of --dataset {s.dataset}: leave one out"
        )
    return OwnDataModule(read_own(s.data, s.levels or 256, s.like_mnist), *how)


def class_number(checkpoint: str | Path, name: str) -> int:
    """The label of a class of a checkpoint's model, by its name or the label itself.

    Raises:
        InputError: the model has no such class.
    """
    of_model = read_checkpoint(checkpoint)["hyper_parameters"].get("num_classes", len(DIGITS))
    classes = training_record(checkpoint).get("classes", [*map(str, range(of_model))])
    numbers = {str(number): number for number in range(len(classes))}
    numbers |= {known: number for number, known in enumerate(classes)}  # a name comes first
    if name not in numbers:
        known = f"one of {', '.join(classes)}" if classes else "it was trained without any"
        raise InputError(f"argument --label: the model has no class {name!r}: {known}")
    return numbers[name]


class DataSets(NamedTuple):
    """The images that a command works with, and their name; that of those of the training."""

    name: str
    trained_on: str | None
    train: DiscreteImages
    val: DiscreteImages
    test: DiscreteImages


def training_record(checkpoint: str | Path) -> dict[str, object]:
    """What a checkpoint says of the data of its training: `dataset`, its name, and more if it was
    one's own, see `OwnData.record`; nothing in files that do not say it.

    Raises:
        InputError: see `read_checkpoint`, and for a record that makes no sense.
    """
    record = read_checkpoint(checkpoint).get("datamodule_hyper_parameters")
    if not isinstance(record, dict) or "dataset" not in record:  # of somebody's own data module
        return {}
    if "data" not in record and isinstance(record["dataset"], str):
        return {"dataset": record["dataset"]} if record["dataset"] in DATASETS else {}
    kinds = RECORD if "data" in record else {"dataset": str}
    found = {name: record.get(name) for name in kinds}
    if {name: type(value) for name, value in found.items()} != kinds or (
        "data" not in record and record["dataset"] not in DATASETS
    ):
        raise InputError(
            f"checkpoint {checkpoint} is of the data set {one_line(record['dataset'])!r}: give "
            "one that this version of train_pl.py wrote"
        )
    return found


def data_for(
    checkpoint: str | Path,
    dataset: str | None = None,
    data: str | None = None,
    data_dir: str | Path = DATA_DIR,
) -> DataSets:
    """The images that are asked for or else those that a checkpoint's model was trained on.

    Args:
        dataset: one of `DATASETS`, in `data_dir`.
        data: images of one's own, read as those of the training were.
    Raises:
        InputError: they cannot be read, or those of the training are not what they were then.
    """
    record = training_record(checkpoint)
    trained_on = record.get("dataset")
    if dataset and data:
        raise InputError(
            f"argument --data: it takes the place of --dataset {dataset}: leave one out"
        )
    if data is None and (dataset or "data" not in record):
        name = dataset or trained_on or "MNIST"
        fmnist.prepare(data_dir, name)
        train, val = fmnist.split(fmnist.load(data_dir, name))
        return DataSets(name, trained_on, train, val, fmnist.load(data_dir, name, train=False))
    how = record.get("levels", 256), record.get("like_mnist", False)
    try:
        own = read_own(data or record["data"], *how)
    except InputError as error:
        remedy = "" if data else "; the model was trained on it: give with --data where it is now"
        raise InputError(f"{error}{remedy}") from error
    name = own.name
    if "digest" in record and own.digest != record["digest"]:
        if data is None:
            raise InputError(
                f"argument --data: the images in {own.path} have changed since the model was "
                "trained on them: give the old ones, or these to judge it on others"
            )
        name = f"{name}, other images"
    elif "digest" in record:
        name = record["dataset"]
    return DataSets(name, trained_on, *own.split())


def show(args: argparse.Namespace) -> None:
    """Writes what is read of images of one's own: a picture of some, or an array of all.

    Raises:
        InputError: they cannot be read, or the output cannot be written.
    """
    output, file = Path(args.output), io.BytesIO()
    if output.suffix not in (".png", ".npy"):
        raise InputError(f"argument --output: {output}: give a name that ends with .png or .npy")
    if output.exists():
        raise InputError(f"argument --output: {output} is there already: choose another name")
    check_writable("--output", output.parent)
    own = read_own(args.data, args.levels or 256, args.like_mnist)
    if output.suffix == ".npy":
        np.save(file, own.data.images.squeeze(1).numpy())
    else:
        images = own.data.images[:: math.ceil(len(own.data) / SHOWN**2)] * 17
        grid = make_grid(images, nrow=SHOWN, padding=1, pad_value=80)
        Image.fromarray(grid[0].numpy()).save(file, format="PNG")
    write_whole(output, file.getvalue())
    counts = own.data.labels.bincount().tolist()
    classes = ", ".join(f"{c} {n}" for c, n in zip(own.data.classes, counts, strict=False))
    print(f"{output}: {len(own.data):,} images; {classes or 'no classes'}")


def main(argv: list[str] | None = None) -> None:
    """The command line: see `run_main`."""
    parser = OneLineParser(
        description="Show what --data reads of images of your own.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_own_data(parser.add_argument, "data")
    help = "a .png of up to 400 images, or a .npy of all, uint8 [N, 28, 28] in 0..15"
    parser.add_argument("--output", type=path_name, default="own_data.png", help=help)
    run_main(parser, lambda: show(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
