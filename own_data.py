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
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.utils import save_image

from fmnist import (
    DATA_DIR,
    DATASETS,
    SIDE,
    DiscreteImages,
    MNISTDataModule,
    four_bit,
    split_positions,
)
from inputs.checkpoints import read_checkpoint
from inputs.command_line import (
    InputError,
    OneLineParser,
    check_writable,
    one_line,
    path_name,
    run_main,
)
from inputs.files import read_idx, write_whole

BOX = 20  # pixels of the box that MNIST's digits are fitted into
HELD_OUT = 10  # of so many images one is for validation and one for the test
FEWEST, MOST_CLASSES = 200, 100
SHOWN = 20  # images in a row and in a column of the picture that this file writes, at most
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # of pictures; some others run code
NO_PICTURES = ("Thumbs.db", "desktop.ini")  # what systems leave in folders, as hidden files are
LIGHT = 127  # grey levels above are light


class OwnData(NamedTuple):
    """All images of one's own, in the order of the file or of the names; see `read_own`."""

    data: DiscreteImages
    record: dict[str, object]

    def split(self) -> tuple[DiscreteImages, DiscreteImages, DiscreteImages]:
        """Training, validation and test images, in an order that depends on their number only."""
        held_out = len(self.data) // HELD_OUT
        parts = split_positions(len(self.data) - 2 * held_out, held_out, held_out)
        train, val, test = map(self.data.subset, parts)
        return train, val, test


def read_own(path: str | Path, levels: int = 256, like_mnist: bool = False) -> OwnData:
    """Images of one's own from a file or folder, see above, in 16 levels.

    Args:
        levels: 256 or 16, the grey levels of the images in an array: 0..255 or 0..15.
        like_mnist: bring every image to MNIST's form, see `mnist_form`.
    Returns:
        the images, and what a checkpoint says of them: dataset, a name that no official data set
        has; data, their path; levels, like_mnist; classes; digest, which tells them from others.
    Raises:
        InputError: they cannot be read, do not fit or are too few.
    """
    path = Path(path).absolute()
    try:
        if path.is_dir():
            if levels != 256:
                raise ValueError("pictures have 256 grey levels: leave --levels out")
            images, labels = read_folder(path, like_mnist)
        else:
            images, labels = read_arrays(path)
            images = as_form(images, levels, like_mnist)
        if len(images) < FEWEST:
            count = f"number of images: {len(images)}"
            raise ValueError(f"{count}, expected at least {FEWEST}, better some thousand")
        numbers, classes = as_classes(labels, len(images))
    except Exception as error:  # there is no end to what a damaged file can raise
        why = getattr(error, "strerror", None) or error  # without the path, which is named here
        raise InputError(f"argument --data: {path}: {one_line(why)}") from error
    pixels = four_bit(images) if levels == 256 or like_mnist else images
    names = "\n".join(classes).encode(errors="surrogateescape")  # folders may be named in any bytes
    digest = hashlib.sha256(names + pixels.tobytes() + numbers.tobytes())
    tensors = torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(numbers)
    record = {
        "dataset": f"own {path.name}" if path.name in DATASETS else path.name,
        "data": str(path),
        "levels": levels,
        "like_mnist": like_mnist,
        "classes": list(classes),
        "digest": digest.hexdigest()[:16],
    }
    return OwnData(DiscreteImages(*tensors, classes), record)


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
        raise ValueError(f"{error}: give one, .npz, .npy or a folder of pictures") from error
    if path.name.startswith("emnist"):  # its files have rows and columns exchanged
        images = images.transpose(0, 2, 1)
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    return images, read_idx(beside) if beside != path and beside.exists() else None


def as_form(images: np.ndarray, levels: int, like_mnist: bool) -> np.ndarray:
    """Images of an array, uint8 [N, H, W] or [N, 1, H, W], as uint8 [N, 28, 28]."""
    if images.dtype != np.uint8:
        floats = "of floats in 0..1, save (255 * images).round().astype('uint8')"
        raise ValueError(f"images are {images.dtype}, expected uint8: {floats}")
    if images.ndim == 4 and images.shape[1] == 1:
        images = images[:, 0]
    shape = f"images are {list(images.shape)}, expected [N, 28, 28]"
    if images.ndim != 3 or 0 in images.shape[1:]:
        raise ValueError(shape)
    highest = int(images.max(initial=0))
    if levels == 16 and highest > 15:
        raise ValueError(f"grey levels go up to {highest}, expected 0..15: leave --levels out")
    if levels == 256 and highest < 32 and len(images):
        raise ValueError(f"grey levels go up to {highest}, expected 255: --levels 16 is for 0..15")
    if like_mnist:
        formed = np.empty((len(images), SIDE, SIDE), np.uint8)
        for number, image in enumerate(images):
            try:
                formed[number] = mnist_form(image * np.uint8(255 // (levels - 1)))
            except ValueError as error:
                raise ValueError(f"image {number}, counted from 0: {error}") from error
        return formed
    if images.shape[1:] != (SIDE, SIDE):
        raise ValueError(f"{shape}: --like_mnist takes any size")
    return np.ascontiguousarray(images)


def as_classes(labels: np.ndarray | None, count: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of any values as numbers from 0 on, int64 [N], and what each number stands for."""
    if labels is None:
        return np.zeros(count, np.int64), ()
    if labels.shape != (count,) or labels.dtype.kind not in "iuUS":
        found = f"labels are {labels.dtype} {list(labels.shape)}"
        raise ValueError(f"{found}, expected a whole number or a name for each of {count} images")
    names, numbers = np.unique(labels, return_inverse=True)
    if len(names) > MOST_CLASSES:
        raise ValueError(f"there are {len(names)} classes, expected at most {MOST_CLASSES}")
    return numbers.astype(np.int64), tuple(map(str, names.tolist()))


def read_folder(folder: Path, like_mnist: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """The pictures in a folder, uint8 [N, 28, 28], or those in its subfolders and their names."""
    entries = visible(folder)
    subfolders = [entry for entry in entries if entry.is_dir()]
    others = [entry for entry in entries if not entry.is_dir()]
    if subfolders and others:
        raise ValueError(
            f"{others[0].name} lies beside folders: put every picture into one of them"
        )
    images, labels = [], []
    for place in subfolders or [folder]:
        files = visible(place)
        if not files:
            raise ValueError(f"there are no images in {place.name}")
        images += [read_picture(file, like_mnist) for file in files]
        labels += [place.name] * len(files)
    return np.stack(images), np.array(labels) if subfolders else None


def visible(folder: Path) -> list[Path]:
    """What somebody has put into a folder, in the order of the names."""
    entries = sorted(folder.iterdir())
    return [e for e in entries if not e.name.startswith(".") and e.name not in NO_PICTURES]


def read_picture(path: Path, like_mnist: bool) -> np.ndarray:
    """A picture in any colours and of any size, as uint8 [28, 28] in 0..255, light on dark.

    Args:
        like_mnist: bring it to MNIST's form; else it only becomes as large as it can be.
    Raises:
        ValueError: it is none, or nothing is on it; the message is one line.
    """
    try:
        grey = read_grey(path)
        if like_mnist:
            return mnist_form(grey)
        size, smooth = (SIDE, SIDE), Image.Resampling.BILINEAR
        return np.asarray(ImageOps.pad(Image.fromarray(grey), size, smooth, color=0))
    except Exception as error:  # there is no end to what a damaged file can raise
        name = Path(path.parent.name, path.name)
        raise ValueError(f"{name} is no picture that can be used ({one_line(error)})") from error


def read_grey(path: Path) -> np.ndarray:
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
    height, width = (max(1, round(BOX * side / max(ink.shape))) for side in ink.shape)
    picture = Image.fromarray(ink.astype(np.float32))
    ink = np.clip(np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)), 0, None)
    down = ink.sum(axis=1) @ np.arange(height) / ink.sum()
    right = ink.sum(axis=0) @ np.arange(width) / ink.sum()
    top = int(np.clip(round(SIDE / 2 - down), 0, SIDE - height))
    left = int(np.clip(round(SIDE / 2 - right), 0, SIDE - width))
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + height, left : left + width] = (255 * ink / ink.max()).round()
    return image


class OwnDataModule(MNISTDataModule):
    """The three loaders of one's own images; see `MNISTDataModule`."""

    def __init__(self, own: OwnData, batch_size: int = 32, num_workers: int = 0, seed: int = 42):
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)
        self.own, self.classes = own, own.data.classes
        self.save_hyperparameters(own.record)  # so that other commands find them again

    def prepare_data(self) -> None:
        pass

    def read(self) -> tuple[DiscreteImages, DiscreteImages, DiscreteImages]:
        return self.own.split()

    def state_dict(self) -> dict[str, str]:
        return {"digest": self.hparams.digest}

    def load_state_dict(self, state_dict: dict[str, str]) -> None:
        if state_dict["digest"] != self.hparams.digest:
            raise InputError(
                f"argument --data: the images in {self.hparams.data} are not those that the run "
                "began with: give these, or start a new run"
            )


def add_own_data(add: Callable, data: str) -> None:
    """The options of images of one's own; `data` is the name of the one for the file or folder."""
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
    """The loaders that train_pl.py's options ask for, if these go together; see `read_own`."""
    s, how = options, (options.batch_size, options.num_workers, options.seed)
    if s.data is None:
        for name in ("like_mnist", "levels"):
            if getattr(s, name):
                raise InputError(f"argument --{name}: it is for --data, leave it out")
        return MNISTDataModule(s.data_dir, s.dataset, *how)
    if s.dataset != "MNIST":
        raise InputError(f"argument --data: give it or --dataset {s.dataset}, not both")
    return OwnDataModule(read_own(s.data, s.levels or 256, s.like_mnist), *how)


def class_number(checkpoint: str | Path, num_classes: int, name: str) -> int:
    """The label of one of a checkpoint's classes, by its name or else the label itself."""
    numbers = [*map(str, range(num_classes))]
    classes = training_record(checkpoint).get("classes", numbers)
    known = [*classes, *numbers[: len(classes)]]
    if name not in known:
        known = f"one of {', '.join(classes)}" if classes else "it was trained without any"
        raise InputError(f"argument --label: the model has no class {name!r}: {known}")
    return known.index(name) % len(classes)


class DataSets(NamedTuple):
    """The images that a command works with, and their name; that of those of the training."""

    name: str
    trained_on: str | None
    train: DiscreteImages
    val: DiscreteImages
    test: DiscreteImages


def training_record(checkpoint: str | Path) -> dict[str, object]:
    """What a checkpoint says of the data of its training: `dataset`, its name, and more if it was
    one's own, see `read_own`; nothing in files that do not say it.
    """
    record = read_checkpoint(checkpoint).get("datamodule_hyper_parameters")
    if not isinstance(record, dict):
        return {}
    if record.keys() >= {"dataset", "data", "levels", "like_mnist", "classes", "digest"}:
        return record
    name = record.get("dataset")
    return {"dataset": name} if name in DATASETS else {}  # of somebody's own data module


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
    trained_on, digest = record.get("dataset"), record.get("digest")
    if dataset and data:
        raise InputError(f"argument --data: give it or --dataset {dataset}, not both")
    if data is None and (dataset or digest is None):
        name = dataset or trained_on or "MNIST"
        official = MNISTDataModule(data_dir, name)
        official.prepare_data()
        return DataSets(name, trained_on, *official.read())
    try:
        how = record.get("levels", 256), record.get("like_mnist", False)
        own = read_own(data or record["data"], *how)
    except InputError as error:
        remedy = "" if data else "; the model was trained on it: give with --data where it is now"
        raise InputError(f"{error}{remedy}") from error
    name = own.record["dataset"]
    if own.record["digest"] == digest:
        name = trained_on
    elif data is None:
        raise InputError(
            f"argument --data: the images in {record['data']} have changed since the model was "
            "trained on them: give the old ones, or these to judge it on others"
        )
    elif digest is not None:
        name = f"{name}, other images"
    return DataSets(name, trained_on, *own.split())


def show(args: argparse.Namespace) -> None:
    """Writes what is read of images of one's own: a picture of some, or an array of all."""
    output, file = Path(args.output), io.BytesIO()
    if output.suffix not in (".png", ".npy"):
        raise InputError(f"argument --output: {output}: give a name that ends with .png or .npy")
    if output.exists():
        raise InputError(f"argument --output: {output} is there already: choose another name")
    check_writable("--output", output.parent)
    data = read_own(args.data, args.levels or 256, args.like_mnist).data
    if output.suffix == ".npy":
        np.save(file, data.images.squeeze(1).numpy())
    else:
        images = data.images[:: math.ceil(len(data) / SHOWN**2)] / 15
        save_image(images, file, "PNG", nrow=SHOWN, padding=1, pad_value=0.3)
    write_whole(output, file.getvalue())
    counts = data.labels.bincount().tolist()
    classes = ", ".join(f"{c} {n}" for c, n in zip(data.classes, counts, strict=False))
    print(f"{output}: {len(data):,} images; {classes or 'no classes'}")


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
